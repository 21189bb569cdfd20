"""The steps that random networks are made of: each adds a layer or a few behind a tensor.

A step takes the network, one of its tensors, another one, and a number from 1 to 4; it gives the tensors that
it makes, or None where it does not fit.
"""

from __future__ import annotations

from collections.abc import Callable

import keras

L, ops = keras.layers, keras.ops
SIDES = {1: (8,), 2: (4, 6), 3: (4, 2, 4)}
MOVES: dict[str, Callable] = {}


class Net:
    """A network while it grows: inputs, the tensors made so far, and layers by their number of axes."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.inputs = [keras.Input((*SIDES[rank], 3), name="images")]
        self.made = [self.conv(self.inputs[0], 4)]

    def layer(self, name: str, *args, **kwargs) -> keras.Layer:
        """`Conv#` is Conv1D, Conv2D or Conv3D."""
        return getattr(L, name.replace("#", f"{self.rank}D"))(*args, **kwargs)

    def conv(self, x, filters: int, size: int = 3, **kwargs):
        return self.layer("Conv#", filters, size, padding="same", **kwargs)(x)

    def is_map(self, x) -> bool:
        return len(x.shape) == self.rank + 2

    def like(self, x, other):
        """`other` with the channels of x, and with its places or one for all."""
        if len(other.shape) != len(x.shape):
            other = L.Dense(x.shape[-1])(self.pooled(other))
            return L.Reshape((*[1] * (len(x.shape) - 2), x.shape[-1]))(other)
        if other.shape[1:-1] != x.shape[1:-1]:
            other = ops.mean(other, axis=tuple(range(1, len(x.shape) - 1)), keepdims=True)
        return other if other.shape[-1] == x.shape[-1] else L.Dense(x.shape[-1])(other)

    def pooled(self, x):
        return self.layer("GlobalAveragePooling#")(x) if self.is_map(x) else L.Flatten()(x)

    def heads(self, number: int) -> list | dict:
        """One output or two, of the newest tensors, pooled or flattened; the other may be a tensor itself."""
        last = L.Flatten(name="flat")(self.made[-1]) if number % 3 else self.pooled(self.made[-1])
        logits = L.Dense(3, name="logits", activation="softmax" if number % 2 else None)(last)
        if number % 4 or len(self.made) == 1:
            return logits
        other = self.made[-2] if number % 8 else L.Dense(2, name="other")(self.pooled(self.made[-2]))
        return {"logits": logits, "other": other}


def move(function: Callable) -> Callable:
    """A step under the function's name."""
    MOVES[function.__name__] = function
    return function


def on_maps(function: Callable) -> Callable:
    """A step that only feature maps can take."""
    MOVES[function.__name__] = lambda net, x, other, n: function(net, x, other, n) if net.is_map(x) else None
    return function


@on_maps
def conv(net, x, other, n):
    return net.conv(x, 2 * n, activation=("relu", "gelu", None, "sigmoid")[n - 1], strides=1 + n % 2)


@on_maps
def grouped(net, x, other, n):
    return net.conv(net.conv(x, 2 * n, 1), 2 * (5 - n), groups=2, use_bias=n > 1)


@on_maps
def one_by_one(net, x, other, n):
    return net.conv(x, x.shape[-1] * n, groups=x.shape[-1])


@on_maps
def depthwise(net, x, other, n):
    if net.rank < 3:
        return net.layer("DepthwiseConv#", 3, padding="same", depth_multiplier=1 + n % 2)(x)


@on_maps
def separable(net, x, other, n):
    if net.rank < 3:
        return net.layer("SeparableConv#", 2 * n, 3, padding="same", depth_multiplier=1 + n % 2)(x)


@on_maps
def transposed(net, x, other, n):
    return net.conv(x, n + 1, 2) if n == 4 else net.layer("Conv#Transpose", n + 1, 3, padding="same")(x)


@move
def dense(net, x, other, n):
    return L.Dense(n + 2, activation=(None, "relu", "softmax", "tanh")[n - 1])(x)


@move
def batch_norm(net, x, other, n):
    return L.BatchNormalization(scale=n > 1, center=n < 4)(x)


@move
def layer_norm(net, x, other, n):
    return (L.LayerNormalization(), L.RMSNormalization(), L.UnitNormalization(), L.Softmax())[n - 1](x)


