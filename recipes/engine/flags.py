"""Flags that a recipe file has of its own, so that a published command goes on to work. Plain Python.

    [flags.train_epoch]                                [published_flags.n-epochs]
    sets = ["fine_tune.epochs"]                        flag = "train_epoch"
    help = "epochs of fine-tuning"

`--train_epoch 3` is `--set fine_tune.epochs=3`, and `--n-epochs 3`, another program's word for it, the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from secateur.recipes.engine.options import Options, option
from secateur.runs.errors import UsageError
from secateur.runs.suggest import nearest

SWITCH = {"true": True, "false": False}
Tables = Sequence[Mapping[str, Any]]


class _Entry(Options):
    @classmethod
    def prefix(cls, values: Mapping[str, Any]) -> str:
        """What messages put before a key."""
        return "flags."


class Flag(_Entry):
    """A flag of a recipe: it sets keys to its value, or its value is the name of settings."""

    help: str = option(..., "words for --help")
    sets: list[str] = option([], "STEP.KEY, or an option of every run, that get the value")
    values: dict[str, dict] = option({}, "value → settings; true and false for a switch")
    alias: str | None = option(None, "another name")

    def settings(self, value: Any) -> dict[str, Any]:
        """OPTION or STEP.KEY → what it is set to."""
        if not self.values:
            return dict.fromkeys(self.sets, value)
        word = str(value).lower() if isinstance(value, bool) else value
        return dict(_flat(self.values[word]))

    @property
    def targets(self) -> set[str]:
        """OPTION or STEP.KEY that it may set."""
        return {*self.sets, *(target for one in self.values.values() for target, _ in _flat(one))}

    def standing(self, steps: Tables, options: Mapping[str, Any]) -> Any:
        """What it has been set to, where a recipe has these steps and options; None for something else."""
        if not self.values:
            return _value(self.sets[0], steps, options) if self.sets else None
        for word, settings in self.values.items():
            if all(_value(target, steps, options) == value for target, value in _flat(settings)):
                return SWITCH.get(word, word)
        return None


class PublishedFlag(_Entry):
    """A flag of another program in our words."""

    flag: str | None = option(None, "ours; without one it says what happens here anyway")
    values: dict[str, str] = option({}, "regular expression of its values → ours")
    only: bool = option(False, "refuse other values")

    def words(self, name: str, values: Sequence[str]) -> list[str]:
        """Ours. Raises `UsageError` for a value that is refused; `name` is what messages call the flag."""
        ours = [self._ours(name, value) for value in values or [""] * self.only]
        return [f"--{self.flag}", *ours] if self.flag else []

    def _ours(self, name: str, value: str) -> str:
        for pattern, ours in self.values.items():
            try:
                if match := re.fullmatch(pattern, value):
                    return match.expand(ours)
            except re.error as error:
                raise UsageError(
                    f"The recipe has no regular expression here ({error}). "
                    f"Received: {name}: {pattern!r} = {ours!r}"
                ) from None
        if self.only:
            valid = [word for pattern in self.values for word in pattern.split("|")]
            hint = f"Only {valid[0]} is supported" if len(valid) == 1 else nearest(value, valid)
            raise UsageError(f"Unknown value. Received: {name} {value or 'without one'}. {hint}")
        return value


def translate(words: Sequence[str], flags: Mapping[str, PublishedFlag]) -> list[str]:
    """Published flags with their values in our words; everything else as it is."""
    found: list[str] = []
    rest = list(words)
    while rest:
        word, equals, value = rest.pop(0).partition("=")
        flag = flags.get(word.removeprefix("--")) if word.startswith("--") else None
        if flag is None:
            found.append(word + equals + value)
            continue
        values = [value] if equals else []
        while rest and not rest[0].startswith("--"):
            values.append(rest.pop(0))
        found += flag.words(word, values)
    return found


def together(chosen: Mapping[str, Any], flags: Mapping[str, Flag]) -> dict[str, Any]:
    """OPTION or STEP.KEY → value, of all flags that were given.

    Raises `UsageError` for two flags that want different values.
    """
    found: dict[str, tuple[Any, str]] = {}
    for name, value in chosen.items():
        for target, new in flags[name].settings(value).items():
            if target in found and found[target][0] != new:
                old, before = found[target]
                raise UsageError(
                    f"Two flags set {target}, to {old!r} and to {new!r}. "
                    f"Received: {before} with {as_typed(name, value)}"
                )
            found[target] = new, as_typed(name, value)
    return {target: value for target, (value, _) in found.items()}


def as_typed(name: str, value: Any) -> str:
    """A flag as it is typed."""
    if isinstance(value, bool):
        return f"--{name}" if value else f"--no-{name}"
    return f"--{name} {' '.join(map(str, value)) if isinstance(value, list) else value}"


def in_flags(error: UsageError, flags: Mapping[str, Flag]) -> UsageError:
    """An error that names STEP.KEY, in the words of the flag that sets it."""
    text = str(error)
    for name, flag in flags.items():
        for target in flag.sets:
            if re.search(rf"\b{re.escape(target)}\b", text):
                key = target.rpartition(".")[2]
                text = re.sub(rf"Received: ({re.escape(target)}|{key})=", f"Received: {name}=", text)
                text = re.sub(
                    rf"{re.escape(target)}\b", f"--{name}", text
                )  # not prune.keep_macs for prune.keep
    return UsageError(text)


def name_of(table: Mapping[str, Any]) -> str:
    """The name of a step."""
    return table.get("name") or table.get("kind", "")


def tables_of(steps: Tables) -> Iterator[Mapping[str, Any]]:
    """All steps, those inside of others too."""
    for table in steps:
        yield table
        if isinstance(table, Mapping):
            yield from tables_of(table.get("steps", ()))


def _value(target: str, steps: Tables, options: Mapping[str, Any]) -> Any:
    name, dot, key = target.rpartition(".")
    table = next((one for one in tables_of(steps) if name_of(one) == name), {}) if dot else options
    return table.get(key)


def _flat(settings: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{key}", one) for key, one in value.items())
        else:
            yield name, value
