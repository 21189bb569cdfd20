"""Steps of random networks that are layers of layers, as users write them."""

import keras

from tests.helpers.random_steps import L, move, on_maps, ops
from tests.helpers.transformers import OwnNorm


class Residual(L.Layer):
    """x + two dense layers of it, behind a BatchNorm that `training` reaches."""

    def __init__(self, width, hidden):
        super().__init__()
        self.norm, self.inner, self.outer = L.BatchNormalization(), L.Dense(hidden), L.Dense(width)

    def call(self, x, training=None):
        return x + self.outer(ops.relu(self.inner(self.norm(x, training=training))))


class Weighted(L.Layer):
    """Weights for each channel, each place and all, and a matrix; functions of weights."""

    def __init__(self, n):
        super().__init__()
        self.n = n

    def build(self, shape):
        places = (*shape[1:2], *[1] * (len(shape) - 2)) if len(shape) > 2 else (shape[-1],)
        self.gamma = self.add_weight(shape=(shape[-1],), name="gamma")
        self.places = self.add_weight(shape=places, name="places")
        self.gain = self.add_weight(shape=(), name="gain")
        self.mix = self.add_weight(shape=(shape[-1], self.n + 3), name="mix")

    def call(self, x):
        y = ops.gelu(self.gain * (x * self.gamma))
        y = (y + self.places) if self.n < 3 else y / ops.exp(self.gamma) - self.gain
        return ops.matmul(y, self.mix) if self.n % 2 else y


class Standardised(L.Layer):
    """A convolution with a kernel that is computed from a weight: plain, by depth, transposed."""

    def __init__(self, width, n):
        super().__init__()
        self.width, self.n = width, n

    def build(self, shape):
        sizes = [3] * (len(shape) - 2)
        channels = {3: (shape[-1], 1), 4: (self.width, shape[-1])}
        self.kernel = self.add_weight((*sizes, *channels.get(self.n, (shape[-1], self.width))), name="kernel")
        self.bias = self.add_weight(((self.width,) if self.n != 3 else (shape[-1],)), name="bias")

    def call(self, x):
        mean, variance = ops.moments(self.kernel, axes=tuple(range(len(x.shape) - 1)), keepdims=True)
        kernel = (self.kernel - mean) * ops.rsqrt(variance + 1e-5)
        function = {3: ops.depthwise_conv, 4: ops.conv_transpose}.get(self.n, ops.conv)
        return function(x, kernel, strides=1 + (self.n == 2), padding="same") + self.bias


class Unit(L.Layer):
    """ShuffleNet: half of the channels go through a branch, then all are shuffled."""

    def __init__(self, width):
        super().__init__()
        self.branch = [L.Dense(width // 2), L.BatchNormalization(), L.ReLU()]

    def call(self, x, training=None):
        stays, y = ops.split(x, 2, axis=-1)
        for layer in self.branch:
            y = layer(y)
        places, width = ops.shape(x)[1:-1], x.shape[-1]
        x = ops.reshape(ops.concatenate([stays, y], axis=-1), (-1, *places, 2, width // 2))
        return ops.reshape(ops.swapaxes(x, -1, -2), (-1, *places, width))


class TokenMixer(L.Layer):
    """MLP-Mixer: a dense layer over places, one over channels."""

    def __init__(self, places, width, hidden):
        super().__init__()
        self.norms = [L.LayerNormalization(), OwnNorm()]
        self.over_places, self.over_channels = (
            [L.Dense(hidden), L.Dense(places)],
            [L.Dense(hidden), L.Dense(width)],
        )

    def call(self, x):
        y = ops.swapaxes(self.norms[0](x), 1, 2)
        x = x + ops.swapaxes(self.over_places[1](ops.gelu(self.over_places[0](y))), 1, 2)
        return x + self.over_channels[1](ops.gelu(self.over_channels[0](self.norms[1](x))))


class SelfAttention(L.Layer):
    """Queries, keys and values of one layer, heads by reshape and transpose; LayerScale behind."""

    def __init__(self, width, heads, size):
        super().__init__()
        self.heads, self.size, self.norm = heads, size, L.LayerNormalization()
        self.qkv, self.projection = L.Dense(3 * heads * size), L.Dense(width)

    def build(self, shape):
        self.gamma = self.add_weight((shape[-1],), name="gamma")

    def call(self, x):
        n, places, _ = ops.shape(x)
        qkv = ops.reshape(self.qkv(self.norm(x)), (n, places, 3, self.heads, self.size))
        q, k, v = ops.unstack(ops.transpose(qkv, (2, 0, 3, 1, 4)), axis=0)
        y = ops.matmul(ops.softmax(ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))) * 0.5), v)
        y = ops.reshape(ops.transpose(y, (0, 2, 1, 3)), (n, places, self.heads * self.size))
        return x + self.gamma * self.projection(y)


class Towers(keras.Model):
    """A subclassed model inside: a dictionary in, two outputs, a nested list of layers."""

    def __init__(self, n):
        super().__init__()
        self.shared = L.Dense(n + 2, activation="relu")
        self.rows = [[Residual(n + 2, 2), L.LayerNormalization()], [L.Dense(3)]]

    def call(self, inputs, training=None):
        left, right = self.shared(inputs["left"]), self.shared(inputs["right"])
        for layers in self.rows:
            for layer in layers:
                left = layer(left)
        return left, left * ops.sigmoid(ops.sum(right, axis=-1, keepdims=True))


@move
def residual(net, x, other, n):
    """Called once, or twice behind each other."""
    block = Residual(x.shape[-1], n + 1)
    return block(x) if n < 3 else block(block(x))


@move
def weights(net, x, other, n):
    return Weighted(n)(x)


@on_maps
def own_kernel(net, x, other, n):
    return Standardised(2 * n, n)(x) if net.rank == 2 else None


@move
def shuffle_unit(net, x, other, n):
    return Unit(x.shape[-1])(x) if x.shape[-1] % 2 == 0 else None


@move
def mixer(net, x, other, n):
    if len(x.shape) == 3:
        return TokenMixer(x.shape[1], x.shape[2], n + 1)(x)


@move
def self_attention(net, x, other, n):
    if len(x.shape) == 3:
        return SelfAttention(x.shape[-1], 1 + n % 2, n)(x)


@move
def towers(net, x, other, n):
    return [*Towers(n)({"left": x, "right": ops.negative(x)})]
