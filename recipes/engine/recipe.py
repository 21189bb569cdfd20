"""Recipes as TOML files: read, checked, and changed from the command line. Plain Python."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from secateur.recipes.engine.flags import Flag, PublishedFlag, name_of, tables_of
from secateur.runs.errors import UsageError, first_line
from secateur.runs.files import opened
from secateur.runs.stubs import Refused
from secateur.runs.suggest import nearest

PUBLISHED = Path(__file__).parents[1] / "published"
SUFFIX = ".toml"
KEYS = ("about", "published", "command", "options", "steps", "flags", "published_flags")
DERIVED = (*KEYS, "based_on", "set")
LEVELS = 4  # of steps in steps; a loop in a loop is refused in its own words


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
        flags: flags of its own, by name.
        published_flags: those of another program.

    A file with `based_on` is the recipe of that name with other values, `set = ["STEP.KEY=VALUE", …]`; the
    file's own steps follow the steps of that recipe.
    """

    name: str
    about: str = ""
    published: str = ""
    command: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    steps: Sequence[Mapping[str, Any]] = ()
    flags: Mapping[str, Flag] = field(default_factory=dict)
    published_flags: Mapping[str, PublishedFlag] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str | Path) -> RecipeFile:
        """Raises `UsageError` for a file that is missing, is no TOML, or holds other keys or no steps."""
        try:
            with opened(path) as (file, size):
                table = tomllib.loads(file.read(size).decode())
            return cls._of(table, path)
        except RecursionError:
            reason = "it is nested too deeply, or based on itself"
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, Refused) as error:
            reason = getattr(error, "strerror", None) or first_line(error)
        raise UsageError(
            f"The recipe cannot be read ({reason}). Received: recipe={path}\n"
            "--recipe list names the published ones"
        )

    @classmethod
    def _of(cls, table: dict[str, Any], path: str | Path) -> RecipeFile:
        known = DERIVED if "based_on" in table else KEYS
        for key in table:
            if key not in known:
                raise UsageError(f"Unknown key of a recipe. Received: {path}: {key}. {nearest(key, known)}")
        _check_types(table, path)
        table["flags"] = {name: Flag(**flag) for name, flag in table.get("flags", {}).items()}
        published = table.get("published_flags", {}).items()
        table["published_flags"] = {name: PublishedFlag(**flag) for name, flag in published}
        if "based_on" in table:
            table = _derived(table, path)
        _check_steps(table.get("steps", []), path)
        made = cls(Path(path).stem, **table)
        for name, flag in made.flags.items():
            if not flag.values and not _has_flag_type(flag.standing(made.steps, made.options)):
                raise UsageError(
                    "A flag sets a key that has a number, a text or a switch in the recipe. "
                    f"Received: {path}: flags.{name}.sets={flag.sets}"
                )
        return made

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


def check_steps(steps: Sequence[Mapping[str, Any]], reserved: Sequence[str] = ()) -> None:
    """Raises `UsageError` where a step's name is taken or no name for files of its own."""
    names = [name_of(table) for table in tables_of(steps)]
    for name, count in Counter(names).items():
        if count > 1:
            raise UsageError(
                f"Two steps are called {name!r}. Received: {count} of {len(names)} steps\n"
                "give one another name"
            )
        if not name.isidentifier() or name in reserved:
            raise UsageError(
                "A step's name has letters, digits and _ only, and is none of "
                f"{', '.join(reserved)}. Received: name={name!r}"
            )


def _derived(table: Mapping[str, Any], path: str | Path) -> dict[str, Any]:
    """The recipe that a file is based on, with what the file says itself."""
    base = find_recipe(name := table["based_on"])
    if base is None:
        raise UsageError(
            f"Unknown recipe. Received: {path}: based_on={name!r}. {nearest(name, published_recipes())}"
        )
    own = {key: value for key, value in table.items() if key in KEYS}
    merged = {
        key: {**getattr(base, key), **own.get(key, {})} for key in ("options", "flags", "published_flags")
    }
    steps = [*base.changed(table.get("set", [])), *own.get("steps", [])]
    idle = {name_of(one) for one in tables_of(steps) if one.get("skip")}
    for name in base.flags.keys() - own.get("flags", {}).keys():
        if idle & {target.partition(".")[0] for target in base.flags[name].targets}:
            del merged["flags"][name]  # it would set keys of a step that is left out
    words = merged["published_flags"]
    merged["published_flags"] = {
        word: flag
        for word, flag in words.items()
        if word in own.get("published_flags", {}) or flag.flag is None or flag.flag in merged["flags"]
    }
    return {**own, **merged, "steps": steps}


