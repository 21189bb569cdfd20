"""What a run does: its options, and the steps of the recipe as they will be done."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from secateur.dataloader import Splits
from secateur.dataloader.sources import memory
from secateur.recipes.engine.config import RunOptions
from secateur.recipes.engine.flags import as_typed, in_flags
from secateur.recipes.engine.inputs import check_batch
from secateur.recipes.engine.recipe import RecipeFile, check_steps, find_recipe
from secateur.recipes.engine.step import NetworkStep, Start, Step, make_step
from secateur.recipes.engine.subject import Subject
from secateur.runs import DataError, UsageError, sha256, warn
from secateur.runs.suggest import nearest

ENDING = ("compact", "litert", "report")
RESERVED = (*ENDING, "model")
ENGINE = 2  # folders of another engine cannot be continued


@dataclass(frozen=True)
class Program:
    """What a run folder belongs to: the options, and the steps as they will be done, `--set` included.

    Attributes:
        options: of the run.
        steps: those that will be done.
        whole: whether they are all of the recipe, to its end.
        flags: of the recipe, with their values.
        system: what reports call the method: the recipe, and flags that put other parts into it.
        recipe: that the steps are of.
        in_memory: what was given in memory → its digest, or name.
    """

    options: RunOptions
    steps: Sequence[Step]
    whole: bool
    flags: Mapping[str, Any]
    system: str
    recipe: RecipeFile
    in_memory: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict:
        """Plain types, for config.json; with the digests of what was given, which must not change either."""
        given = [*sources_of(self.options), *filter(None, [self.options.model])]
        digests = {path: sha256(path) for path in given}
        steps = [step.to_json() for step in self.steps]
        given = self.options.model_dump() | {"flags": self.flags}
        held = {"in_memory": dict(self.in_memory)} if self.in_memory else {}
        return {"engine": ENGINE, **given, "program": steps, "sha256": digests, **held}


def program_of(options: RunOptions, recipe: RecipeFile | None = None) -> Program:
    """The steps of a recipe with its settings. Raises `UsageError`, in the words of the recipe's flags."""
    recipe = recipe or find_recipe(options.recipe)
    tables = recipe.changed(options.set)
    check_steps(tables, reserved=RESERVED)
    try:
        steps = [make_step(table) for table in tables]
        for step in steps:
            step.check_options(options)
    except UsageError as error:
        raise in_flags(error, recipe.flags) from None
    check_order([step for step in steps if not step.idle])
    if options.minutes and not any(getattr(step, "time_share", None) for step in _each(steps)):
        raise UsageError(
            "--minutes needs a recipe whose trainings have a time_share, as auto's have. "
            f"Received: minutes={options.minutes:g}, recipe={options.recipe}"
        )
    end = _end(steps, options.until)
    used = [step for i, step in enumerate(steps[:end], 1) if _is_used(step, steps[i:])]
    flags = {name: flag.standing(tables, vars(options)) for name, flag in recipe.flags.items()}
    system = " ".join([recipe.name, *_switched(recipe, flags)])
    return Program(options, used, end == len(steps), flags, system, recipe)


def _end(steps: Sequence[Step], until: str | None) -> int:
    """How many of the steps there are up to the one of this name."""
    names = [step.label for step in steps]
    if until and until not in names:
        raise UsageError(f"Unknown step. Received: until={until}. {nearest(until, names)}")
    return names.index(until) + 1 if until else len(steps)


def warn_of_batches(program: Program) -> None:
    """Where the user gives a size of batches that some trainings do not take, whose own nobody has chosen."""
    options = program.options
    size, chosen = options.batch_size, [word.partition("=")[0] for word in options.set]
    if "batch_size" not in options.model_fields_set or size == program.recipe.options.get("batch_size"):
        return
    trainings = [one for one in _each(program.steps) if one.trains(options)]
    own = {one.label: one.batch_size for one in trainings if one.batch_size not in (None, size)}
    if own := {label: count for label, count in own.items() if f"{label}.batch_size" not in chosen}:
        have = ", ".join(f"{label} {count}" for label, count in own.items())
        keys = [f"{label}.batch_size={size}" for label in own]
        change = f"set={keys}" if options.dataset == memory.NAME else f"--set {' '.join(keys)}"
        warn(f"batch_size={size} changes no step that has its own: {have}; {change} does")


