"""A dataclass as a command line: one flag per field, with its default, range and help. Plain Python."""

from __future__ import annotations

import argparse
import dataclasses
import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from secateur.runs.errors import UsageError
from secateur.runs.suggest import closest

Options = TypeVar("Options")
RANGES = {"at_least": operator.ge, "at_most": operator.le, "above": operator.gt, "below": operator.lt}


def option(default: Any, help_: str, **more: Any) -> Any:
    """A field of an options class.

    Args:
        default: its value without the flag.
        help_: a few words for `--help`.
        more: `at_least`, `at_most`, `above`, `below` (a range, of each element of a list); `choices`,
            `nargs`, `action` (as argparse has them); `alias` (another name of the flag); anything else is for
            the reader of the field's metadata.
    """
    metadata = {"help": help_, **more}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def check_ranges(options: Any, prefix: str = "--") -> None:
    """Raises `UsageError`, which calls it prefix + name, for the first field outside its range."""
    for field in dataclasses.fields(options):
        limits = {name: field.metadata[name] for name in RANGES if name in field.metadata}
        value = getattr(options, field.name)
        if value is None:
            continue
        if limits and not all(_inside(n, limits) for n in (value if isinstance(value, list) else [value])):
            finite = ["finite"] if "float" in field.type else []
            wanted = " and ".join([*finite, *(f"{n.replace('_', ' ')} {limits[n]}" for n in limits)])
            raise UsageError(f"{prefix}{field.name} must be {wanted}. Received: {field.name}={value}")


def _inside(number: float, limits: dict[str, float]) -> bool:
    return math.isfinite(number) and all(RANGES[name](number, limit) for name, limit in limits.items())


def parse_into(
    kind: type[Options],
    argv: Sequence[str] | None,
    *,
    prog: str,
    description: str,
    defaults: Mapping[str, Any] | None = None,
) -> Options:
    """Command line (default: this process's) → an object of the options class `kind`.

    `defaults` replaces those of some fields.
    Raises `UsageError` for what cannot be understood; an unknown flag is answered with the nearest one.
    """
    parser = Parser(prog=prog, description=description)
    for field in dataclasses.fields(kind):
        _add_option(parser, field, defaults or {})
    return kind(**vars(parser.parse_args(argv)))


class Parser(argparse.ArgumentParser):
    """Fails with a `UsageError`, and takes no abbreviated flags: a typo must not become another option."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, usage="%(prog)s [--flag value …]", **options)

    def error(self, message: str) -> NoReturn:
        """Called by argparse."""
        if message.startswith("unrecognized arguments: --"):
            flag = message.split()[2].split("=")[0]
            if found := closest(flag, self._option_string_actions):
                message = f"{message}. Did you mean {found!r}?"
        raise UsageError(f"{message}\nSee {self.prog} --help")


def _add_option(
    parser: argparse.ArgumentParser, field: dataclasses.Field, defaults: Mapping[str, Any]
) -> None:
    """One field of a dataclass as a flag; its type comes from the annotation."""
    flags = [f"--{name}" for name in (field.name, field.metadata.get("alias")) if name]
    own = field.default if field.default is not dataclasses.MISSING else field.default_factory()
    default = defaults.get(field.name, own)
    options = {"dest": field.name, "default": default, "help": _help(field.metadata["help"], default)}
    if field.type.startswith("bool"):
        parser.add_argument(*flags, action=argparse.BooleanOptionalAction, **options)
        return
    for name in ("choices", "nargs", "action"):
        if name in field.metadata:
            options[name] = field.metadata[name]
    kinds = {"int": int, "float": float, "list[float]": float, "list[int]": int}
    kind = kinds.get(field.type.removesuffix(" | None"), str)
    if "choices" not in options:
        options["metavar"] = {int: "N", float: "X", str: "TEXT"}[kind]
    parser.add_argument(*flags, type=kind, **options)


def _help(text: str, default: Any) -> str:
    """The help text with a default that says more than "off" or "see the text"."""
    if default is None or default is False or default in ([], ""):
        return text
    return f"{text} (default: {' '.join(map(str, default)) if isinstance(default, list) else default})"
