"""Distillation: student → plan → slim → bank → fine-tune → compact → report. HAP's runs are among these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import keras
import numpy as np

from secateur.distillation import Lesson, MemoryBank, bank_bytes, for_lesson, lesson_terms
from secateur.op_utils import make_forward, make_strategy
from secateur.pruning import Plan, make_plan, narrow
from secateur.recipes.baseline import build
from secateur.recipes.engine.config import VOLATILE
from secateur.recipes.engine.config_distill import DistillConfig
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.export import save_compact
from secateur.recipes.engine.inputs import (
    check_batch,
    check_names,
    load_fitting,
    load_splits,
    normalisation_of,
)
from secateur.recipes.engine.report import finish
from secateur.recipes.finetune import slim, trainable, training_spec
from secateur.recipes.stages import forget_outdated, stages
from secateur.recipes.training.learning import learning_of
from secateur.recipes.training.lessons import losses_of, teacher_of
from secateur.recipes.training.loop import TrainingSpec, fit
from secateur.reports.words import UNWEIGHTED, learning_text
from secateur.runs import MetricsLog, RunFolder, Snapshot, SnapshotError, load_snapshot, read_json, write_json


def run(config: DistillConfig) -> dict:
    """Runs or continues the whole chain in `config.train_path`; returns what report.json holds."""
    check_names(config.arch, config.dataset)
    losses_of(config, len(config.teacher))  # unknown names, before anything is read
    sources = {path: load_snapshot(path) for path in (*config.teacher, config.trained_param) if path}
    strategy = make_strategy(config.gpu_id, config.tpu)
    specs = {}
    for path, source in sources.items():
        student = path == config.trained_param or (config.copy_teacher and path == config.teacher[0])
        arch = config.arch if student else None
        model = load_fitting(path, source, arch, config.dataset, strategy, config.data_path)
        specs[path] = model.spec
    splits = load_splits(config, _normalisation(config, sources))
    check_batch(config, len(splits.train), strategy.num_replicas_in_sync)
    may_differ = (*VOLATILE, *stages(DistillConfig))
    with RunFolder(config.train_path, config.to_json(), may_differ) as folder, MetricsLog(folder) as log:
        forget_outdated(folder, log, config)
        return _chain(RunContext(config, folder, log, splits, strategy), learning_of(config, specs))


def _normalisation(config: DistillConfig, sources: dict[str, Snapshot]) -> str:
    """One for all, since all read the same images."""
    found = {path: normalisation_of(config.normalisation, source) for path, source in sources.items()}
    if len(set(found.values())) > 1:
        got = ", ".join(f"{path} {name}" for path, name in found.items())
        raise SnapshotError(
            f"Teachers and student must be normalised alike: --normalisation forces one. Received: {got}"
        )
    return next(iter(found.values()), normalisation_of(config.normalisation, None))


def _chain(context: RunContext, learning: dict) -> dict:
    config = context.config
    print(learning_text(learning), flush=True)
    several = len(config.teacher) > 1
    rows = {f"teacher {i}" if several else "teacher": Path(p) for i, p in enumerate(config.teacher, 1)}
    start = _student(context)
    if config.trained_param:
        rows["student"] = start
    plan = _plan(context, start) if config.keep < 1 else None
    if plan:
        rows["slimmed"] = slim(context, start, plan, preserve_norm=False)
    bank = _bank(context) if "bank" in config.steps else None
    tuned = rows["fine-tuned"] = _learn(context, start, plan, bank)
    save_compact(context, tuned)
    kept = context.folder.entry("fine-tune")["facts"].get("kept_teachers")
    return finish(context, rows, plan, learning=learning | {"kept_teachers": kept})


def _student(context: RunContext) -> Path:
    """snap_student.pkl: the given one, a copy of the first teacher, or one with random weights."""
    config = context.config
    given = config.teacher[0] if config.copy_teacher else config.trained_param

    def make(path: Path) -> dict:
        if given:
            return context.save(path, context.load(Path(given)))
        with context.strategy.scope():
            keras.utils.set_random_seed(config.seed)
            return context.save(path, build(config, context.splits.facts))

    return context.step("student", "snap_student.pkl", make)


def _plan(context: RunContext, start: Path) -> Plan:
    """plan_<criterion>.json: the same ratio of every group.

    Gradients are those of training images as they are; HAP takes 25 augmented batches.
    """
    config = context.config

    def make(path: Path) -> None:
        options = {"round_to": config.round_to, "data": context.sample(), "seed": config.seed}
        plan = make_plan(context.load(start), config.criterion, keep=config.keep, **options)
        write_json(path, plan.to_json())

    return Plan.from_json(read_json(context.step("plan", f"plan_{config.criterion}.json", make)))


def _bank(context: RunContext) -> MemoryBank:
    """bank.npy: what every teacher says of every training image, once."""
    config, images = context.config, context.splits.train

    def make(path: Path) -> dict:
        forwards = [
            partial(
                make_forward(context.load(Path(p)), context.inputs, compile_=config.compile),
                batch_size=config.val_batch_size,
            )
            for p in config.teacher
        ]
        path.write_bytes(bank_bytes(forwards, images.images, images.ids, config.bank_dtype))
        return {"teachers": len(forwards), "images": len(images)}

    return MemoryBank.open(context.step("bank", "bank.npy", make), images.ids)


def _learn(context: RunContext, start: Path, plan: Plan | None, bank: MemoryBank | None) -> Path:
    """trained_param.pkl: the student after its lessons."""
    config = context.config

    def make(path: Path) -> dict:
        student, inner = (
            trainable(context, start, plan, preserve_norm=False) if plan else (context.load(start), None)
        )
        with context.strategy.scope():
            lesson = Lesson(
                student,
                teacher_of(context, bank, student),
                losses_of(config, len(config.teacher)),
                config.label_weight,
            )
        fit(context, lesson, _spec(context, bank, lesson.term_names), scored=lesson.learner)
        lesson.settle()
        facts = {"kept_teachers": kept} if (kept := getattr(lesson.teacher, "kept", None)) else {}
        return context.save(path, narrow(student, inner) if inner else student, plan) | facts

    return context.step("fine-tune", "trained_param.pkl", make)


def _spec(context: RunContext, bank: MemoryBank | None, terms: Sequence[str]) -> TrainingSpec:
    """That of any fine-tuning, but for what is learnt from whom."""
    config = context.config
    return replace(
        training_spec(context, None),
        objective=lesson_terms,
        terms=tuple(f"{UNWEIGHTED}{name}" for name in terms),
        preprocess=for_lesson(context.augmented if config.augment else context.plain),
        remedy="Lower --learning_rate or --betas: the same folder then goes on from the same student",
        extra=(lambda ids: {"bank": np.asarray(bank(ids))}) if config.stored else None,
    )