def _switched(recipe: RecipeFile, flags: Mapping[str, Any]) -> list[str]:
    """Flags that put other parts into a recipe than its file does: `--criterion l1`, `--no-Knowledge`."""
    usual = {
        name: flag.standing(recipe.steps, recipe.options)
        for name, flag in recipe.flags.items()
        if flag.values
    }
    return [as_typed(name, flags[name]) for name, value in usual.items() if flags[name] != value]


def check(program: Program, splits: Splits, subject: Subject, replicas: int) -> None:
    """Raises for what would fail only hours later, when it is a step's turn."""
    options = program.options
    check_batch(options, len(splits.train), replicas)
    if options.balanced and not subject.classifies:
        raise UsageError(
            "--balanced counts the images of each class; this model gives none. Received: balanced=True, "
            f"loss={subject.loss_name}"
        )
    try:
        for step in program.steps:
            if step.needs_labels(options) and not splits.facts.labelled:
                raise DataError(f"The step {step.label} needs labels {_remedy(options, subject, splits)}")
            step.check(Start(options, subject, splits, replicas))
    except UsageError as error:
        raise in_flags(error, program.recipe.flags) from None


def _remedy(options: RunOptions, subject: Subject, splits: Splits) -> str:
    """What labels, and where they come from; or which loss makes classes of the outputs."""
    classes = splits.facts.num_classes
    if classes > 1 and subject.gives(classes) and not subject.classifies:
        return (
            f"for the loss of this model, which are no classes of {options.dataset}. Received: "
            f"loss={subject.loss_name}\n--loss categorical_crossentropy takes the outputs for classes; "
            "secateur.compress takes other labels"
        )
    return (
        "that its outputs can be compared with: a sub-folder of images for each class, or secateur.compress. "
        f"Received: data={options.data}"
    )


def check_order(steps: Sequence[Step]) -> None:
    """Raises `UsageError` where a network changes after its files were written, or a bank is missing.

    Also where two steps write the same snapshot.
    """
    snapshots = [one.file or f"snap_{one.label}.pkl" for one in steps if isinstance(one, NetworkStep)]
    if twice := [file for file, count in Counter(snapshots).items() if count > 1]:
        raise UsageError(f"Each step writes a file of its own. Received: file={twice[0]!r} of two steps")
    for before, after in itertools.pairwise(steps):
        if before.writes and not after.writes:
            raise UsageError(
                f"{before.label} writes the network, which {after.label} then changes. Received: "
                f"{before.label} before {after.label}\nput it behind the other steps"
            )
    banks: list[str] = []
    searched = False
    for step in _each(steps):
        if step.needs_bank and not (banks and banks[-1] in step.asks_bank):
            raise UsageError(
                f"It needs a step bank before it, with teachers = {' or '.join(step.asks_bank)}. "
                f"Received: {step.label} behind {f'one of {banks[-1]}' if banks else 'none'}"
            )
        if step.needs_bank and banks[-1] == "interim" and not searched:
            raise UsageError(
                "A bank of interim networks needs a search by EKG before it. "
                f"Received: {step.label} behind none\n--set bank.teachers=dense lets the first network teach"
            )
        banks += [step.teachers] if step.kind == "bank" else []
        searched |= step.kind == "search_ekg" and step.criterion == "ekg"


def _each(steps: Sequence[Step]) -> Iterator[Step]:
    """The steps, and in place of a loop its own."""
    for step in steps:
        yield from step.made


def _is_used(step: Step, later: Sequence[Step]) -> bool:
    """Not one that changes nothing, nor a bank that nobody asks."""
    return not step.idle and (step.kind != "bank" or any(step.teachers in one.asks_bank for one in later))


def sources_of(options: RunOptions) -> list[str]:
    """The snapshots that the options name, each once."""
    return [path for path in dict.fromkeys((*options.teacher, options.trained_param)) if path]
