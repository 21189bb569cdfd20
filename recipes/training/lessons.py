"""A student among its teachers: networks beside it, or their stored logits; a filter; the losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from secateur.distillation import (
    Banked,
    Ensemble,
    Filtered,
    Lesson,
    Live,
    MemoryBank,
    Teacher,
    get_loss,
    kept_teachers,
)
from secateur.distillation.tasks import kind_of_logits, name_of, task_for
from secateur.op_utils import make_forward
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.step import State
from secateur.recipes.training.learning import LearningOptions, described, learning_of, losses_of
from secateur.reports.words import learning_text


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
    asked = options.teacher == "bank" or (state.bank_of == "files" and (options.needs_bank or stored))
    bank = MemoryBank.open(state.bank, context.splits.train.ids) if asked else None
    answers = bank if options.teacher == "bank" or stored else None
    paths = snapshots_of(context, state, options.teacher, options.own_start) if options.losses else ()
    if answers and not paths:
        who = [described(state.bank, f"{answers.logits.shape[-1]} teachers")]
    else:
        who = [described(path) for path in paths]
    if options.teacher != "files":  # of this run: their folder goes without saying
        who = [one | {"file": Path(one["file"]).name} for one in who]
    losses = losses_of(options, answers.logits.shape[-1] if answers else len(paths), state.name)
    task = task_for(student, context.subject.task)
    facts = learning_of(options, losses, who, name_of(task), task.kind == "numbers")
    facts |= {"stored": answers is not None}
    if options.teacher == "files":
        facts |= {"student": {"arch": context.config.arch, "start": state.start}}
    print(f"{state.name}: {learning_text(facts)}", flush=True)
    teacher = _teacher(context, options, () if answers else paths, bank, student) if losses else None
    if kept := getattr(teacher, "kept", None):
        facts |= {"kept_teachers": kept}
    lesson = Lesson(student, teacher, losses, options.label_weight, task=context.subject.task)
    return Taught(lesson, answers, facts)


def snapshots_of(context: RunContext, state: State, teacher: str, own_start: bool = True) -> tuple[Path, ...]:
    """Of the teachers of that name, the last trained one first; none where that is a bank.

    `own_start`: whether the network as it is now is one of an ensemble.
    """
    trained = [path for path in state.members if own_start or path != state.network]
    known = {
        "dense": (state.dense,),
        "ensemble": (*reversed(trained), state.dense),
        "files": tuple(map(Path, context.config.teacher)) or (state.dense,),
    }
    return known.get(teacher, ())


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
    task = context.subject.task
    kind = kind_of_logits(task) if task else "classes"
    teacher = _live(context, options, paths, kind) if paths else Banked(bank.logits.shape[1:-1])
    if (by := options.filter) == "none":
        return teacher
    kept = _kept(context, bank, student, options.temperature, kind) if by == "dataset" else None
    how = {"by": by, "mean": options.filter_mean, "temperature": options.temperature, "kind": kind}
    return Filtered(teacher, kept=kept, **how)


def _live(context: RunContext, options: LearningOptions, paths: Sequence[Path], kind: str) -> Teacher:
    reads = tuple(dict.fromkeys(get_loss(name).reads for name in options.losses))
    live = [Live(context.teacher(path), reads, kind=kind) for path in paths]
    return Ensemble(live) if len(live) > 1 else live[0]


def _kept(
    context: RunContext, bank: MemoryBank, student: keras.Model, temperature: float, kind: str
) -> list[float]:
    """EKG's rule once for all training images, as its poster has it; prints who stays."""
    config, images = context.config, context.splits.train
    forward = make_forward(student, context.inputs, compile_=config.compile)
    own = forward(images.images, config.val_batch_size)
    kept = kept_teachers(bank(images.ids), own, temperature, kind).numpy().tolist()
    numbers = [str(i) for i, stays in enumerate(kept, 1) if stays]
    print(
        f"teachers nearer to the first than the student is: {', '.join(numbers)} of {len(kept)}", flush=True
    )
    return kept
