"""Layers that can be pruned without retracing: every mask is a variable, not a shape.

They are fresh `keras.Layer` classes because a subclass of `keras.layers.Conv2D` with one more weight does
not load again from a `.keras` file.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

BATCH_NORM_EPSILON = 1e-5  # the value of every published checkpoint; Keras' own default is 1e-3
BATCH_NORM_MOMENTUM = 0.9


def output_side(side: int | None, kernel_size: int, strides: int, padding: str) -> int | None:
    """Height or width of what a convolution makes of `side` pixels; None where that is open."""
    if side is None:
        return None
    return -(-side // strides) if padding == "same" else (side - kernel_size) // strides + 1


class Masked(keras.Layer):
    """A layer whose last axis has a mask."""

    MASKED: tuple[str, ...] = ("kernel", "bias", "gamma", "beta")

    def folded(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Its weights, by name, as they act: switched-off channels are zero."""
        mask = arrays["mask"]
        return {name: a * mask if name in self.MASKED else a for name, a in arrays.items()}

    def add_mask(self, size: int) -> keras.Variable:
        """A vector of ones that the optimizer never sees."""
        return self.add_weight(shape=(size,), initializer="ones", trainable=False, name="mask")


@keras.saving.register_keras_serializable("secateur")
class MaskedConv2D(Masked):
    """2-D convolution, channels last, whose output channels can be switched off.

    Weights: `kernel` (h, w, in, filters), optionally `bias` (filters,), and `mask` (filters,) of zeros and
    ones. The mask multiplies kernel and bias, never the activations: a multiplication of 36 thousand weights
    is free, one of 4 million activations is not.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int = 3,
        strides: int = 1,
        padding: str = "same",
        use_bias: bool = False,
        kernel_initializer: str | keras.Initializer = "he_normal",
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.filters, self.kernel_size, self.strides = filters, kernel_size, strides
        self.padding, self.use_bias = padding, use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape) -> None:
        shape = (self.kernel_size, self.kernel_size, input_shape[-1], self.filters)
        self.kernel = self.add_weight(shape=shape, initializer=self.kernel_initializer, name="kernel")
        self.bias = self._bias() if self.use_bias else None
        self.mask = self.add_mask(self.filters)

    def _bias(self) -> keras.Variable:
        return self.add_weight(shape=(self.filters,), initializer="zeros", name="bias")

    def call(self, inputs):
        kernel = self.kernel * self.mask
        outputs = tf.nn.conv2d(inputs, kernel, self.strides, self.padding.upper())
        return outputs if self.bias is None else outputs + self.bias * self.mask

    def compute_output_shape(self, input_shape):
        height, width = (
            output_side(n, self.kernel_size, self.strides, self.padding) for n in input_shape[1:3]
        )
        return (input_shape[0], height, width, self.filters)

    def get_config(self) -> dict:
        names = ("filters", "kernel_size", "strides", "padding", "use_bias")
        own = {name: getattr(self, name) for name in names}
        own["kernel_initializer"] = keras.initializers.serialize(self.kernel_initializer)
        return super().get_config() | own


@keras.saving.register_keras_serializable("secateur")
class MaskedDepthwiseConv2D(Masked):
    """2-D convolution of each channel by itself, channels last; channels can be switched off.

    Weights: `kernel` (h, w, channels, 1) as Keras' own has it, and `mask` (channels,) of zeros and ones.
    """

    depth_multiplier, use_bias = 1, False  # what pruning asks of every depthwise convolution

    def __init__(
        self,
        kernel_size: int = 3,
        strides: int = 1,
        padding: str = "same",
        kernel_initializer: str | keras.Initializer = "he_normal",
        **kwargs,
    ) -> None:
        super().__init__(**kwargs)
        self.kernel_size, self.strides, self.padding = kernel_size, strides, padding
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape) -> None:
        shape = (self.kernel_size, self.kernel_size, input_shape[-1], 1)
        self.kernel = self.add_weight(shape=shape, initializer=self.kernel_initializer, name="kernel")
        self.mask = self.add_mask(input_shape[-1])

    def call(self, inputs):
        kernel, strides = self.kernel * self.mask[:, None], [1, self.strides, self.strides, 1]
        return tf.nn.depthwise_conv2d(inputs, kernel, strides, self.padding.upper())

    def folded(self, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """As that of `Masked`: here the channels are the kernel's third axis."""
        return arrays | {"kernel": arrays["kernel"] * arrays["mask"][:, None]}

    def compute_output_shape(self, input_shape):
        height, width = (
            output_side(n, self.kernel_size, self.strides, self.padding) for n in input_shape[1:3]
        )
        return (input_shape[0], height, width, input_shape[-1])

    def get_config(self) -> dict:
        own = {name: getattr(self, name) for name in ("kernel_size", "strides", "padding")}
        own["kernel_initializer"] = keras.initializers.serialize(self.kernel_initializer)
        return super().get_config() | own


