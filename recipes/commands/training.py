"""Accuracy of a model of one's own, and what brings it back: averages of BN, epochs of training."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

from secateur.dataloader import Images, batches, epoch_order
from secateur.dataloader.augment import augment
from secateur.nets.task import Task
from secateur.op_utils import Batch, Preprocess, Trainer, reestimate_batch_norm
from secateur.pruning import compact
from secateur.pruning.score.batches import parts
from secateur.recipes.commands.images import ImageData, Scaled
from secateur.recipes.commands.options import AUGMENTATIONS, TuningOptions
from secateur.recipes.training.schedules import cosine
from secateur.runs.errors import TrainingError, warn

REESTIMATED = 2560  # images that the averages of BN are taken over: enough for averages, and seconds
SHIFT = 8  # images are shifted by up to this part of their smaller side
OPTIMIZERS = {"sgd": "nesterov", "adam": "adam"}


def accuracy(model: keras.Model, data: ImageData, batch_size: int) -> float:
    """Share of the holdout, in [0, 1], that a classifier gets right, `batch_size` images at a time."""
    images, labels = data.holdout
    return Task.of(model).score(labels, forward_of(model)(images, batch_size))


def warn_at_chance(right: float, classes: int) -> None:
    """Says so where a model gets about as many images right as guessing would."""
    if right < 1.5 / classes:
        warn(
            f"the model as it came gets {100 * right:.1f} % right, guessing {100 / classes:.1f} %: are "
            "--pixels and the order of the classes those of its training?"
        )


def forward_of(model: keras.Model) -> Callable[[Scaled, int], np.ndarray]:
    """f(images, number at a time) → (images, classes), traced once for each size of a batch."""
    forward = tf.function(lambda x: model(x, training=False))

    def run(images: Scaled, batch_size: int) -> np.ndarray:
        found = [forward(tf.constant(images[part])) for part in parts(len(images), batch_size)]
        return np.concatenate([keras.tree.flatten(outputs)[0].numpy() for outputs in found])

    return run


def reestimate(model: keras.Model, data: ImageData, batch_size: int) -> bool:
    """Averages of BN from training images, in place: those of the wide network do not fit the narrow one.

    Returns whether the model has any.
    """
    images, _ = data.some(REESTIMATED, seed=0)
    if has_bn := any(hasattr(layer, "moving_mean") for layer in model.layers):
        reestimate_batch_norm(model, images.scale, images.pixels, min(batch_size, len(images)))
    return has_bn


def fine_tune(
    model: keras.Model,
    data: ImageData,
    options: TuningOptions,
    through: Callable[[keras.Model], keras.Model] = lambda model: model,
) -> None:
    """Trains in place on the training images and prints a line for each epoch.

    Args:
        through: what is trained instead of the model, on its weights: the model with rounded numbers.

    SGD with Nesterov momentum 0.9, or Adam, cross-entropy, the rate along half a cosine to 0; images are
    augmented as `AUGMENTATIONS` says. Raises `TrainingError` when the loss is not finite.
    """
    keras.utils.set_random_seed(options.seed)
    own = compact(model)  # whose variables no optimizer is saved with
    task, trained = Task.of(own), through(own)
    (images, labels), (held, answers) = data.train, data.holdout
    whole, forward = Images(images.pixels, labels, np.arange(len(labels))), forward_of(trained)
    steps, epochs = -(-len(labels) // options.batch_size), options.finetune_epochs

    def objective(outputs: tf.Tensor, batch: Batch) -> tuple[tf.Tensor, tf.Tensor]:
        return task.loss(batch["labels"], outputs), tf.constant(0.0)

    rule = OPTIMIZERS[options.optimizer]
    trainer = Trainer(trained, augmented(images, options.augment), objective, optimizer=rule, compile_=False)
    rates = cosine(options.learning_rate, max(1, steps * epochs))
    for epoch in range(epochs):
        order = epoch_order(len(labels), options.seed, epoch)
        seeds = ((options.seed, step) for step in range(epoch * steps, (epoch + 1) * steps))
        stream = (
            {"images": batch.images, "labels": batch.labels}
            for batch in batches(whole, options.batch_size, order)
        )
        loss = _epoch(trainer, stream, seeds, rates[epoch * steps :])
        right = task.score(answers, forward(held, options.batch_size))
        print(f"epoch {epoch + 1}/{epochs}: loss {loss:.4f}, holdout {100 * right:.2f} %")
    model.set_weights(own.get_weights())


def _epoch(
    trainer: Trainer, stream: Iterator[dict], seeds: Iterator[tuple[int, int]], rates: np.ndarray
) -> float:
    """Runs an epoch; its mean loss."""
    try:
        done = [(loss, steps) for loss, *_, steps in trainer.train(stream, seeds, rates)]
        trainer.state()  # raises where the last step has made weights that are not finite
    except TrainingError as error:
        raise TrainingError(f"{error}; no model was written\ngive a smaller --learning_rate") from error
    losses, steps = zip(*done, strict=True)
    return float(np.average(losses, weights=steps))


def augmented(images: Scaled, name: str) -> Preprocess:
    """Bytes → what the model reads, mirrored and shifted as an entry of `AUGMENTATIONS` says."""
    flip, crop = AUGMENTATIONS[name]
    pad = min(images.shape[1:3]) // SHIFT if crop else 0

    def preprocess(batch: Batch, seed: tf.Tensor) -> tf.Tensor:
        pixels = augment(batch["images"], seed, pad=pad, flip=flip) if flip or pad else batch["images"]
        return images.scale(pixels)

    return preprocess
