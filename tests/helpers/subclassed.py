"""Models as users write them: classes of `keras.Model` and `keras.layers.Layer`, each with its own `call`."""

import keras
import tensorflow as tf
from keras import ops

L = keras.layers


class Residual(L.Layer):
    """x + two convolutions of it, with BatchNorm that `training` reaches."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.inner, self.outer = L.Conv2D(2 * width, 3, padding="same"), L.Conv2D(width, 1)
        self.norm = L.BatchNormalization()

    def call(self, x, training=None):
        return ops.relu(x + self.outer(ops.relu(self.norm(self.inner(x), training=training))))


class ResNet(keras.Model):
    """A loop over a list of blocks, one of which is called twice."""

    def __init__(self):
        super().__init__(name="res_net")
        self.stem, self.head = L.Conv2D(8, 3), L.Dense(3)
        self.blocks = [Residual(8)]

    def call(self, x, training=None):
        x = self.stem(x)
        for block in self.blocks * 2:
            x = block(x, training=training)
        return self.head(ops.mean(x, axis=(1, 2)))


class UNet(keras.Model):
    """Skips over a Sequential, joined along the channels."""

    def __init__(self):
        super().__init__(name="u_net")
        self.down = keras.Sequential([L.Conv2D(8, 3, padding="same"), L.BatchNormalization(), L.ReLU()])
        self.pool, self.bottom = L.MaxPooling2D(), L.Conv2D(12, 3, padding="same", activation="relu")
        self.up, self.pixels = L.Conv2DTranspose(6, 2, strides=2), L.Conv2D(2, 1)

    def call(self, x):
        skip = self.down(x)
        return self.pixels(ops.concatenate([self.up(self.bottom(self.pool(skip))), skip], axis=-1))


class Towers(keras.Model):
    """Two inputs in a dictionary, one tower for both."""

    def __init__(self):
        super().__init__(name="towers")
        self.tower = keras.Sequential([L.Conv2D(8, 3, activation="relu"), L.GlobalAveragePooling2D()])
        self.hidden, self.same = L.Dense(6, activation="relu"), L.Dense(1)

    def call(self, inputs):
        left, right = self.tower(inputs["left"]), self.tower(inputs["right"])
        return {"same": self.same(self.hidden(ops.concatenate([left, right, left * right], axis=-1)))}


class Scaled(L.Layer):
    """Weights of its own: a number for each channel, for all of them, and for each position."""

    def build(self, shape):
        self.gamma = self.add_weight(shape=(shape[-1],), initializer="random_normal")
        self.shift = self.add_weight(shape=(1, 1, 1, shape[-1]), initializer="random_normal")
        self.gain = self.add_weight(shape=(), initializer="ones")
        self.place = self.add_weight(shape=(*shape[1:3], 1), initializer="random_normal")

    def call(self, x):
        return ops.gelu(self.gain * (self.gamma * x + self.shift)) - ops.tanh(self.place)


class Standardised(L.Layer):
    """A convolution whose filters have mean 0 and variance 1."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width

    def build(self, shape):
        self.kernel = self.add_weight(shape=(3, 3, shape[-1], self.width), initializer="random_normal")
        self.bias = self.add_weight(shape=(self.width,), initializer="random_normal")

    def call(self, x):
        mean, variance = ops.moments(self.kernel, axes=(0, 1, 2), keepdims=True)
        return ops.conv(x, (self.kernel - mean) * ops.rsqrt(variance + 1e-5), padding="same") + self.bias


class Weights(keras.Model):
    """Operations with weights between convolutions."""

    def __init__(self):
        super().__init__(name="weights")
        self.stem, self.scaled, self.conv = L.Conv2D(8, 3), Scaled(), Standardised(10)
        self.head = L.Dense(3)

    def build(self, shape):
        self.mix = self.add_weight(shape=(10, 7), initializer="random_normal", name="mix")

    def call(self, x):
        x = ops.relu(self.conv(self.scaled(self.stem(x))))
        return self.head(ops.relu(ops.matmul(ops.mean(x, (1, 2)), self.mix)))


