"""What a training learns from: the keys of its step, and the lesson that these make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import keras
from pydantic import Field

from secateur.distillation import (
    Banked,
    Ensemble,
    Filtered,
    Lesson,
    Live,
    Loss,
    MemoryBank,
    Teacher,
    build,
    get_loss,
    kept_teachers,
)
from secateur.distillation.basics import temperature_for
from secateur.op_utils import make_forward
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.options import Options, option
from secateur.recipes.engine.step import State
from secateur.recipes.training.learning import described, learning_of
from secateur.reports.words import learning_text
from secateur.runs.errors import UsageError

NO_LOSS = "none"
TEACHERS = ("none", "dense", "ensemble", "bank", "files")
MEANS = ("kl", "logits", "softmax", "tempered")
FILTERS = ("none", "batch", "sample", "dataset")


class LearningOptions(Options):
    """The loss is CE · label_weight + Σ beta · loss."""

    teacher: Literal[TEACHERS] = option(
        "none",
        "the dense network, an ensemble of it and all snapshots of trainings, the last step `bank`, or the "
        "snapshots of --teacher, whose bank answers for them where images do not change",
    )
    own_start: bool = option(True, "whether the snapshot that it starts from is in the ensemble, too")
    distill: str = option("kd", "losses joined by +, such as kd+hap; none: labels alone")
    betas: list[Annotated[float, Field(ge=0)]] = option(
        [], "weights of the losses, of the last ones if fewer (default: published)"
    )
    label_weight: float = option(1.0, "of the cross-entropy with the labels", ge=0)
    temperature: float | None = option(
        None, "of kd and of the filter (default: EKG's, 4, and 10 from a thousand classes on)", gt=0
    )
    kd_factor: Literal["T2", "T", "1"] = option("T2", "of kd by the temperature")
    kd_over_classes: bool = option(False, "kd divided by the number of classes, as KESI's program does")
    mean: Literal[MEANS] = option(
        "kl", "of several teachers in kd: of divergences, or of their logits; behind a filter kl is logits"
    )
    teacher_weights: list[Annotated[float, Field(ge=0)]] = option(
        [], "of several teachers in kd (default: all alike)"
    )
    hap_ts: int = option(3, "last blocks of the teacher in hap and lsp", ge=1)
    filter: Literal[FILTERS] = option(
        "none", "leave out teachers farther from the first, the best, than the student is: EKG's rule"
    )

    @property
    def losses(self) -> list[str]:
        """Names of the losses."""
        return [] if self.distill == NO_LOSS else self.distill.split("+")

    @property
    def filter_mean(self) -> str:
        """How the teachers that a filter leaves are averaged: no divergences from them are left to mean."""
        return "logits" if self.mean == "kl" else self.mean

    @property
    def logits_alone(self) -> bool:
        """Whether the losses look at logits and at nothing else."""
        known = [get_loss(name) for name in self.losses]
        return all(loss.reads == "logits" and not loss.moves_kernels for loss in known)

    @property
    def needs_bank(self) -> bool:
        """Whether it cannot do without one."""
        asks = self.teacher == "bank" or (self.teacher == "files" and self.filter == "dataset")
        return asks and bool(self.losses)

    def settled(self, classes: int) -> Self:
        """The same with a temperature, EKG's for so many classes where none was given."""
        return self.model_copy(update={"temperature": self.temperature or temperature_for(classes)})

    def check_learning(self, label: str) -> None:
        """Raises `UsageError` for keys that exclude each other, unknown losses, and nothing to learn from.

        `label` is the step's; messages put it before the names of its keys.
        """
        names = self.losses
        if len(set(names)) < len(names):
            raise UsageError(f"Each loss once; {label}.betas weighs it. Received: distill={self.distill}")
        if len(self.betas) > len(names):
            raise UsageError(
                f"{label}.betas has a weight for each loss, {len(names)}. Received: {len(self.betas)}"
            )
        if (not names or self.teacher == "none") and self.label_weight == 0:
            raise UsageError(
                f"Nothing to learn from: no teacher and no labels. Received: {label}.label_weight=0.0"
            )
        if self.teacher_weights and self.filter != "none":
            raise UsageError(
                "Teachers are weighed or filtered, not both: a filter makes one of them. Received: "
                f"teacher_weights={self.teacher_weights}, filter={self.filter}"
            )
        losses_of(self, 2 if self.teacher in ("ensemble", "bank") else 1, label)
        if self.filter == "dataset" and self.teacher not in ("none", "bank", "files"):
            raise UsageError(
                "A filter over the data set asks a bank. "
                f"Received: {label}.teacher={self.teacher!r}, filter={self.filter!r}"
            )
        if self.teacher == "bank" and not self.logits_alone:
            raise UsageError(
                f"A bank has logits and nothing else. Received: {label}.distill={self.distill!r}"
            )

    def check_files(self, files: Sequence[str], label: str) -> None:
        """Raises `UsageError` where the snapshots of --teacher are too few, or not those that are weighed."""
        if self.teacher != "files" or not self.losses:
            return
        if not files:
            raise UsageError(
                "Who teaches? Give --teacher FILE.pkl …, or --distill none. Received: no teacher"
            )
        losses_of(self, len(files), label)
        if self.teacher_weights and len(self.teacher_weights) != len(files):
            raise UsageError(
                f"{label}.teacher_weights has one for each of {len(files)} teachers. "
                f"Received: {len(self.teacher_weights)}"
            )
        if self.filter != "none" and len(files) < 2:
            raise UsageError(
                f"A filter chooses among several teachers. Received: {label}.filter={self.filter}, "
                f"{len(files)} teachers"
            )