@move
def group_norm(net, x, other, n):
    groups = [g for g in range(1, x.shape[-1] + 1) if x.shape[-1] % g == 0]
    return L.GroupNormalization(groups[-n] if n <= len(groups) else -1)(x)


@on_maps
def norm_in_front(net, x, other, n):
    """Of channels that stand in front, or of one axis of positions."""
    groups = L.GroupNormalization(2 if x.shape[-1] % 2 == 0 else 1, axis=1)
    norm = (L.LayerNormalization(axis=1), groups, L.UnitNormalization(axis=1), L.LayerNormalization())[n - 1]
    return ops.moveaxis(norm(ops.moveaxis(x, -1, 1)), 1, -1)


@move
def prelu(net, x, other, n):
    return L.PReLU(shared_axes=list(range(1, len(x.shape) - 1)) if n > 2 and len(x.shape) > 2 else None)(x)


@move
def activation(net, x, other, n):
    return (L.ReLU(), L.Activation("swish"), L.LeakyReLU(0.1), L.Activation("sigmoid"))[n - 1](x)


@move
def dropout(net, x, other, n):
    return (L.Dropout(0.3), L.GaussianNoise(0.1), L.AlphaDropout(0.2), L.Identity())[n - 1](x)


@move
def scaled(net, x, other, n):
    return (L.Rescaling(0.5, 0.1), L.Normalization(), L.Normalization(axis=None), L.Rescaling(2.0))[n - 1](x)


@on_maps
def padded(net, x, other, n):
    return net.layer("ZeroPadding#", 1)(x) if n < 3 else net.layer("UpSampling#", 2)(x)


@on_maps
def cropped(net, x, other, n):
    if min(x.shape[1:-1]) > 2:
        return net.layer("Cropping#", 1)(x) if n < 3 else x[:, 1:, ..., :]


@on_maps
def pooling(net, x, other, n):
    if min(x.shape[1:-1]) > 1:
        return net.layer(("MaxPooling#", "AveragePooling#")[n % 2], 2, padding="same")(x)


@on_maps
def global_pooling(net, x, other, n):
    pool = net.layer(("GlobalAveragePooling#", "GlobalMaxPooling#")[n % 2], keepdims=n > 2)
    return pool(x)


@move
def flat(net, x, other, n):
    return L.Dense(n + 2)(L.Flatten()(x)) if n < 3 else L.Flatten()(x)


