"""The dense network: the given one, or trained as KESI trains its baselines."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable
from pathlib import Path

import keras
from tqdm import tqdm

from secateur import nets
from secateur.dataloader import Facts
from secateur.distillation import labels_only
from secateur.op_utils import make_forward
from secateur.recipes.engine.config import RunOptions
from secateur.recipes.engine.context import RunContext
from secateur.recipes.training.loop import TrainingSpec, epochs_done, fit
from secateur.recipes.training.schedules import step_decay


def baseline(context: RunContext, given: keras.Model | None) -> Path:
    """The step: writes snap_baseline.pkl."""

    def make(path: Path) -> dict:
        return context.save(path, given or _trained(context))

    return context.step("baseline", "snap_baseline.pkl", make)


def build(config: RunOptions, facts: Facts) -> keras.Model:
    """A network with random weights for a data set."""
    side = config.images.crop
    known = nets.family_of(config.arch).choices.get("shortcut", ("B",))
    own = config.images.shortcut if config.images.shortcut in known else known[0]
    return nets.build(
        config.arch,
        num_classes=facts.num_classes,
        input_shape=(side, side, 3) if side else facts.shape,
        shortcut=config.shortcut or own,
        head=config.head,
        stem=config.stem,
        dropout=config.dropout,
    )


def training_spec(context: RunContext) -> TrainingSpec:
    """SGD with plain momentum 0.9, L2 1e-4; learning rate 0.1, a tenth after half and again after 3/4."""
    config = context.config
    return TrainingSpec(
        name="baseline",
        images=context.splits.train,
        epochs=config.baseline_epoch,
        learning_rates=lambda n: step_decay(0.1, n, points=(0.5, 0.75), decay=0.1),
        objective=labels_only,
        preprocess=context.augmented,
        weight_decay=1e-4,
        seed=config.seed,
        batch_size=config.batch_size,
        remedy="Raise --batch_size (its learning rate is fixed), or give a trained network: --trained_param",
        accum=config.accum,
        optimizer="momentum",
    )


def _trained(context: RunContext) -> keras.Model:
    with context.strategy.scope():
        keras.utils.set_random_seed(context.config.seed)
        model = build(context.config, context.splits.facts)
    spec = training_spec(context)
    _announce(context, model, spec)
    fit(context, model, spec)
    return model


def _announce(context: RunContext, model: keras.Model, spec: TrainingSpec) -> None:
    """Says how long the rest will take, from measured forward passes (a step costs about three)."""
    images = spec.images.images[: spec.batch_size]
    forward = make_forward(model, context.inputs, batch_statistics=True, compile_=context.config.compile)
    forward(images, len(images))  # traces
    seconds = 3 * min(_seconds(lambda: forward(images, len(images))) for _ in range(3))
    left = spec.epochs - epochs_done(context, spec.name)
    expected = datetime.timedelta(seconds=round(seconds * (len(spec.images) // spec.batch_size) * left))
    epochs = f"{left} epochs" if left == spec.epochs else f"the last {left} of {spec.epochs} epochs"
    tqdm.write(f"no --trained_param: training the baseline for {epochs}, about {expected} (h:mm:ss)")


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
