"""ResNet-56 steps in TensorFlow without our layers: over lists of variables, and in stock Keras."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import keras
import numpy as np
import tensorflow as tf

from benchmarks.common import MEAN, STD
from secateur.dataloader.augment import augment, normalise

BLOCKS, WIDTHS = 9, (16, 32, 64)
EPSILON, KEEP = 1e-5, 0.9


def crop_flip_normalise(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """What every TensorFlow competitor does to a batch of uint8 images."""
    return normalise(augment(images, seed), MEAN, STD)


class _Net:
    """Weights in the order in which the forward pass asks for them; made at the first pass."""

    def __init__(self) -> None:
        self.params: list[tf.Variable] = []
        self.stats: list[tf.Variable] = []
        self._rng = np.random.default_rng(1)

    def variable(self, shape: tuple[int, ...], scale: float) -> tf.Variable:
        """A trainable variable, normally distributed."""
        self.params.append(tf.Variable(self._rng.normal(0, scale, shape).astype(np.float32)))
        return self.params[-1]

    def conv_bn(self, size: int, n_in: int, n_out: int, strides: int) -> Callable:
        """Convolution and batch normalisation: f(x) → y; updates its moving averages."""
        kernel = self.variable((size, size, n_in, n_out), np.sqrt(2 / (size * size * n_out)))
        gamma, beta = tf.Variable(tf.ones(n_out)), tf.Variable(tf.zeros(n_out))
        mean, variance = tf.Variable(tf.zeros(n_out)), tf.Variable(tf.ones(n_out))
        self.params += [gamma, beta]
        self.stats += [mean, variance]

        def call(x):
            y = tf.nn.conv2d(x, kernel, strides, "SAME")
            y, m, v = tf.compat.v1.nn.fused_batch_norm(y, gamma, beta, epsilon=EPSILON, is_training=True)
            mean.assign(KEEP * mean + (1 - KEEP) * m)
            variance.assign(KEEP * variance + (1 - KEEP) * v)
            return y

        return call

    def block(self, n_in: int, n_out: int, strides: int) -> Callable:
        """A basic block with the 1×1 shortcut where the resolution falls."""
        first, second = self.conv_bn(3, n_in, n_out, strides), self.conv_bn(3, n_out, n_out, 1)
        shortcut = self.conv_bn(1, n_in, n_out, strides) if strides > 1 else lambda x: x
        return lambda x: tf.nn.relu(shortcut(x) + second(tf.nn.relu(first(x))))

    def resnet(self) -> Callable:
        """Images → logits."""
        stem, blocks, width = self.conv_bn(3, 3, WIDTHS[0], 1), [], WIDTHS[0]
        for stage, n_out in enumerate(WIDTHS):
            for i in range(BLOCKS):
                blocks.append(self.block(width, n_out, 2 if stage and not i else 1))
                width = n_out
        kernel, bias = self.variable((width, 10), 0.01), self.variable((10,), 0.0)

        def forward(x):
            x = tf.nn.relu(stem(x))
            for block in blocks:
                x = block(x)
            return tf.matmul(tf.reduce_mean(x, [1, 2]), kernel) + bias

        return forward


def make_step(
    batch: Mapping[str, np.ndarray], rate: float, momentum: float, decay: float
) -> Callable[[], float]:
    """f() → loss: one step written out by hand."""
    net = _Net()
    forward = net.resnet()
    velocities = [tf.Variable(tf.zeros_like(p)) for p in net.params]

    @tf.function(autograph=False)
    def step(images, labels, seed, rate):
        x = crop_flip_normalise(images, seed)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, forward(x)))
        for p, v, g in zip(net.params, velocities, tape.gradient(loss, net.params), strict=True):
            g = g + decay * p
            new = v.assign(momentum * v - rate * g)
            p.assign_add(momentum * new - rate * g)
        return loss

    return _caller(step, batch, rate)


def make_keras_step(
    batch: Mapping[str, np.ndarray], rate: float, momentum: float, decay: float
) -> Callable[[], float]:
    """f() → loss: stock Keras layers and Keras' SGD."""
    from secateur import nets
    from secateur.pruning import compact

    model = compact(nets.build("ResNet-56"))  # nothing but keras.layers
    optimizer = keras.optimizers.SGD(rate, momentum=momentum, nesterov=True)
    optimizer.build(model.trainable_variables)

    @tf.function(autograph=False)
    def step(images, labels, seed, rate):
        x = crop_flip_normalise(images, seed)
        variables = [v.value for v in model.trainable_variables]
        with tf.GradientTape() as tape:
            logits = model(x, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        grads = tape.gradient(loss, variables)
        optimizer.learning_rate.assign(rate)
        optimizer.apply(
            [g + decay * v for g, v in zip(grads, variables, strict=True)], model.trainable_variables
        )
        return loss

    return _caller(step, batch, rate)


def _caller(step: Callable, batch: Mapping[str, np.ndarray], rate: float) -> Callable[[], float]:
    numbers = iter(range(10**9))

    def call() -> float:
        images, labels = (tf.convert_to_tensor(batch[name]) for name in ("images", "labels"))
        return float(step(images, labels, tf.constant((1, next(numbers)), tf.int32), tf.constant(rate)))

    return call
