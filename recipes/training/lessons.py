"""From options to what a student learns from: losses with their weights, and the teacher behind them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import keras

from secateur.distillation import (
    Banked,
    Ensemble,
    Filtered,
    Live,
    Loss,
    MemoryBank,
    Teacher,
    build,
    get_loss,
    kept_teachers,
)
from secateur.op_utils import make_forward
from secateur.recipes.engine.config_learning import LearningOptions
from secateur.recipes.engine.context import RunContext
from secateur.runs.errors import UsageError


def losses_of(config: LearningOptions, teachers: int, label: str = "--distill") -> list[tuple[Loss, float]]:
    """Losses with their weights: `--betas` for the last ones, published ones for those before.

    Raises `UsageError` for a name that is not registered, with the nearest one, and for several teachers
    that no loss listens to. `label` is what messages call the option.
    """
    known = [_known(name, label) for name in config.losses]
    if teachers > 1 and known and not any(loss.reads in ("logits", "all") for loss in known):
        raise UsageError(
            f"Several teachers speak through their logits: add kd. Received: distill={config.distill}, "
            f"{teachers} teachers"
        )
    published = [loss.beta for loss in known]
    betas = [*published[: len(published) - len(config.betas)], *config.betas]
    built = [build(name, **_options(config, name)) for name in config.losses]
    return list(zip(built, betas, strict=True))


def _known(name: str, label: str) -> type[Loss]:
    try:
        return get_loss(name)
    except UsageError as error:
        raise UsageError(f"{label}: {error}") from error


def filter_mean(config: LearningOptions) -> str:
    """How the teachers that a filter leaves are averaged: there are no divergences from them left to mean."""
    return "logits" if config.mean == "kl" else config.mean


def teacher_of(context: RunContext, bank: MemoryBank | None, student: keras.Model) -> Teacher | None:
    """One network, several, or what they said of the same images before; None without a loss.

    A filter for the whole data set compares the teachers with the `student` as it is now.
    """
    config = context.config
    teacher = Banked() if config.stored else live_teacher(context, config, map(Path, config.teacher))
    if teacher is None:
        return None
    if (by := config.teacher_filter) == "none":
        return teacher
    kept = _kept(context, bank, student) if by == "dataset" else None
    mean = filter_mean(config)
    return Filtered(teacher, by=by, mean=mean, temperature=config.temperature, kept=kept)


def live_teacher(context: RunContext, options: LearningOptions, paths: Iterable[Path]) -> Teacher | None:
    """The networks of snapshots, which run beside the student; None where no loss listens."""
    reads = tuple(dict.fromkeys(get_loss(name).reads for name in options.losses))
    live = [Live(context.load(path), reads) for path in paths] if reads else []
    return Ensemble(live) if len(live) > 1 else next(iter(live), None)


def _kept(context: RunContext, bank: MemoryBank, student: keras.Model) -> list[float]:
    """EKG's rule once for all training images, as its poster has it; prints who stays."""
    config, images = context.config, context.splits.train
    forward = make_forward(student, context.inputs, compile_=config.compile)
    own = forward(images.images, config.val_batch_size)
    kept = kept_teachers(bank(images.ids), own, config.temperature).numpy().tolist()
    names = [path for path, stays in zip(config.teacher, kept, strict=True) if stays]
    print(f"teachers nearer to the first than the student is: {', '.join(names)}", flush=True)
    return kept


def _options(config: LearningOptions, loss: str) -> dict[str, object]:
    """What the command line says of a loss; all others have their own defaults."""
    filtered = getattr(config, "teacher_filter", "none") != "none"
    blocks = {"teacher_blocks": config.hap_ts}
    kd = {
        "temperature": config.temperature,
        "factor": config.kd_factor,
        "mean": filter_mean(config) if filtered else config.mean,
        "over_classes": config.kd_over_classes,
        "weights": config.teacher_weights or None,
    }
    return {"kd": kd, "kd_std": {"mean": config.mean}, "hap": blocks, "lsp": blocks}.get(loss, {})
