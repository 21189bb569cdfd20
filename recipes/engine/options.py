"""Options as pydantic models: flags of a command line, or keys of a step, with type, range and choices.

pydantic checks the values; what it finds becomes one line of ours. Neither needs TensorFlow.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from secateur.runs.errors import UsageError
from secateur.runs.registry import Registry
from secateur.runs.suggest import closest, nearest

Kind = TypeVar("Kind", bound="Options")
Schema = Mapping[str, Any]  # the JSON schema of a field
FilePath = Annotated[str, Field(pattern=r"\A[^\x00]+\z")]
"""A file or folder. Not "", which a shell makes of a variable without value: it is the current folder."""

BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}
RANGE_ERRORS = {"greater_than_equal", "greater_than", "less_than_equal", "less_than", "finite_number"}
UNKNOWN = {"literal_error", "value_error"}  # of `Literal` and of `NameIn`
TYPES = {"integer": int, "number": float, "string": str, "boolean": bool, "object": dict}
LONG = 40  # characters of choices that are said in the help's text instead
METAVARS = {int: "N", float: "X", str: "TEXT"}
OF_FLAGS = {"alias", "short", "first", "action"}


def option(default: Any, help_: str, **more: Any) -> Any:
    """A field of an options class: pydantic's, with its words for `--help`.

    Args:
        default: its value without the flag; `...` where there is none.
        help_: a few words.
        more: `ge`, `gt`, `le`, `lt` and others of `pydantic.Field`; for the command line `alias` (another
            name of the flag), `short` (such as "-o"), `first` (what usage lines call a value that stands
            before all flags) and argparse's `action`.
    """
    extra = {key: more.pop(key) for key in OF_FLAGS & more.keys()}
    return Field(default, description=help_, json_schema_extra=extra or None, **more)


class NameIn:
    """Annotation of a text that is a name of a registry, which a user's file or package may add to."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return AfterValidator(self._known).__get_pydantic_core_schema__(source, handler)

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict:
        return handler(schema) | {"enum": list(self.registry)}

    def _known(self, name: str) -> str:
        if name not in self.registry:
            raise ValueError(name)
        return name


class Options(BaseModel):
    """Base of all options. A value has the type of its annotation; a whole number may stand for a float."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        """Raises `UsageError` for the first value that does not fit."""
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise UsageError(explain(type(self), values, error)) from None

    @classmethod
    def prefix(cls, values: Mapping[str, Any]) -> str:
        """What messages put before a field's name."""
        return "--"


def explain(kind: type[Options], values: Mapping[str, Any], error: ValidationError) -> str:
    """The first finding of pydantic in one line: flag or key, what was received, and what is valid."""
    name = error.errors()[0]["loc"][0]
    found = {one["type"]: one["input"] for one in error.errors() if one["loc"][0] == name}
    label = f"{kind.prefix(values)}{name}"
    if "missing" in found:
        text = kind.model_fields[name].description
        return f"Give {label}: {text}. Received: {name}=None"
    received = f"Received: {label.removeprefix('--')}={values[name]!r}"
    if "extra_forbidden" in found:
        return f"Unknown key. {received}. {nearest(name, kind.model_fields)}"
    if "string_pattern_mismatch" in found:
        return f"{label} must name a file or a folder. {received}"
    schema = kind.model_json_schema()["properties"][name]
    if unknown := UNKNOWN & found.keys():
        return f"Unknown value. {received}. {nearest(str(found[min(unknown)]), _choices(schema))}"
    wanted = _range(schema) if RANGE_ERRORS & found.keys() else _type(schema)
    return f"{label} must be {wanted}. {received}"


def parse_into(kind: type[Kind], words: Sequence[str], prog: str) -> Kind:
    """Words of a command line → options; `prog` is how usage lines call the program.

    Raises `UsageError` for what cannot be understood; an unknown flag is answered with the nearest one.
    """
    schemas = kind.model_json_schema()["properties"]
    firsts = {name: schema["first"] for name, schema in schemas.items() if "first" in schema}
    parser = Parser(prog, *firsts.values(), description=inspect.cleandoc(kind.__doc__))
    add_options(parser, kind, {})
    words = joined(words)
    for name in firsts:
        if words and (not words[0].startswith("-") or os.path.exists(words[0])):
            words = [f"--{name}={words[0]}", *words[1:]]
        elif not {f"--{name}", "-h", "--help"} & {word.partition("=")[0] for word in words}:
            raise UsageError(f"Which {name}? It comes first: {prog} {firsts[name]} --flag value …")
    return kind(**vars(parser.parse_args(words)))


def add_options(
    parser: argparse.ArgumentParser,
    kind: type[Options],
    defaults: Mapping[str, Any],
    taken: Iterable[str] = (),
) -> None:
    """A flag for each field; `defaults` of some fields are shown in place of their own.

    A field whose name is `taken` by a flag of other meaning goes by its alias alone.
    """
    schemas = kind.model_json_schema()["properties"]
    for name in sorted(schemas, key=lambda name: "first" not in schemas[name]):
        default = defaults.get(name, schemas[name].get("default"))
        _add_flag(parser, name, schemas[name], default, name in taken)