def _check_types(table: Mapping[str, Any], path: str | Path) -> None:
    """Raises `UsageError` for a part of another type."""
    texts, lists = ("about", "published", "command", "based_on"), ("steps", "set")
    for key, value in table.items():
        kind = str if key in texts else list if key in lists else dict
        if not isinstance(value, kind):
            wanted = {dict: f"a table, [{key}]", list: "tables, [[steps]]", str: "text"}[kind]
            raise UsageError(f"{key} must be {wanted}. Received: {path}: {key} = {value!r}")
    if wrong := [one for one in table.get("set", []) if not isinstance(one, str)]:
        raise UsageError(f'set has texts, "STEP.KEY=VALUE". Received: {path}: set = [{wrong[0]!r}]')
    for key in ("flags", "published_flags"):
        for name, value in table.get(key, {}).items():
            if not isinstance(value, dict):
                raise UsageError(f"A flag is a table. Received: {path}: {key}.{name} = {value!r}")


def _check_steps(steps: Sequence[Any], path: str | Path) -> None:
    """Raises `UsageError` where steps are no tables, and where the first one is not the dense network."""
    if not are_steps(steps):
        raise UsageError(
            "Every step is a table with a text as its name and as its kind; steps in it are such tables. "
            f"Received: recipe={path}"
        )
    if missing := [one for one in tables_of(steps) if "kind" not in one]:
        raise UsageError(f"Every step needs a kind. Received: {path}: {missing[0]}")
    if [one["kind"] for one in tables_of(steps)].count("dense") != 1 or steps[0]["kind"] != "dense":
        raise UsageError(
            f'A recipe begins with the network that it prunes: one [[steps]] with kind = "dense". '
            f"Received: recipe={path}"
        )


def are_steps(steps: Any, levels: int = LEVELS) -> bool:
    """Whether these are tables of steps, and the steps in them, of which there are so many levels at most."""
    return (
        isinstance(steps, list)
        and (levels > 0 or not steps)
        and all(
            isinstance(one, dict)
            and isinstance(one.get("kind", ""), str)
            and isinstance(one.get("name", ""), str)
            and are_steps(one.get("steps", []), levels - 1)
            for one in steps
        )
    )


def _has_flag_type(value: Any) -> bool:
    """Whether a word of the command line can be a value like this one, which may be several numbers."""
    if isinstance(value, list):
        return all(type(one) in (int, float) for one in value)
    return isinstance(value, bool | int | float | str)


def _copied(table: Mapping[str, Any]) -> dict:
    return {key: [_copied(t) for t in value] if key == "steps" else value for key, value in table.items()}


def written(value: Any) -> str:
    """A value as `changed` reads it."""
    if isinstance(value, list):
        return f"[{', '.join(map(written, value))}]"
    return repr(value) if isinstance(value, float) else json.dumps(value, default=str)


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text


# --- what `--recipe list` prints --------------------------------------------------------------------------

MINUTES = 2.2
"""An epoch of ResNet-56 on CIFAR-10 with two CPU cores: 368 steps of 352 ms (docs/performance.md)."""


def listing() -> str:
    """A paragraph for each recipe."""
    parts = []
    for name in published_recipes():
        file = find_recipe(name)
        command = f"--recipe {name} {file.command}".strip()
        trained = [step for step in file.steps if "--trained_param" not in command or step["kind"] != "dense"]
        parts.append(_paragraph(name, file.about, command, epochs(trained), file.published))
    return "\n\n".join(parts)


def epochs(steps: Any) -> int:
    """Epochs of all trainings of a recipe that are not left out."""
    total = 0
    for table in steps:
        if table.get("skip"):
            continue
        if table["kind"] == "repeat":
            total += table["times"] * epochs(table["steps"])
        total += table.get("epochs", 0)
    return total


def _paragraph(name: str, about: str, command: str, work: int | None, published: str) -> str:
    lines = [f"{name}: {about}", f"  python train_cifar.py {command}"]
    if work:
        minutes = work * MINUTES
        long = f"{minutes / 60:.0f} h" if minutes > 90 else f"{minutes:.0f} min"
        lines.append(f"  {work} epochs; of ResNet-56 on CIFAR-10 {long} on two CPU cores")
    if published:
        lines.append(f"  published: {published}")
    return "\n".join(lines)
