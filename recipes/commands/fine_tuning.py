"""What gives a pruned model its accuracy back: averages of BN, and some epochs of training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import keras
import numpy as np
import tensorflow as tf

from secateur.nets.graph import trace
from secateur.op_utils import reestimate_batch_norm
from secateur.pruning import compact
from secateur.pruning.groups.analysis import analyse
from secateur.pruning.score.batches import parts
from secateur.pruning.score.classifier import accuracy as share_right
from secateur.pruning.score.classifier import cross_entropy
from secateur.recipes.commands.images import Batches, ImageData, Scaled
from secateur.recipes.commands.prune_options import AUGMENTATIONS
from secateur.runs.errors import TrainingError, warn

MENDING = 2560  # images that the averages of BN are taken over: enough for averages, and seconds


class TrainingOptions(Protocol):
    """Fields of `PruneOptions` that training reads."""

    seed: int
    finetune_epochs: int
    batch_size: int
    learning_rate: float
    optimizer: str
    augment: str


Through = Callable[[keras.Model], keras.Model]


def same(model: keras.Model) -> keras.Model:
    """The model itself."""
    return model


def accuracy(model: keras.Model, data: ImageData, batch_size: int, like: keras.Model | None = None) -> float:
    """Share of the holdout, in [0, 1], that a classifier gets right, `batch_size` images at a time.

    `like` is a model whose graph says what the outputs mean, where that of `model` does not.
    """
    images, labels = data.holdout
    return share_right(trace(like or model), labels, forward_of(model)(images, batch_size))


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


def mend_statistics(model: keras.Model, data: ImageData, batch_size: int) -> bool:
    """Averages of BN from training images, in place: those of the wide network do not fit the narrow one.

    Returns whether the model has any.
    """
    images, _ = data.some(MENDING, seed=0)
    if has_bn := any(hasattr(layer, "moving_mean") for layer in model.layers):
        reestimate_batch_norm(model, images.scale, images.pixels, min(batch_size, len(images)))
    return has_bn


def fine_tune(model: keras.Model, data: ImageData, options: TrainingOptions, through: Through = same) -> None:
    """Trains in place on the training images and prints a line for each epoch.

    Args:
        through: what is trained instead of the model, on its weights: the model with rounded numbers.

    SGD with Nesterov momentum 0.9, or Adam, cross-entropy, the rate along half a cosine to 0; images are
    augmented as `AUGMENTATIONS` says. Raises `TrainingError` when the loss is not finite.
    """
    own = compact(model)  # so that no optimizer is saved with the model
    analysis, trained = analyse(own), through(own)
    keras.utils.set_random_seed(options.seed)
    steps = max(1, options.finetune_epochs * -(-len(data.train[1]) // options.batch_size))
    rate = keras.optimizers.schedules.CosineDecay(options.learning_rate, steps)
    optimizer = {
        "sgd": lambda: keras.optimizers.SGD(rate, momentum=0.9, nesterov=True),
        "adam": lambda: keras.optimizers.Adam(rate),
    }[options.optimizer]()
    trained.compile(optimizer, loss=lambda labels, found: cross_entropy(analysis, labels, found))
    flip, crop = AUGMENTATIONS[options.augment]
    for epoch in range(options.finetune_epochs):
        batches = Batches(*data.train, options.batch_size, epoch, flip=flip, crop=crop, seed=options.seed)
        history = trained.fit(batches, shuffle=False, verbose=0)
        loss = history.history["loss"][-1]
        if not np.isfinite(loss):
            raise TrainingError(
                f"The loss of fine-tuning is not finite; no model was written. Received: learning_rate="
                f"{options.learning_rate:g}\ngive a smaller --learning_rate"
            )
        right = accuracy(trained, data, options.batch_size, like=own)
        print(f"epoch {epoch + 1}/{options.finetune_epochs}: loss {loss:.4f}, holdout {100 * right:.2f} %")
    model.set_weights(own.get_weights())
