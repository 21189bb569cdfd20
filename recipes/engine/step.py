"""The base of all steps, their registry, and how a table of a recipe file becomes one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from secateur.recipes.engine.config_program import ProgramOptions
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.options import Options, option
from secateur.recipes.engine.state import State
from secateur.runs.registry import Registry


class Step(Options):
    """A step of a recipe: its fields are the keys of a table in the file.

    A step writes one file, named after the step, and is not done again while the file is whole. In a loop its
    name has the number of the round behind it.
    """

    kind: ClassVar[str] = ""
    writes: ClassVar[bool] = False  # files of the network for others to run: such steps are the last

    name: str = option("", "of the step; unique in its recipe (default: its kind)")

    @classmethod
    def prefix(cls, values: Mapping[str, Any]) -> str:
        """What messages put before a key."""
        return f"{values.get('name') or cls.kind}."

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
        return {"kind": self.kind, **self.model_dump()}


S = TypeVar("S", bound=type[Step])
STEPS: Registry[type[Step]] = Registry(
    "kind of step", "steps", folder="secateur.recipes.steps", option="kind"
)


def step(kind: str) -> Callable[[S], S]:
    """Decorator of a class of steps: the name by which recipe files call it."""

    def register(cls: S) -> S:
        cls.kind = kind
        return STEPS.register(cls, name=kind)

    return register


def make_step(table: Mapping[str, Any]) -> Step:
    """A table of a recipe file → a step.

    Raises `UsageError` for an unknown kind or key, with the nearest one, and for a value of another type, out
    of range or not among the choices.
    """
    cls = STEPS.find(table.get("kind"))
    return cls(**{key: value for key, value in table.items() if key != "kind"})
