"""The training loop: epochs, progress, metrics, one checkpoint per epoch from which a killed run goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from tqdm import tqdm

from dataloader import Images, Splits, batches, epoch_order
from dataloader.augment import normalise
from distillation.losses import cross_entropy
from op_utils import Objective, Preprocess, Trainer, make_forward
from recipes.config import Config
from runs import MetricsLog, RunFolder


@dataclass(frozen=True)
class Lab:
    """What every step of a run works with."""

    config: Config
    folder: RunFolder
    log: MetricsLog
    splits: Splits
    strategy: tf.distribute.Strategy

    def inputs(self, images: tf.Tensor) -> tf.Tensor:
        """uint8 images → what the network reads, without augmentation."""
        return normalise(images, self.splits.facts.mean, self.splits.facts.std)


@dataclass(frozen=True)
class Course:
    """How to train: `rates` has one learning rate per step, `extra` adds arrays to a batch by image id."""

    name: str
    images: Images
    epochs: int
    rates: Callable[[int], np.ndarray]
    objective: Objective
    preprocess: Preprocess
    weight_decay: float
    seed: int
    batch_size: int
    accum: int = 1
    extra: Callable[[np.ndarray], dict] | None = None


def fit(lab: Lab, model: keras.Model, course: Course) -> None:
    """Trains in place. Every epoch ends in a checkpoint; after a kill the epoch under way is done again."""
    config = lab.config
    trainer = Trainer(
        model,
        course.preprocess,
        course.objective,
        weight_decay=course.weight_decay,
        accum=course.accum,
        strategy=lab.strategy,
        compile_=config.compile,
    )
    first = _resume(lab, trainer, course.name)
    forward = make_forward(model, lab.inputs, compile_=config.compile)
    per_epoch = len(course.images) // course.batch_size
    rates = course.rates(per_epoch * course.epochs)
    for epoch in range(first, course.epochs):
        loss, accuracy = _epoch(trainer, course, epoch, per_epoch, rates, config.do_log)
        held = evaluate(forward, lab.splits.holdout, config.val_batch_size)
        lab.log.log(
            epoch + 1,
            phase=course.name,
            loss=loss,
            accuracy=accuracy,
            holdout_loss=held.loss,
            holdout_accuracy=held.accuracy,
            learning_rate=float(rates[(epoch + 1) * per_epoch - 1]),
        )
        lab.folder.save_checkpoint(course.name, trainer.state(), {"epoch": epoch + 1})


def _resume(lab: Lab, trainer: Trainer, name: str) -> int:
    saved = lab.folder.load_checkpoint(name)
    done = saved.facts["epoch"] if saved else 0
    if saved:
        trainer.restore(saved.arrays)
        tqdm.write(f"{name}: continuing after epoch {done}")
    lab.log.truncate(name, done)
    return done


def _epoch(
    trainer: Trainer, course: Course, epoch: int, per_epoch: int, rates: np.ndarray, do_log: int
) -> tuple[float, float]:
    start, total, count = epoch * per_epoch, np.zeros(2), 0
    seeds = ((course.seed, step) for step in range(start, start + per_epoch))
    label = f"{course.name} {epoch + 1}/{course.epochs}"
    with tqdm(total=per_epoch, desc=label, unit="step", miniters=1, dynamic_ncols=True) as bar:
        for loss, accuracy, steps in trainer.train(_stream(course, epoch), seeds, rates[start:]):
            total += np.array([loss, accuracy]) * steps
            count += steps
            if count % do_log < steps or count >= per_epoch:
                loss, accuracy = total / count
                bar.set_postfix(loss=f"{loss:.4f}", accuracy=f"{accuracy:.4f}", refresh=False)
            bar.update(steps)
    return tuple((total / count).tolist())


def _stream(course: Course, epoch: int) -> Iterator[dict[str, np.ndarray]]:
    order = epoch_order(len(course.images), course.seed, epoch)
    for batch in batches(course.images, course.batch_size, order, drop_remainder=True):
        more = course.extra(batch.ids) if course.extra else {}
        yield {"images": batch.images, "labels": batch.labels, **more}


@dataclass(frozen=True)
class Evaluation:
    """Mean cross-entropy, and accuracy in [0, 1], of `count` images."""

    loss: float
    accuracy: float
    count: int


def evaluate(forward: Callable, images: Images, batch_size: int) -> Evaluation:
    """Runs a forward function from `make_forward` over a split."""
    return score_logits(forward(images.images, batch_size), images.labels)


def score_logits(logits: np.ndarray, labels: np.ndarray) -> Evaluation:
    """Loss and accuracy of logits (n, classes) against labels (n,)."""
    loss = float(tf.reduce_mean(cross_entropy(labels, logits)))
    return Evaluation(loss, float(np.mean(logits.argmax(1) == labels)), len(labels))
