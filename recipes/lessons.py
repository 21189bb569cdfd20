"""From options to what a student learns from: losses with their weights, and the teacher behind them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np

from dataloader import Images
from distillation import (
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
from distillation.basics import temperature_for
from op_utils import make_forward
from recipes.config_distill import DistillConfig
from recipes.context import RunContext


def losses_of(config: DistillConfig) -> list[tuple[Loss, float]]:
    """Losses with their weights: `--betas` for the last ones, published ones for those before.

    Raises `UsageError` for a name that is not registered, with the nearest one.
    """
    given = {"temperature": config.temperature, "mean": config.mean, "teacher_blocks": config.hap_ts}
    published = [get_loss(name).beta for name in config.losses]
    betas = [*published[: len(published) - len(config.betas)], *config.betas]
    built = [build(name, **_accepted(get_loss(name), given)) for name in config.losses]
    return list(zip(built, betas, strict=True))


def training_images(context: RunContext) -> Images:
    """The training images, or the first `--train_images` of them."""
    train, count = context.splits.train, context.config.train_images
    return train if count is None else train.take(np.arange(min(count, len(train))))


def teacher_of(context: RunContext, bank: MemoryBank | None, student: keras.Model) -> Teacher | None:
    """One network, several, or what they said of the same images before; None without a loss.

    A filter for the whole data set compares the teachers with the `student` as it is now.
    """
    config = context.config
    losses = [loss for loss, _ in losses_of(config)]
    reads = tuple(dict.fromkeys(loss.reads for loss in losses))
    if not reads:
        return None
    stored = bank and not config.augment and reads == ("logits",)
    if stored and not any(loss.moves_kernels for loss in losses):
        teacher = Banked()
    else:
        live = [Live(context.load(Path(path)), reads) for path in config.teacher]
        teacher = live[0] if len(live) == 1 else Ensemble(live)
    if (by := config.teacher_filter) == "none":
        return teacher
    kept = _kept(context, bank, student) if by == "dataset" else None
    return Filtered(teacher, by=by, mean="logits" if config.mean == "kl" else config.mean, kept=kept)


def _kept(context: RunContext, bank: MemoryBank, student: keras.Model) -> list[float]:
    """EKG's rule once for all training images, as its poster has it; prints who stays."""
    config, images = context.config, training_images(context)
    forward = make_forward(student, context.inputs, compile_=config.compile)
    own = forward(images.images, config.val_batch_size)
    kept = kept_teachers(bank(images.ids), own, temperature_for(own.shape[1])).numpy().tolist()
    names = [path for path, stays in zip(config.teacher, kept, strict=True) if stays]
    print(f"teachers nearer to the first than the student is: {', '.join(names)}", flush=True)
    return kept


def _accepted(loss: type[Loss], given: Mapping[str, object]) -> dict[str, object]:
    return {name: given[name] for name in inspect.signature(loss).parameters if name in given}
