"""Vision transformers as zoos write them: tokens, windows, dropped paths and norms of their own."""

import keras
import numpy as np
import tensorflow as tf
from keras import ops

L = keras.layers
WIDTH, HEADS, SIDE, RATE = 8, 2, 4, 0.25


def fast_gelu(x):
    """A function that Keras does not know."""
    return x * ops.sigmoid(1.7 * x)


class Embedded(L.Layer):
    """Two tokens in front of all patches, and an embedding of all positions."""

    def build(self, shape):
        self.first, self.second = (self.add_weight((1, 1, WIDTH), "random_normal") for _ in range(2))
        self.places = L.Embedding(shape[1] + 2, WIDTH)
        self.numbers = np.arange(shape[1] + 2)[None]
        self.places.build(self.numbers.shape)

    def call(self, x):
        n = ops.shape(x)[0]
        tokens = ops.tile(self.first, (n, 1, 1)), ops.broadcast_to(self.second, (n, 1, WIDTH))
        return ops.concatenate([*tokens, x], axis=1) + self.places(self.numbers)


class Rows(L.Layer):
    """Needs to know the size of the image."""

    def call(self, x):
        return ops.max(ops.reshape(x, (-1, int(x.shape[1]) * x.shape[2], x.shape[3])), axis=1)

    def compute_output_shape(self, shape):
        return shape[0], shape[-1]


class Parts(L.Layer):
    """Its configuration does not say how many parts it has."""

    def __init__(self, parts=2, **kwargs):
        super().__init__(**kwargs)
        self.parts = parts

    def build(self, shape):
        self.gains = [self.add_weight((), "ones", name=f"gain{i}") for i in range(self.parts)]

    def call(self, x):
        return tf.identity(x) * sum(self.gains)

    def get_config(self):
        return super().get_config()


class DropPath(L.Layer):
    """Python on `training`."""

    def __init__(self, rate=RATE, **kwargs):
        super().__init__(**kwargs)
        self.rate, self.seed = rate, keras.random.SeedGenerator(0)

    def call(self, x, training=None):
        if not training:
            return x
        drawn = keras.random.uniform((ops.shape(x)[0], *[1] * (len(x.shape) - 1)), seed=self.seed)
        return x / (1 - self.rate) * ops.cast(drawn > self.rate, x.dtype)


class OwnNorm(L.Layer):
    """RMSNorm of operations."""

    def build(self, shape):
        self.gain = self.add_weight((shape[-1],), "ones")

    def call(self, x):
        return x * ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + 1e-6) * self.gain


class Block(L.Layer):
    """Returns None beside its output."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.norms = [OwnNorm() for _ in range(2)]
        self.attend, self.drop = L.MultiHeadAttention(HEADS, 4), DropPath()
        self.up, self.down = L.Dense(16, activation=fast_gelu), L.Dense(WIDTH)

    def build(self, shape):
        for layer in (*self.norms, self.up):
            layer.build(shape)
        self.attend.build(shape, shape)
        self.down.build((*shape[:-1], 16))

    def call(self, x, training=None, scores=False):
        y = self.norms[0](x)
        x = x + self.drop(self.attend(y, y), training=training)
        x = x + self.drop(self.down(self.up(self.norms[1](x))), training=training)
        return x, None


class Blocks(L.Layer):
    """Returns an empty tensor beside its output."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.blocks = [Block() for _ in range(2)]

    def build(self, shape):
        for block in self.blocks:
            block.build(shape)

    def call(self, x, training=None):
        for block in self.blocks:
            x, _ = block(x, training=training)
        return x, ops.zeros((0, WIDTH))


class Tokens(keras.Model):
    """ViT."""

    def __init__(self):
        super().__init__(name="tokens")
        self.patches, self.embedded = L.Conv2D(WIDTH, 2, 2), Embedded()
        self.blocks, self.head = Blocks(), L.Dense(3)

    def call(self, x, training=None):
        n, h, w, c = ops.shape(x := self.patches(x))
        x, _ = self.blocks(self.embedded(ops.reshape(x, (n, h * w, c))), training=training)
        return self.head(x[:, 0])


class WindowAttention(L.Layer):
    """Queries, keys and values in front of the windows; a bias that is gathered from a table."""

    def build(self, shape):
        n = shape[1]
        self.table = self.add_weight((2 * n - 1, HEADS), "random_normal")
        self.offsets = np.arange(n)[:, None] - np.arange(n)[None] + n - 1
        self.qkv, self.projection = L.Dense(3 * WIDTH), L.Dense(WIDTH)
        self.qkv.build(shape)
        self.projection.build(shape)

    def call(self, x, allowed=None):
        b, n, c = ops.shape(x)
        qkv = ops.transpose(ops.reshape(self.qkv(x), (b, n, 3, HEADS, c // HEADS)), (2, 0, 3, 1, 4))
        scores = ops.matmul(qkv[0] * 0.5, ops.transpose(qkv[1], (0, 1, 3, 2)))
        scores = scores + ops.transpose(ops.take(self.table, self.offsets, axis=0), (2, 0, 1))
        if allowed is not None:
            windows = ops.shape(allowed)[0]
            scores = ops.reshape(scores, (b // windows, windows, HEADS, n, n)) + allowed[None, :, None]
            scores = ops.reshape(scores, (-1, HEADS, n, n))
        x = ops.transpose(ops.matmul(ops.softmax(scores), qkv[2]), (0, 2, 1, 3))
        return self.projection(ops.reshape(x, (b, n, c)))


class Windows(keras.Model):
    """Swin: attention in windows, shifted by half of one."""

    def __init__(self):
        super().__init__(name="windows")
        self.stem, self.attend, self.head = L.Conv2D(WIDTH, 1), WindowAttention(), L.Dense(3)
        mask = np.zeros((4, SIDE * SIDE, SIDE * SIDE), np.float32)
        mask[1:, :5, 5:] = -100
        self.mask = mask

    def call(self, x):
        b, h, w, c = ops.shape(x := self.stem(x))
        y = ops.roll(x, (-2, -2), (1, 2))
        y = ops.reshape(y, (b, h // SIDE, SIDE, w // SIDE, SIDE, c))
        y = ops.reshape(ops.transpose(y, (0, 1, 3, 2, 4, 5)), (-1, SIDE * SIDE, c))
        y = self.attend(y, ops.convert_to_tensor(self.mask))
        y = ops.reshape(y, (-1, h // SIDE, w // SIDE, SIDE, SIDE, c))
        y = ops.reshape(ops.transpose(y, (0, 1, 3, 2, 4, 5)), (b, h, w, c))
        x = x + ops.roll(y, (2, 2), (1, 2))
        return self.head(ops.mean(x, axis=(1, 2)))
