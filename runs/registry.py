"""Tables of names: what a user adds, in a package or a file of his own, is found like what is here."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, TypeVar

from secateur.runs.errors import SecateurError, UsageError, first_line
from secateur.runs.suggest import require

Entry = TypeVar("Entry")


class Registry(Mapping[str, Entry]):
    """Entries of one kind by name, in the order in which they were registered.

    Args:
        noun: what messages call an entry: "criterion".
        table: installed packages offer entries as entry points of the group `secateur.TABLE`.
        entries: those that are written down beside the table.
        folder: package whose files register entries; the first look imports them.
        option: what messages call the name received; default: the noun.
        accept: (object, name) registers what an entry point names, unless loading it has done so already.
    """

    def __init__(
        self,
        noun: str,
        table: str,
        entries: Mapping[str, Entry] | None = None,
        *,
        folder: str = "",
        option: str = "",
        accept: Callable[[Any, str], object] | None = None,
    ) -> None:
        self.noun, self.group, self.option = noun, f"secateur.{table}", option or noun
        self._entries, self._folder = dict(entries or {}), folder
        self._accept = accept or (lambda found, name: self.register(found, name=name))
        self._origins = {name: _origin(entry) for name, entry in self._entries.items()}

    def register(self, entry: Any = None, /, *, name: str = "", origin: Any = None) -> Any:
        """Adds an entry under `name`, or under its own, and returns it: `@TABLE.register` does.

        Args:
            entry: what `find` returns from now on.
            name: default: its `__name__`.
            origin: the function or class that the user wrote, where the entry is made of one.

        Raises `UsageError` for a name that another definition has. The same one may come again, from a module
        that is imported anew.
        """
        if entry is None:
            return lambda later: self.register(later, name=name)
        name, own = name or getattr(entry, "__name__", ""), _origin(origin or entry)
        if not own.startswith(self._folder):  # what comes from elsewhere comes second
            self._import_folder()
        if not name or self._origins.get(name, own) != own:
            old = f", which is {self._origins[name]}" if name else ""
            raise UsageError(f"A {self.noun} needs a name of its own. Received: name={name!r}{old}")
        self._entries[name], self._origins[name] = entry, own
        return entry

    def find(self, name: str, more: str = "") -> Entry:
        """The entry. Raises `UsageError` with the nearest name and all names; `more` ends the message."""
        require(name, self, self.noun, self.option, more)
        return self[name]

    def __getitem__(self, name: str) -> Entry:
        self._import_folder()
        if name not in self._entries:
            found = _loaded(self._offered()[name])
            if name not in self._entries:
                self._accept(found, name)
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        self._import_folder()
        return iter({**self._entries, **self._offered()})

    def __len__(self) -> int:
        return len(list(iter(self)))

    def _import_folder(self) -> None:
        folder, self._folder = self._folder, ""  # once, and not from within: a file may look up an entry
        for module in pkgutil.iter_modules(importlib.import_module(folder).__path__) if folder else ():
            importlib.import_module(f"{folder}.{module.name}")

    def _offered(self) -> Mapping[str, EntryPoint]:
        return _points(self.group, tuple(sys.path))


@functools.lru_cache
def _points(group: str, path: tuple[str, ...]) -> Mapping[str, EntryPoint]:
    """Name → entry point of the packages on `path`; reading them takes 25 ms."""
    return {point.name: point for point in entry_points(group=group)}


def import_file(path: str | os.PathLike) -> None:
    """Runs a Python file of the user's, once; what it registers is found by name from then on.

    Raises `UsageError` for a file that is missing or fails, with the reason.
    """
    place = Path(path).expanduser().resolve()
    name = str(place.with_suffix("")).replace(".", "_")  # no other module has it
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, place)
    if spec is None or not os.path.isfile(place):
        raise UsageError(f"There is no such Python file. Received: --import {path}")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)  # classes ask for their module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        raise _failed(f"--import {path}", error) from error


def _loaded(point: EntryPoint) -> Any:
    try:
        return point.load()
    except Exception as error:
        raise _failed(f"entry point {point.name} = {point.value} of {point.group}", error) from error


def _failed(what: str, error: BaseException) -> BaseException:
    """Our own errors say what is wrong; others are defects of the user's file."""
    if isinstance(error, SecateurError) or not isinstance(error, Exception):
        return error
    return UsageError(
        f"It cannot be imported ({type(error).__name__}: {first_line(error)}). Received: {what}"
    )


def _origin(definition: Any) -> str:
    """Where a function or class was written; of values, what they say of themselves."""
    if not hasattr(definition, "__qualname__"):
        return repr(definition)
    return f"{definition.__module__}.{definition.__qualname__}"
