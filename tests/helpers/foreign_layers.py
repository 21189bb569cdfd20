"""A file as a user writes it: layers that the project does not know, each taught in one call."""

import keras
from keras import ops

import secateur


class Gain(keras.layers.Layer):
    """tanh, times a number for each channel."""

    def build(self, shape):
        self.gain = self.add_weight(shape=(shape[-1],), initializer="ones", name="gain")

    def call(self, x):
        return ops.tanh(x) * self.gain


class Turned(keras.layers.Layer):
    """A convolution whose filters (width, 3, 3, channels) come first."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width

    def build(self, shape):
        self.filters = self.add_weight(shape=(self.width, 3, 3, shape[-1]), name="filters")
        self.shift = self.add_weight(shape=(self.width,), initializer="zeros", name="shift")

    def call(self, x):
        return ops.conv(x, ops.transpose(self.filters, (1, 2, 3, 0)), padding="same") + self.shift

    def compute_output_shape(self, shape):
        return (*shape[:-1], self.width)

    def get_config(self):
        return super().get_config() | {"width": self.width}


class Mixer(keras.layers.Layer):
    """Channels by a matrix over all of them."""

    def build(self, shape):
        self.matrix = self.add_weight(shape=(shape[-1], shape[-1]), name="matrix")

    def call(self, x):
        return ops.matmul(x, self.matrix)


class Bounded(keras.layers.Layer):
    """ReLU up to 6."""

    def call(self, x):
        return ops.clip(x, 0, 6)


secateur.register_layer(Gain, follows={"gain": 0}, activation=True)
secateur.register_layer(Turned, reads={"filters": -1}, makes={"filters": 0, "shift": 0}, size="width")
secateur.register_layer(Mixer, stays="it mixes channels")
secateur.register_layer(
    Bounded, activation=True, plain=lambda layer: (keras.layers.ReLU, {"name": layer.name, "max_value": 6.0})
)


def net() -> keras.Model:
    """Two convolutions of its own with what lies between, then a layer around which all stays."""
    images = keras.Input((8, 8, 3))
    x = Gain(name="gain")(Turned(6, name="first")(images))
    x = Bounded(name="bounded")(Turned(8, name="second")(x))
    x = Mixer(name="mixer")(keras.layers.Conv2D(4, 1, name="whole")(x))
    return keras.Model(images, keras.layers.Dense(3, name="classes")(keras.layers.GlobalMaxPooling2D()(x)))
