"""Recipes as TOML files: read, checked, and changed from the command line. Plain Python."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from secateur.runs.errors import UsageError
from secateur.runs.suggest import nearest

PUBLISHED = Path(__file__).parents[1] / "published"
SUFFIX = ".toml"
KEYS = ("about", "published", "command", "options", "steps")


@dataclass(frozen=True)
class RecipeFile:
    """What a file says.

    Attributes:
        name: of the file, without its suffix.
        about: a line for `--recipe list` and `--help`.
        published: what the paper or its program reports, as a line; "" where there is nothing.
        command: words behind `train_cifar.py --recipe NAME` that run it as published.
        options: option of the command line → another default.
        steps: tables of the steps, in their order.
    """

    name: str
    about: str = ""
    published: str = ""
    command: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    steps: Sequence[Mapping[str, Any]] = ()

    @classmethod
    def read(cls, path: str | Path) -> RecipeFile:
        """Raises `UsageError` for a file that is missing, is no TOML, or holds other keys or no steps."""
        try:
            table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
            raise UsageError(
                f"The recipe cannot be read ({reason}). Received: recipe={path}\n"
                "--recipe list names the published ones"
            ) from error
        for key in table:
            if key not in KEYS:
                raise UsageError(f"Unknown key of a recipe. Received: {path}: {key}. {nearest(key, KEYS)}")
        _check(table, path)
        return cls(Path(path).stem, **table)

    def changed(self, settings: Sequence[str]) -> list[dict]:
        """The steps after `--set NAME.KEY=VALUE …`, values as in TOML; text may go without quotes.

        Raises `UsageError` for a step that does not exist, with the nearest one.
        """
        steps = [_copied(table) for table in self.steps]
        for setting in settings:
            target, equals, text = setting.partition("=")
            name, dot, key = target.rpartition(".")
            if not (equals and dot and name and key):
                raise UsageError(f"--set needs STEP.KEY=VALUE. Received: {setting}")
            found = [table for table in tables_of(steps) if name_of(table) == name]
            if not found:
                names = [name_of(table) for table in tables_of(steps)]
                raise UsageError(f"Unknown step. Received: --set {setting}. {nearest(name, names)}")
            for table in found:
                table[key] = _value(text)
        return steps


def find_recipe(name: str) -> RecipeFile | None:
    """A published recipe by its name, or the user's own by its path; None when it is neither."""
    if name.endswith(SUFFIX):
        return RecipeFile.read(name)
    path = PUBLISHED / f"{name}{SUFFIX}"
    return RecipeFile.read(path) if name in published_recipes() else None


def published_recipes() -> list[str]:
    """Names of the recipes that come with the project, in alphabetical order."""
    return sorted(path.stem for path in PUBLISHED.glob(f"*{SUFFIX}"))


def name_of(table: Mapping[str, Any]) -> str:
    """The name of a step."""
    return table.get("name") or table.get("kind", "")


def check_steps(steps: Sequence[Mapping[str, Any]], reserved: Sequence[str] = ()) -> None:
    """Raises `UsageError` where a step's name is taken or no name for files of its own."""
    names = [name_of(table) for table in tables_of(steps)]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"Two steps are called {name!r}. Received: steps {names}\ngive one another name")
        if not name.isidentifier() or name in reserved:
            raise UsageError(
                "A step's name has letters, digits and _ only, and is none of "
                f"{', '.join(reserved)}. Received: name={name!r}"
            )


def tables_of(steps: Sequence[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """All steps, those inside of others too."""
    for table in steps:
        yield table
        if isinstance(table, Mapping):
            yield from tables_of(table.get("steps", ()))


def _check(table: Mapping[str, Any], path: str | Path) -> None:
    """Raises `UsageError` for a part of another type, and where the first step is not the dense network."""
    for key, value in table.items():
        kind = {"options": dict, "steps": list}.get(key, str)
        if not isinstance(value, kind):
            wanted = {dict: "a table, [options]", list: "tables, [[steps]]", str: "text"}[kind]
            raise UsageError(f"{key} must be {wanted}. Received: {path}: {key} = {value!r}")
    steps = table.get("steps") or []
    if not all(isinstance(one, dict) and isinstance(one.get("name", ""), str) for one in tables_of(steps)):
        raise UsageError(f"Every step is a table with a text as its name. Received: recipe={path}")
    if missing := [one for one in tables_of(steps) if "kind" not in one]:
        raise UsageError(f"Every step needs a kind. Received: {path}: {missing[0]}")
    if [one.get("kind") for one in tables_of(steps)].count("dense") != 1 or steps[0].get("kind") != "dense":
        raise UsageError(
            f'A recipe begins with the network that it prunes: one [[steps]] with kind = "dense". '
            f"Received: recipe={path}"
        )


def _copied(table: Mapping[str, Any]) -> dict:
    return {key: [_copied(t) for t in value] if key == "steps" else value for key, value in table.items()}


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