@move
def reshaped(net, x, other, n):
    """To places in a row and back; or channels in two axes, which makes them go in pairs."""
    if n < 3 and net.is_map(x):
        return L.Reshape(tuple(x.shape[1:]))(L.ReLU()(L.Reshape((-1, x.shape[-1]))(x)))
    if x.shape[-1] % 2 == 0:
        halves = L.Reshape((*x.shape[1:-1], 2, x.shape[-1] // 2))(x)
        return ops.sum(halves, axis=-2) if n == 3 else L.Reshape(tuple(x.shape[1:]))(halves)


@move
def permuted(net, x, other, n):
    """Another axis last: its layers read places, and leave the channels whole or where they are."""
    if len(x.shape) < 3:
        return None
    order = (*range(2, len(x.shape)), 1) if n % 2 else (len(x.shape) - 1, *range(1, len(x.shape) - 1))
    moved = L.Permute(order)(x)
    moved = L.Dense(moved.shape[-1])(moved) if n == 4 else L.ReLU()(moved)
    return moved if n == 3 else L.Permute([order.index(i) + 1 for i in range(1, len(x.shape))])(moved)


@move
def shuffled(net, x, other, n):
    """Channels of two groups take turns, as in ShuffleNet."""
    if x.shape[-1] % 2 == 0 and len(x.shape) == net.rank + 2:
        pairs = L.Reshape((-1, 2, x.shape[-1] // 2))(x)
        return L.Reshape(tuple(x.shape[1:]))(ops.transpose(pairs, (0, 1, 3, 2)))


@move
def merged(net, x, other, n):
    return (L.Add(), L.Subtract(), L.Average(), L.Maximum())[n - 1]([x, net.like(x, other)])


@move
def computed(net, x, other, n):
    y = net.like(x, other)
    return (x + y, x * ops.sigmoid(y), ops.maximum(x, y), 0.5 * ops.square(ops.tanh(x)) - y / 2)[n - 1]


@move
def broadcast(net, x, other, n):
    """One channel, or one place, for all."""
    return L.Multiply()([x, L.Dense(1 if n > 2 else x.shape[-1], activation="sigmoid")(x)])


@on_maps
def squeeze_excite(net, x, other, n):
    pool = net.layer("GlobalAveragePooling#", keepdims=True)(x)
    gate = net.conv(net.conv(pool, n, 1, activation="relu"), x.shape[-1], 1, activation="sigmoid")
    return L.Multiply()([x, gate] if n > 1 else [gate, x])


@move
def joined(net, x, other, n):
    """Channels behind channels; or, with 4, places behind places."""
    fits = other.shape[: -1 if n < 4 else None] == x.shape[: -1 if n < 4 else None]
    parts = [x, other if fits else x * 0.5, x][: 1 + (n + 2) // 2]
    return ops.concatenate(parts, -1) if n % 2 else L.Concatenate(axis=-1 if n < 4 else 1)(parts)


@move
def split(net, x, other, n):
    if x.shape[-1] % 2 == 0:
        a, b = ops.split(x, 2, axis=-1)
        return [a, b] if n > 2 else a * ops.sigmoid(b)
    return ops.split(x, [1], axis=-1)[1:] if x.shape[-1] > 1 else None


@move
def sliced(net, x, other, n):
    """Some of the channels by their numbers: halves, every second one, a list; and places with them."""
    width = x.shape[-1]
    if width < 4:
        return None
    if n == 1:
        return x[..., : width // 2] * ops.sigmoid(x[..., -(width // 2) :])
    if n == 2:
        return x[..., 1::2] if len(x.shape) == 2 else x[:, 1:, ..., 1::2]
    return ops.take(x, [3, 1, 2, 1] if n == 3 else [0, 2, 3], axis=-1)


@move
def turned(net, x, other, n):
    """Each channel somewhere else."""
    places = [0] * (len(x.shape) - 2)
    return (
        ops.roll(x, 1, -1), ops.flip(x, -1), ops.tile(x, [1, *[1] * len(places), 2]), ops.repeat(x, 2, -1)
    )[n - 1]  # fmt: skip


@move
def surrounded(net, x, other, n):
    """Zeros or ones around, in front of the channels or around the places."""
    around = [[0, 0] for _ in x.shape]
    around[-1 if n % 2 else 1] = [1, 2] if n < 3 else [0, 1]
    if len(x.shape) > 2 or n % 2:
        return ops.pad(x, around, constant_values=None if n < 3 else 1.0)


@move
def stacked(net, x, other, n):
    y = net.like(x, other)
    if y.shape != x.shape:
        y = x * 0.5
    if n < 3:
        return ops.sum(
            ops.stack([x, y], axis=n if len(x.shape) > 2 else 1), axis=n if len(x.shape) > 2 else 1
        )
    rows = ops.unstack(ops.stack([x, y, x], axis=-1), axis=-1)
    return rows[1] if n == 3 else rows


@move
def added_up(net, x, other, n):
    """Sums and norms over channels, to which zeros add nothing; softmax over places."""
    if n == 1:
        return x * ops.sigmoid(ops.sum(x, axis=-1, keepdims=True))
    if n == 2:
        return ops.normalize(ops.relu(x) if len(x.shape) > 2 else x, axis=-1)
    if n == 3:
        return ops.concatenate([x, ops.norm(x, axis=-1, keepdims=True)], -1)
    return ops.softmax(x, axis=1) * x if len(x.shape) > 2 else None


@on_maps
def space_to_depth(net, x, other, n):
    if net.rank == 2 and all(side % 2 == 0 for side in x.shape[1:-1]) and n < 3:
        return ops.space_to_depth(x, 2)
    if net.rank == 2 and x.shape[-1] % 8 == 0:
        return ops.depth_to_space(x, 2)


@on_maps
def folded(net, x, other, n):
    """Rows of pixels as samples of their own, and back."""
    if net.rank == 2:
        height, width, channels = x.shape[1:]
        rows = ops.reshape(x, (-1, width, channels))
        y = L.Conv1D(n + 1, 3, padding="same", activation="relu")(rows)
        return ops.reshape(y, (-1, height, width, n + 1))


@on_maps
def channels_first(net, x, other, n):
    """The same with channels in front, as far as a CPU computes it."""
    front = ops.moveaxis(x, -1, 1)
    if n == 1:
        front = L.BatchNormalization(axis=1)(front)
    elif n == 2:
        front = net.layer("UpSampling#", 2, data_format="channels_first")(front) if net.rank == 2 else front
    elif n == 3:
        return L.Flatten(data_format="channels_first")(front)
    else:
        return net.layer("GlobalAveragePooling#", data_format="channels_first")(L.ReLU()(front))
    return ops.moveaxis(L.Concatenate(axis=1)([front, front]), 1, -1)


@move
def recurrent(net, x, other, n):
    if len(x.shape) == 3:
        layer = (
            L.LSTM(n + 2, return_sequences=True), L.GRU(n + 1), L.SimpleRNN(4),
            L.GRU(3, return_sequences=True, reset_after=False),
        )[n - 1]  # fmt: skip
        return L.Bidirectional(layer, merge_mode=("concat", "sum")[n % 2])(x) if n > 1 else layer(x)


@move
def shared(net, x, other, n):
    """One layer called twice, one after the other or side by side."""
    twice = L.Dense(x.shape[-1], activation="relu")
    return twice(twice(x)) if n < 3 else [twice(x), twice(net.like(x, other))]


@on_maps
def nested(net, x, other, n):
    """A model as a layer, in another model from 2 on, called twice from 3 on, not trained from 4 on.

    From 3 on the inner one is of any size.
    """
    inside = keras.Input((*([None] * net.rank if n > 2 else x.shape[1:-1]), x.shape[-1]))
    y = net.conv(inside, x.shape[-1], 3, activation="relu")
    block = keras.Model(inside, L.BatchNormalization()(y) + (inside if n > 1 else 0))
    if n > 1:
        inside = keras.Input(tuple(x.shape[1:]))
        block = keras.Model(inside, block(net.conv(inside, x.shape[-1], 1)))
    y = block(x, training=False) if n > 3 else block(x)
    return y if n < 3 else block(y)


@move
def sequence(net, x, other, n):
    return keras.Sequential([L.Dense(n + 1), L.BatchNormalization(), L.ReLU(), L.Dense(2 * n)])(x)


@move
def second_input(net, x, other, n):
    net.inputs.append(keras.Input(tuple(x.shape[1:-1]) + (n + 1,), name=f"input_{len(net.inputs)}"))
    return L.Dense(x.shape[-1])(net.inputs[-1]) - x


@move
def tokens(net, x, other, n):
    if len(x.shape) == 3:
        net.inputs.append(keras.Input((x.shape[1],), dtype="int32", name=f"tokens_{len(net.inputs)}"))
        return L.Embedding(7, n + 1)(net.inputs[-1])


@move
def reduced(net, x, other, n):
    """Means over places or over channels, and axes of size 1."""
    if len(x.shape) == 2:
        return ops.squeeze(ops.expand_dims(x, 1), 1)
    return (
        ops.expand_dims(ops.mean(x, axis=1), 1), ops.max(x, axis=1, keepdims=True) + x,
        ops.sum(x, axis=-1, keepdims=True), ops.swapaxes(x, 1, len(x.shape) - 2),
    )[n - 1]  # fmt: skip


@move
def attention(net, x, other, n):
    if len(x.shape) == 3:
        return L.MultiHeadAttention(2, n)(x, x) if n < 4 else L.GRU(3, return_sequences=True)(x)


@move
def attended(net, x, other, n):
    """Grouped queries, attention without weights, and two that are written by hand."""
    if len(x.shape) != 3:
        return None
    places, query, value = x.shape[1], L.Dense(6)(x), L.Dense(6)(x)
    if n == 1:
        return L.GroupQueryAttention(2, 4, 2)(x, x)
    if n == 2:
        return L.Attention()([query, x, L.Dense(6)(x)])
    if n == 3:
        q, k, v = (
            ops.transpose(L.Reshape((places, 2, 3))(y), (0, 2, 1, 3)) for y in (query, L.Dense(6)(x), value)
        )
        made = ops.matmul(ops.softmax(ops.matmul(q, ops.swapaxes(k, 2, 3)) / 2.0), v)
        return L.Dense(4)(L.Reshape((places, 6))(ops.transpose(made, (0, 2, 1, 3))))
    q, k, v = (L.EinsumDense("btc,chd->bthd", (places, 2, 3), bias_axes="hd")(x) for _ in range(3))
    made = ops.einsum("bhts,bshd->bthd", L.Softmax()(ops.einsum("bthd,bshd->bhts", q, k)), v)
    return L.EinsumDense("bthd,hdc->btc", (places, 4), bias_axes="c")(made)