def described(kind: type[Options]) -> dict[str, str]:
    """Field → its words for `--help`, and which values it may have."""
    words = {}
    for name, schema in kind.model_json_schema()["properties"].items():
        may_be = ", ".join(_choices(schema)) or " and ".join(_bounds(schema))
        words[name] = f"{schema['description']}; {may_be}" if may_be else schema["description"]
    return words


def command_line() -> str:
    """The command that this process was started with, as one would type it."""
    program, *words = sys.argv
    path = Path(program)
    if path.name == "__main__.py":
        return shlex.join(["python", "-m", path.parent.name, *words])
    return shlex.join(["python", program, *words] if path.suffix == ".py" else [path.name, *words])


class Parser(argparse.ArgumentParser):
    """Fails with a `UsageError`, and takes no abbreviated flags: a typo must not become another option."""

    def __init__(self, prog: str, *first: str, description: str) -> None:
        usage = " ".join(("%(prog)s", *first, "[--flag value …]"))
        super().__init__(
            prog,
            usage,
            description,
            argument_default=argparse.SUPPRESS,
            allow_abbrev=False,
        )
        about = "run this file first: layers, criteria, losses … of your own; it may be given several times"
        self.add_argument("--import", metavar="FILE.py", help=about)  # `secateur.__main__` takes it away

    def error(self, message: str) -> NoReturn:
        """Called by argparse."""
        if re.match(r"unrecognized arguments: --\w", message):
            flag = message.split()[2].split("=")[0]
            if found := closest(flag, self._option_string_actions):
                message = f"{message}. Did you mean {found!r}?"
        if wrong := re.search(r"invalid choice: (.*) \(choose from (.*)\)", message, re.DOTALL):
            received, *valid = ast.literal_eval(f"[{wrong[1]}, {wrong[2]}]")  # argparse prints their repr
            if found := closest(str(received), map(str, valid)):
                message = f"{message}. Did you mean {found!r}?"
        raise UsageError(f"{message}\nSee {self.prog} --help")


def joined(words: Sequence[str]) -> list[str]:
    """--pixels -1..1 as --pixels=-1..1, since argparse takes such a word for a flag."""
    found: list[str] = []
    for word in words:
        value = re.match(r"-[\d.]", word) and not re.fullmatch(r"-\d+|-\d*\.\d+", word)
        if found and value and re.fullmatch(r"--\w+", found[-1]):
            found[-1] += f"={word}"
        else:
            found.append(word)
    return found


def _add_flag(
    parser: argparse.ArgumentParser, name: str, schema: Schema, default: Any, taken: bool = False
) -> None:
    """A field as a flag of the command line."""
    long = [one for one in (None if taken else name, schema.get("alias")) if one]
    names = [schema.get("short"), *(f"--{one}" for one in long)]
    options: dict[str, Any] = {"dest": name, "help": with_default(schema["description"], default)}
    parts = list(_parts(schema))
    kind = next(TYPES[part["type"]] for part in parts if part.get("type") in TYPES)
    if kind is bool:
        options["action"] = argparse.BooleanOptionalAction
    else:
        choices = _choices(schema)
        options |= {"type": kind} | ({"choices": choices} if choices else {"metavar": METAVARS[kind]})
        if sum(map(len, choices)) > LONG:
            options |= {"metavar": "NAME", "help": f"{options['help']}; {', '.join(choices)}"}
        options |= {"nargs": "+"} if any("items" in part for part in parts) else {}
        options |= {"action": schema["action"]} if "action" in schema else {}
    parser.add_argument(*filter(None, names), **options)


def with_default(text: str, default: Any) -> str:
    """The help text with a default that says more than "off" or "see the text"."""
    if default is None or default is False or default in ([], ""):
        return text
    return f"{text} (default: {' '.join(map(str, default)) if isinstance(default, list) else default})"


def _parts(schema: Schema) -> Iterator[Schema]:
    """The schema, its alternatives, and those of its elements."""
    yield schema
    for part in (*schema.get("anyOf", ()), *filter(None, [schema.get("items")])):
        yield from _parts(part)


def _choices(schema: Schema) -> list[str]:
    return [
        name for part in _parts(schema) for name in (part.get("enum") or filter(None, [part.get("const")]))
    ]


def _range(schema: Schema) -> str:
    """at least 0 and below 1"""
    finite = ["finite"] if any(part.get("type") == "number" for part in _parts(schema)) else []
    return " and ".join([*finite, *_bounds(schema)])


def _bounds(schema: Schema) -> list[str]:
    parts = list(_parts(schema))
    return [*dict.fromkeys(f"{BOUNDS[key]} {part[key]}" for part in parts for key in BOUNDS if key in part)]


def _type(schema: Schema) -> str:
    """int, float | list[float], …; that it may be left out goes without saying."""
    if "anyOf" in schema:
        return " | ".join(_type(part) for part in schema["anyOf"] if part.get("type") != "null")
    if "items" in schema:
        return f"list[{_type(schema['items'])}]"
    return TYPES[schema["type"]].__name__
