"""A step of a recipe: its base, what it hands to the next one, and how a table of a file becomes one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import keras

from secateur import nets
from secateur.dataloader import Facts, Splits
from secateur.pruning import Plan
from secateur.recipes.engine.config import RunOptions
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.options import Options, option
from secateur.recipes.engine.subject import Subject
from secateur.runs.errors import UsageError
from secateur.runs.registry import Registry


@dataclass(frozen=True)
class State:
    """A run between two steps.

    Attributes:
        name: of the step under way; unique in the run folder.
        network: snapshot of the network as it is now.
        plan: channels of the dense network that are left in it; None while all are.
        dense: snapshot of the network before anything was pruned.
        start: in words, what the dense network began with.
        starts: name → snapshot that a step `reset` can go back to: "epoch" and "dense".
        shown: snapshots that the report has a row for, in their order.
        members: snapshots of trainings that no ensemble has taught: with the dense one they can be one.
        search: what a search by EKG has left: its interim networks; None before one.
        searched: snapshot of the network that it began with.
        bank, bank_of: stored logits of teachers, and of which ones; None and "" before a step `bank`.
        turn, turns: the round of a loop, from 1, and how many it has; (1, 1) outside of one.
        sparse: whether single weights are zero, and have to stay so.
        shared: bits and layers of `coding.sharing.share.tied`, where equal weights have to stay equal.
        files: what steps have made of networks for others to run, for the report.
    """

    name: str = ""
    network: Path | None = None
    plan: Plan | None = None
    dense: Path | None = None
    start: str = ""
    starts: Mapping[str, Path] = field(default_factory=dict)
    shown: tuple[Path, ...] = ()
    members: tuple[Path, ...] = ()
    search: Path | None = None
    searched: Path | None = None
    bank: Path | None = None
    bank_of: str = ""
    turn: int = 1
    turns: int = 1
    sparse: bool = False
    shared: Mapping[str, Any] | None = None
    files: tuple[Path, ...] = ()

    def after(self, network: Path, shown: bool = False, **changes: object) -> State:
        """The same with another network, which the report shows or not."""
        rows = (*self.shown, network) if shown else self.shown
        return replace(self, network=network, shown=rows, **changes)

    def narrowed(self, plan: Plan) -> Plan:
        """`plan` of the network as it is, as a plan of the dense one."""
        return self.plan.then(plan) if self.plan else plan


@dataclass(frozen=True)
class Start:
    """A run before its first step: options, network, images, and how many devices share a batch."""

    config: RunOptions
    subject: Subject
    splits: Splits
    replicas: int

    def network(self) -> keras.Model:
        """The network that it will begin with, or one of the same shape."""
        given = self.config.trained_param
        if self.subject.original is not None:
            return self.subject.working(self.subject.original)
        return nets.load_params(None, given) if given else build(self.config, self.splits.facts)


LARGE = 128  # pixels, above the 96 of STL-10: a stem that keeps the resolution would cost 16 times as much


def build(config: RunOptions, facts: Facts) -> keras.Model:
    """A net of this project with random weights, for a data set; of large images the stem is ImageNet's."""
    side, choices = config.images.crop, nets.family_of(config.arch).choices
    known, large = choices.get("shortcut", ("B",)), max(side or 0, *facts.shape[:2]) >= LARGE
    own = config.images.shortcut if config.images.shortcut in known else known[0]
    stem = "imagenet" if large and "imagenet" in choices.get("stem", ()) else None
    return nets.build(
        config.arch,
        num_classes=facts.num_classes,
        input_shape=(side, side, 3) if side else facts.shape,
        shortcut=config.shortcut or own,
        head=config.head,
        stem=config.stem or stem,
        dropout=config.dropout,
    )


class Step(Options):
    """A step of a recipe: its fields are the keys of a table in the file.

    A step writes one file, named after the step, and is not done again while the file is whole. In a loop its
    name has the number of the round behind it.
    """

    kind: ClassVar[str] = ""
    writes: ClassVar[bool] = False  # files of the network for others to run: such steps are the last

    name: str = option("", "of the step; unique in its recipe (default: its kind)")
    skip: bool = option(False, "leave this step out")

    @classmethod
    def prefix(cls, values: Mapping[str, Any]) -> str:
        """What messages put before a key."""
        return f"{values.get('name') or cls.kind}."

    @property
    def label(self) -> str:
        """What messages and `--set` call it."""
        return self.name or self.kind

    @property
    def made(self) -> list[Step]:
        """It, or the steps that it repeats."""
        return [self]

    @property
    def idle(self) -> bool:
        """Whether it would change nothing, and is left out."""
        return self.skip

    @property
    def asks_bank(self) -> tuple[str, ...]:
        """Whose logits a bank may hold that it asks; () for a step that asks none."""
        return ()

    @property
    def needs_bank(self) -> bool:
        """Whether it cannot do without one."""
        return False

    def needs_labels(self, config: RunOptions) -> bool:
        """Whether images alone are not enough."""
        return True

    def trains(self, config: RunOptions) -> bool:
        """Whether it takes batches of training images."""
        return False

    def check_options(self, config: RunOptions) -> None:
        """Raises `UsageError` for options of the run that do not fit this step, before any file is read."""

    def check(self, start: Start) -> None:
        """Raises for what would fail only once it is this step's turn."""

    def run(self, context: RunContext, state: State) -> State:
        """Does the step, or finds it done. Its file is called after `state.name`."""
        raise NotImplementedError(type(self).__name__)

    def to_json(self) -> dict:
        """Plain types, for config.json."""
        return {"kind": self.kind, **self.model_dump()}


class NetworkStep(Step):
    """A step that makes another network of the one that it finds."""

    file: str = option("", "that it writes (default: snap_NAME.pkl)")
    shown: bool = option(False, "whether the report has a row for it")

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        if self.file and (self.file != Path(self.file).name or Path(self.file).suffix != ".pkl"):
            raise UsageError(
                f"A plain file name that ends in .pkl is needed. Received: {self.label}.file={self.file!r}"
            )

    def result(self, state: State) -> str:
        """The name of its file."""
        return self.file or f"snap_{state.name}.pkl"


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
