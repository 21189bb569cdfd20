"""From a plan to a small trained network: slice, re-estimate BN, fine-tune (EKG, Lee & Song 2022)."""

from __future__ import annotations

from pathlib import Path

import keras

from secateur.distillation import MemoryBank, labels_only, two_view_knowledge
from secateur.op_utils import reestimate_batch_norm
from secateur.pruning import Plan, mask, narrow
from secateur.pruning.plan import FAST_WIDTH
from secateur.recipes.engine.context import RunContext
from secateur.recipes.training.loop import TrainingSpec, fit
from secateur.recipes.training.schedules import step_decay


def slim(context: RunContext, warm: Path, plan: Plan, preserve_norm: bool = True) -> Path:
    """Slices the network, re-estimates the BN averages that are left of the wide one: slimmed_param.pkl.

    `preserve_norm` rescales what stays of a kernel to the norm of the whole, as EKG does.
    """

    def make(path: Path) -> dict:
        holdout = context.splits.holdout
        stale = narrow(context.load(warm), plan, preserve_norm=preserve_norm)
        model, inner = trainable(context, warm, plan, preserve_norm)
        small = narrow(model, inner)
        facts = {
            "holdout_batch_statistics": context.accuracy(small, holdout, batch_statistics=True),
            "holdout_stale_averages": context.accuracy(stale, holdout),
            "holdout_reestimated": context.accuracy(small, holdout),
        }
        return context.save(path, small, plan) | facts

    return context.step("slim", "slimmed_param.pkl", make)


def fine_tune(context: RunContext, warm: Path, plan: Plan, bank: MemoryBank | None) -> Path:
    """Trains the sub-network: writes trained_param.pkl."""

    def make(path: Path) -> dict:
        model, inner = trainable(context, warm, plan)
        fit(context, model, training_spec(context, bank))
        return context.save(path, narrow(model, inner), plan)

    return context.step("fine-tune", "trained_param.pkl", make)


def training_spec(context: RunContext, bank: MemoryBank | None) -> TrainingSpec:
    """EKG's fine-tuning, with the bank's teachers and two views, or with labels alone."""
    config = context.config
    return TrainingSpec(
        name="fine-tune",
        images=context.splits.train,
        epochs=config.train_epoch,
        learning_rates=lambda n: step_decay(config.learning_rate, n, config.decay_points, config.decay_rate),
        objective=two_view_knowledge if bank else labels_only,
        preprocess=context.two_views if bank else context.augmented,
        weight_decay=config.weight_decay,
        seed=config.seed,
        batch_size=config.batch_size,
        remedy="Lower --learning_rate: the same folder then goes on from the slimmed network",
        accum=config.accum,
        extra=(lambda ids: {"bank": bank(ids)}) if bank else None,
    )


def trainable(
    context: RunContext, warm: Path, plan: Plan, preserve_norm: bool = True
) -> tuple[keras.Model, Plan]:
    """The sub-network in widths that train fast, surplus masked; and the plan that cuts the surplus off."""
    outer = plan.padded(FAST_WIDTH)
    with context.strategy.scope():
        model = narrow(mask(context.load(warm), plan, preserve_norm=preserve_norm), outer)
    images = context.splits.warmup.images
    reestimate_batch_norm(model, context.inputs, images, context.config.val_batch_size)
    return model, plan.within(outer)