@keras.saving.register_keras_serializable("secateur")
class MaskedDense(Masked):
    """Fully connected layer whose outputs can be switched off.

    Weights: `kernel` (in, units), `bias` (units,), `mask` (units,) of zeros and ones.
    """

    def __init__(
        self, units: int, kernel_initializer: str | keras.Initializer = "glorot_uniform", **kwargs
    ) -> None:
        super().__init__(**kwargs)
        self.units = units
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape) -> None:
        shape = (input_shape[-1], self.units)
        self.kernel = self.add_weight(shape=shape, initializer=self.kernel_initializer, name="kernel")
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="bias")
        self.mask = self.add_mask(self.units)

    def call(self, inputs):
        return tf.matmul(inputs, self.kernel * self.mask) + self.bias * self.mask

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict:
        initializer = keras.initializers.serialize(self.kernel_initializer)
        return super().get_config() | {"units": self.units, "kernel_initializer": initializer}


@keras.saving.register_keras_serializable("secateur")
class FusedBatchNorm(Masked):
    """Batch normalisation over the last axis on TensorFlow's fused kernel.

    Keras' own costs a third of a step. Weights: `gamma`, `beta`, `moving_mean`, `moving_variance` and `mask`,
    all (channels,). A masked channel is exactly zero, which needs beta masked as well as gamma. Inputs are
    (b, h, w, channels) or (b, channels). `synchronized`, as of Keras' own, takes the statistics of a batch
    over all replicas; it belongs to a training and not to the layer's config.
    """

    synchronized = False

    def __init__(
        self,
        momentum: float = BATCH_NORM_MOMENTUM,
        epsilon: float = BATCH_NORM_EPSILON,
        gamma_initializer: str | keras.Initializer = "ones",
        **kwargs,
    ) -> None:
        super().__init__(autocast=False, **kwargs)  # weights are float32, whatever the maps are
        self.momentum, self.epsilon = momentum, epsilon
        self.gamma_initializer = keras.initializers.get(gamma_initializer)

    def build(self, input_shape) -> None:
        size = input_shape[-1]
        self.gamma = self.add_weight(shape=(size,), initializer=self.gamma_initializer, name="gamma")
        self.beta = self.add_weight(shape=(size,), initializer="zeros", name="beta")
        average = {"shape": (size,), "trainable": False, "aggregation": "mean"}  # of what replicas see
        self.moving_mean = self.add_weight(initializer="zeros", name="moving_mean", **average)
        self.moving_variance = self.add_weight(initializer="ones", name="moving_variance", **average)
        self.mask = self.add_mask(size)

    def call(self, inputs, training: bool | None = None):  # Keras writes another default into files
        if len(inputs.shape) == 4:
            return self._normalised(inputs, training)
        return self._normalised(inputs[:, None, None], training)[:, 0, 0]  # the fused kernel takes maps

    def _normalised(self, inputs, training: bool | None):
        gamma, beta = self.gamma * self.mask, self.beta * self.mask
        if not training:
            outputs, *_ = tf.compat.v1.nn.fused_batch_norm(
                inputs,
                gamma,
                beta,
                mean=tf.convert_to_tensor(self.moving_mean),
                variance=tf.convert_to_tensor(self.moving_variance),
                epsilon=self.epsilon,
                is_training=False,
            )
            return outputs
        context = tf.distribute.get_replica_context()
        if self.synchronized and context and context.num_replicas_in_sync > 1:
            outputs, mean, variance = _over_replicas(context, inputs, gamma, beta, self.epsilon)
        else:
            outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
                inputs, gamma, beta, epsilon=self.epsilon, is_training=True
            )
        self._update(self.moving_mean, mean)
        self._update(self.moving_variance, variance)
        return outputs

    def _update(self, statistic: keras.Variable, batch_value) -> None:
        statistic.assign(statistic * self.momentum + batch_value * (1 - self.momentum))

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self) -> dict:
        own = {name: getattr(self, name) for name in ("momentum", "epsilon")}
        own["gamma_initializer"] = keras.initializers.serialize(self.gamma_initializer)
        return super().get_config() | own