class Folded(keras.Model):
    """Sizes from `ops.shape`, the batch too; Python that branches on sizes, not on values."""

    def __init__(self):
        super().__init__(name="folded")
        self.conv, self.hidden, self.head = L.Conv2D(8, 3), L.Dense(6), L.Dense(3)

    def call(self, x):
        n, h, w, c = ops.shape(x := self.conv(x))
        x = ops.reshape(x, (n, h * w, c)) if h > 2 else x
        return self.head(ops.max(ops.silu(self.hidden(x)), axis=1))


class Detector(keras.Model):
    """Blocks in lists of lists, a pyramid of maps, one head for all its levels, outputs in a dictionary."""

    def __init__(self):
        super().__init__(name="detector")
        self.stages = [[L.Conv2D(8, 3, 2, padding="same"), Residual(8)], [L.Conv2D(12, 3, 2, padding="same")]]
        self.lateral = {"fine": L.Conv2D(6, 1), "coarse": L.Conv2D(6, 1)}
        self.shared = keras.Sequential([L.Conv2D(6, 3, padding="same"), L.ReLU()])
        self.boxes, self.classes = L.Conv2D(4, 1), L.Conv2D(3, 1, activation="sigmoid")

    def call(self, x, training=None):
        maps = []
        for blocks in self.stages:
            for block in blocks:
                x = block(x)
            maps.append(x)
        fine, coarse = self.lateral["fine"](maps[0]), self.lateral["coarse"](maps[1])
        fine = fine + ops.repeat(ops.repeat(coarse, 2, axis=1), 2, axis=2)
        found = [self.shared(level) for level in (fine, coarse)]
        boxes, classes = (
            ops.concatenate([ops.reshape(head(x), (ops.shape(x)[0], -1, n)) for x in found], axis=1)
            for head, n in ((self.boxes, 4), (self.classes, 3))
        )
        return {"boxes": ops.exp(boxes), "classes": classes}


class Mixer(keras.Model):
    """Dense layers over tokens and over channels in turn."""

    def __init__(self):
        super().__init__(name="mixer")
        self.patches, self.head = L.Conv2D(10, 2, 2), L.Dense(3)
        self.norms = [L.LayerNormalization() for _ in range(2)]
        self.tokens, self.channels = [L.Dense(5), L.Dense(16)], [L.Dense(20), L.Dense(10)]

    def call(self, x):
        x = ops.reshape(self.patches(x), (-1, 16, 10))
        y = ops.transpose(self.norms[0](x), (0, 2, 1))
        x = x + ops.transpose(self.tokens[1](ops.gelu(self.tokens[0](y))), (0, 2, 1))
        x = x + self.channels[1](ops.gelu(self.channels[0](self.norms[1](x))))
        return self.head(ops.mean(x, axis=1))


class Counting(keras.Model):
    """Keeps state: how often it was called."""

    def __init__(self):
        super().__init__(name="counting")
        self.head = L.Dense(3)

    def build(self, shape):
        self.calls = self.add_weight(shape=(), trainable=False, name="calls")

    def call(self, x):
        self.calls.assign(self.calls + 1)
        return self.head(L.Flatten()(x))


class Tensorflow(keras.Model):
    """A function of TensorFlow."""

    def __init__(self):
        super().__init__(name="tensorflow")
        self.head = L.Dense(3)

    def call(self, x):
        return self.head(tf.reduce_mean(x, [1, 2]))


class Deciding(keras.Model):
    """Python that looks at values."""

    def __init__(self):
        super().__init__(name="deciding")
        self.head = L.Dense(3)

    def call(self, x):
        return self.head(ops.mean(x, (1, 2))) if ops.mean(x) > 0 else x


class Drawing(keras.Model):
    """Random numbers in training, without a layer for them."""

    def __init__(self):
        super().__init__(name="drawing")
        self.head = L.Dense(3)

    def call(self, x, training=None):
        x = self.head(ops.mean(x, (1, 2)))
        return 2 * x if training else x


SHAPE = (8, 8, 3)
UNFOLDED = {
    ResNet: SHAPE, UNet: SHAPE, Towers: {"left": SHAPE, "right": SHAPE}, Weights: SHAPE, Folded: SHAPE,
    Detector: SHAPE, Mixer: SHAPE,
}  # fmt: skip
REFUSED = {
    Counting: "assign",
    Tensorflow: "symbolic",
    Deciding: "symbolic",
    Drawing: "something else in training",
}
