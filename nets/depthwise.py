"""The depthwise convolution that can be pruned without retracing."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from secateur.nets.layers import Masked, output_side


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