def losses_of(options: LearningOptions, teachers: int, label: str) -> list[tuple[Loss, float]]:
    """Losses with their weights: `betas` for the last ones, published ones for those before.

    Raises `UsageError` for a name that is not registered, with the nearest one, and for several teachers
    that no loss listens to. `label` is what messages call the step.
    """
    known = [_known(name, f"{label}.distill") for name in options.losses]
    if teachers > 1 and known and not any(loss.reads in ("logits", "all") for loss in known):
        raise UsageError(
            f"Several teachers speak through their logits: add kd. Received: distill={options.distill}, "
            f"{teachers} teachers"
        )
    published = [loss.beta for loss in known]
    betas = [*published[: len(published) - len(options.betas)], *options.betas]
    built = [build(name, **_options(options, name)) for name in options.losses]
    return list(zip(built, betas, strict=True))


# --- the lesson ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Taught:
    """A student among its teachers.

    Attributes:
        lesson: student, teachers and losses as one model.
        bank: stored logits that answer for the teachers; None where these run beside the student.
        facts: what it learns from, for report.json; see `learning_of`.
    """

    lesson: Lesson
    bank: MemoryBank | None
    facts: dict[str, Any]


def taught(
    context: RunContext, options: LearningOptions, state: State, student: keras.Model, stored: bool
) -> Taught:
    """Puts a student among its teachers, and says in a line which. `stored`: a bank may answer for them."""
    options = options.settled(context.splits.facts.num_classes)
    bank = None
    if state.bank and (options.needs_bank or stored):
        bank = MemoryBank.open(state.bank, context.splits.train.ids)
    answers = bank if options.teacher == "bank" or stored else None
    paths = _teachers(context, options, state)
    if answers and not paths:
        who = [described(state.bank, f"{answers.logits.shape[-1]} teachers")]
    else:
        who = [described(path) for path in paths]
    losses = losses_of(options, answers.logits.shape[-1] if answers else len(paths), state.name)
    facts = learning_of(options, losses, who) | {"stored": answers is not None}
    if options.teacher == "files":
        facts |= {"student": {"arch": context.config.arch, "start": state.start}}
    print(f"{state.name}: {learning_text(facts)}", flush=True)
    teacher = _teacher(context, options, () if answers else paths, bank, student) if losses else None
    if kept := getattr(teacher, "kept", None):
        facts |= {"kept_teachers": kept}
    return Taught(Lesson(student, teacher, losses, options.label_weight), answers, facts)


def _teachers(context: RunContext, options: LearningOptions, state: State) -> tuple[Path, ...]:
    """Snapshots; none where a bank is the teacher, or nobody asks."""
    trained = [path for path in state.members if options.own_start or path != state.network]
    known = {
        "bank": (),
        "dense": (state.dense,),
        "ensemble": (*reversed(trained), state.dense),
        "files": tuple(map(Path, context.config.teacher)),
    }
    return known[options.teacher] if options.losses else ()


def _teacher(
    context: RunContext,
    options: LearningOptions,
    paths: Sequence[Path],
    bank: MemoryBank | None,
    student: keras.Model,
) -> Teacher:
    """Networks that run beside the student, or what a bank says; those that a filter leaves.

    A filter for the whole data set compares the teachers in the bank with the student as it is now.
    """
    teacher = _live(context, options, paths) if paths else Banked()
    if (by := options.filter) == "none":
        return teacher
    kept = _kept(context, bank, student, options.temperature) if by == "dataset" else None
    return Filtered(teacher, by=by, mean=options.filter_mean, temperature=options.temperature, kept=kept)


def _live(context: RunContext, options: LearningOptions, paths: Sequence[Path]) -> Teacher:
    reads = tuple(dict.fromkeys(get_loss(name).reads for name in options.losses))
    live = [Live(context.load(path), reads) for path in paths]
    return Ensemble(live) if len(live) > 1 else live[0]


def _kept(context: RunContext, bank: MemoryBank, student: keras.Model, temperature: float) -> list[float]:
    """EKG's rule once for all training images, as its poster has it; prints who stays."""
    config, images = context.config, context.splits.train
    forward = make_forward(student, context.inputs, compile_=config.compile)
    own = forward(images.images, config.val_batch_size)
    kept = kept_teachers(bank(images.ids), own, temperature).numpy().tolist()
    numbers = [str(i) for i, stays in enumerate(kept, 1) if stays]
    print(
        f"teachers nearer to the first than the student is: {', '.join(numbers)} of {len(kept)}", flush=True
    )
    return kept


def _known(name: str, label: str) -> type[Loss]:
    try:
        return get_loss(name)
    except UsageError as error:
        raise UsageError(f"{label}: {error}") from error


def _options(options: LearningOptions, loss: str) -> dict[str, object]:
    """What a step says of a loss; all others have their own defaults."""
    blocks = {"teacher_blocks": options.hap_ts}
    kd = {
        "temperature": options.temperature or temperature_for(0),
        "factor": options.kd_factor,
        "mean": options.filter_mean if options.filter != "none" else options.mean,
        "over_classes": options.kd_over_classes,
        "weights": options.teacher_weights or None,
    }
    return {"kd": kd, "kd_std": {"mean": options.mean}, "hap": blocks, "lsp": blocks}.get(loss, {})
