"""The base of all steps, their registry, and how a table of a recipe file becomes one."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from secateur.recipes.engine.config_program import ProgramOptions
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.options import check_ranges, option
from secateur.recipes.engine.state import State
from secateur.runs.errors import UsageError
from secateur.runs.suggest import nearest


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step of a recipe: its fields are the keys of a table in the file.

    A step writes one file, named after the step, and is not done again while the file is whole. In a loop its
    name has the number of the round behind it.
    """

    kind: ClassVar[str] = ""
    writes: ClassVar[bool] = False  # files of the network for others to run: such steps are the last

    name: str = option("", "of the step; unique in its recipe (default: its kind)")

    def __post_init__(self) -> None:
        check_ranges(self, prefix=f"{self.label}.")

    @property
    def label(self) -> str:
        """What messages and `--set` call it."""
        return self.name or self.kind

    def check(self, config: ProgramOptions, images: int, replicas: int) -> None:
        """Raises for what would fail only once it is this step's turn.

        Args:
            config: the options of the run.
            images: number of its training images.
            replicas: devices that share a batch.
        """

    def run(self, context: RunContext, state: State) -> State:
        """Does the step, or finds it done. Its file is called after `state.name`."""
        raise NotImplementedError(type(self).__name__)

    def to_json(self) -> dict:
        """Plain types, for config.json."""
        return {"kind": self.kind, **dataclasses.asdict(self)}


S = TypeVar("S", bound=type[Step])
_KINDS: dict[str, type[Step]] = {}


def step(kind: str) -> Callable[[S], S]:
    """Decorator of a class of steps: the name by which recipe files call it."""

    def register(cls: S) -> S:
        cls.kind = kind
        _KINDS[kind] = cls
        return cls

    return register


def kinds() -> dict[str, type[Step]]:
    """Kind → class of all files of this folder."""
    package = importlib.import_module("secateur.recipes.steps")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return _KINDS


def make_step(table: Mapping[str, Any]) -> Step:
    """A table of a recipe file → a step.

    Raises `UsageError` for an unknown kind or key, with the nearest one, and for a value of another type, out
    of range or not among the choices.
    """
    if (kind := table.get("kind")) not in (known := kinds()):
        raise UsageError(f"Unknown kind of step. Received: kind={kind!r}. {nearest(str(kind), known)}")
    cls, label = known[kind], table.get("name") or kind
    fields = {field.name: field for field in dataclasses.fields(cls)}
    values = {}
    for key, value in table.items():
        if key == "kind":
            continue
        if key not in fields:
            raise UsageError(f"Unknown key. Received: {label}.{key}={value!r}. {nearest(key, fields)}")
        values[key] = _checked(f"{label}.{key}", value, fields[key])
    return cls(**values)


TYPES = {"int": int, "float": (int, float), "str": str, "bool": bool, "dict": dict}


def _checked(label: str, value: Any, field: dataclasses.Field) -> Any:
    """The value, if it is of the field's type and among its choices."""
    kind = field.type.removesuffix(" | None")
    if not _is(value, kind) and not (value is None and kind != field.type):
        raise UsageError(f"{label} must be {kind}. Received: {label}={value!r}")
    choices = field.metadata.get("choices")
    if choices and value is not None and value not in choices:
        raise UsageError(f"Unknown value. Received: {label}={value!r}. {nearest(str(value), choices)}")
    return value


def _is(value: Any, kind: str) -> bool:
    if " | " in kind:
        return any(_is(value, one) for one in kind.split(" | "))
    if kind.startswith("list["):
        return isinstance(value, list) and all(_is(one, kind[5:-1]) for one in value)
    if isinstance(value, bool):  # which Python counts among the numbers
        return kind == "bool"
    return isinstance(value, TYPES[kind])