def _over_replicas(
    context: tf.distribute.ReplicaContext,
    inputs: tf.Tensor,
    gamma: tf.Tensor,
    beta: tf.Tensor,
    epsilon: float,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The fused kernel's outputs, mean and unbiased variance, of (b, h, w, channels) on all replicas."""
    x = tf.cast(inputs, tf.float32)

    def mean(y: tf.Tensor) -> tf.Tensor:
        return context.all_reduce(tf.distribute.ReduceOp.MEAN, tf.reduce_mean(y, (0, 1, 2)))

    average = mean(x)
    variance = mean(tf.square(x - average))
    count = context.num_replicas_in_sync * tf.cast(tf.reduce_prod(tf.shape(x)[:3]), tf.float32)
    outputs = (x - average) * (tf.math.rsqrt(variance + epsilon) * gamma) + beta
    return tf.cast(outputs, inputs.dtype), average, variance * count / tf.maximum(count - 1, 1)


def normalised(
    x: tf.Tensor, alive: tf.Tensor, kind: str, axes: list[int], epsilon: float, gamma=None, beta=None,
    channels: int | None = None,
) -> tf.Tensor:  # fmt: skip
    """What a normalisation makes whose statistics are those of living channels.

    Args:
        x: (b, …).
        alive: (channels,) ones and zeros, not all of them zeros.
        kind: "layer", "rms" or "unit", see `MaskedNormalization`.
        axes: normalised together, from 0, in rising order.
        epsilon: added to the variance or the mean square; for "unit" the smallest norm.
        gamma, beta: (channels,), or of the sizes of all axes; zero where a channel is switched off.
        channels: their axis; None is the last of `axes`.
    """
    channels = axes[-1] if channels is None else channels
    others = [axis for axis in axes if axis != channels]

    def spread(v: tf.Tensor) -> tf.Tensor:
        """As float32, along its axes of `x`."""
        own = axes if v.shape.rank == len(axes) else [channels]
        shape = [tf.shape(x)[axis] if axis in own else 1 for axis in range(x.shape.rank)]
        return tf.reshape(tf.cast(v, tf.float32), shape)

    def total(y: tf.Tensor) -> tf.Tensor:
        y = tf.reduce_mean(y, others, keepdims=True) if others else y
        return tf.reduce_sum(y * living, channels, keepdims=True)

    x, living = tf.cast(x, tf.float32), spread(alive)
    if kind == "unit":
        return x * living * tf.minimum(tf.math.rsqrt(total(x * x)), 1 / epsilon)
    count = tf.reduce_sum(living)
    centred = x - total(x) / count if kind == "layer" else x
    y = centred * tf.math.rsqrt(total(centred * centred) / count + epsilon)
    y = y * living if gamma is None else y * spread(gamma)
    return y if beta is None else y + spread(beta)


@keras.saving.register_keras_serializable("secateur")
class MaskedNormalization(Masked):
    """Normalisation over channels of which some are switched off: these count in no statistic.

    It does what Keras' own does over the channels that are left. Zeros alone would not: they pull the mean
    and the variance of each position down. Weights: `gamma` and `beta` of the normalised axes ("scale" is the
    one of "rms"), and `mask` (channels,) of zeros and ones.

    Args:
        kind: "layer" (mean and variance), "rms" (mean square), "unit" (norm 1, no weights), "group" (as
            "layer", over all positions, with one gamma and beta a channel: GroupNormalization of one group).
        axis: axis or axes that are normalised together, of which the last one has the channels; of a "group"
            the axis of its channels.
        epsilon: added to the variance or mean square.
        scale, center: whether it has gamma, and beta.
    """

    MASKED = ("gamma", "beta", "scale")

    def __init__(
        self,
        kind: str = "layer",
        axis: int | list[int] = -1,
        epsilon: float = 1e-3,
        scale: bool = True,
        center: bool = True,
        **kwargs,
    ) -> None:
        super().__init__(autocast=False, **kwargs)
        self.kind, self.axis, self.epsilon, self.scale, self.center = kind, axis, epsilon, scale, center
        self.supports_masking = True

    def build(self, input_shape) -> None:
        rank = len(input_shape)
        given = sorted(a % rank for a in ([self.axis] if isinstance(self.axis, int) else self.axis))
        self.axes, self.channels = list(range(1, rank)) if self.kind == "group" else given, given[-1]
        shape = [input_shape[a] for a in given]
        name = "scale" if self.kind == "rms" else "gamma"
        self.gamma = self.add_weight(shape=shape, initializer="ones", name=name) if self.scale else None
        self.beta = self.add_weight(shape=shape, initializer="zeros", name="beta") if self.center else None
        self.mask = self.add_mask(input_shape[self.channels])

    def call(self, inputs):
        gamma, beta = (v if v is None else v * self.mask for v in (self.gamma, self.beta))
        kind = "layer" if self.kind == "group" else self.kind
        made = normalised(inputs, self.mask, kind, self.axes, self.epsilon, gamma, beta, self.channels)
        return tf.cast(made, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self) -> dict:
        names = ("kind", "axis", "epsilon", "scale", "center")
        return super().get_config() | {name: getattr(self, name) for name in names}
