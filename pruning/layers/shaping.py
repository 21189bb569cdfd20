"""Layers that move positions about, and those that add up or compare positions along axes.

Where positions go is seen by running the layer itself on labels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from secateur.nets.graph import Call
from secateur.pruning.layers import costs, running
from secateur.pruning.layers.labels import Labels, channel_axis, compressed, expanded, on_one_axis
from secateur.pruning.layers.registry import Cut, layer_class
from secateur.pruning.layers.silence import silent
from secateur.runs.errors import reason_of_keras

BATCH = "it moves the batch axis"
SINGLE = "it picks single channels"
REDUCES = "it reduces over channels (channel_statistics=True lets them go)"
OPEN = 2  # in place of an open size
SEVERAL = ("ops.Stack",)  # that read more than one tensor of positions


def moved(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    """The label rule of what makes nothing new: it is run on two samples of labels.

    Zeros stand for what it puts between them, as padding does.
    """
    if len(call.inputs) > 1 and call.kind not in SEVERAL:
        return "what it moves depends on data"
    for vector in labels[1:]:  # what lies side by side has the same channels
        state.unite(labels[0], vector)
    labels = [max(labels, key=np.size)] * len(labels)
    samples, count = state.batch or 2, state.count
    read = [
        _samples(state, *row, samples) for row in zip(call.inputs, labels, call.input_shapes, strict=True)
    ]
    try:
        zeros = (lambda x, *_, **__: call.layer(x)) if call.kind == "ops.Pad" else None
        run = call.run(list(map(keras.ops.convert_to_tensor, read)), zeros, training=False)
        run = [np.asarray(y) for y in run]
    except running.BROKEN as error:
        opened = any(None in shape[1:] for shape in (*call.input_shapes, *call.shapes))
        return "it moves positions along an axis of open size" if opened else _said(error)
    made = []
    for array, shape, tensor in zip(run, call.shapes, call.outputs, strict=True):
        found = _one_sample(array, samples, count)
        if found is None or len(shape) != array.ndim:
            return BATCH
        state.rows[tensor] = len(found)
        found = on_one_axis(state, _filled(state, found))
        if len(found) > 1:
            return BATCH
        made.append(found[0])
        if any(n > 1 and full is None for n, full in zip(found.shape[1:], shape[1:], strict=True)):
            return "it moves channels to an axis of open size"
    return _checked(state, call, labels, made)


def _samples(state: Labels, tensor: int, labels: np.ndarray, shape: tuple, samples: int) -> np.ndarray:
    """Labels from 1 on at every position (samples · rows, …); those of the next sample are higher."""
    one = np.broadcast_to(expanded(labels, shape[1:]) + 1, [state.rows[tensor], *_sizes(labels, shape)])
    return np.concatenate([one + i * state.count for i in range(samples)]).astype(np.int32)


def _sizes(labels: np.ndarray, shape: tuple) -> list[int]:
    return [
        n if full is None and n > 1 else full or OPEN for n, full in zip(labels.shape, shape[1:], strict=True)
    ]


def _one_sample(array: np.ndarray, samples: int, count: int) -> np.ndarray | None:
    """What has become of the first sample (rows, …); None where the others went elsewhere."""
    if not array.ndim or len(array) % samples or not array.size:
        return None
    parts = array.reshape(samples, -1, *array.shape[1:])
    higher = np.arange(samples).reshape(-1, *[1] * array.ndim) * count
    same = (parts == np.where(parts[:1] > 0, parts[:1] + higher, 0)).all() and parts[0].max() <= count
    return parts[0] if same else None


def _filled(state: Labels, made: np.ndarray) -> np.ndarray:
    """Labels from 0 on. Zeros belong to the channel that they stand beside, or are one of their own."""
    for axis in range(made.ndim):
        most = made.max(axis, keepdims=True)
        if made.shape[axis] > 1 and ((made == most) | (made == 0)).all():
            made = most
    own = made == 0
    made = made.astype(np.int64) - 1
    made[own] = state.fresh(int(own.sum()))
    return compressed(made)


def _checked(
    state: Labels, call: Call, labels: list[np.ndarray], made: list[np.ndarray]
) -> list[np.ndarray] | str:
    """Each of several parts of channels keeps one; and nothing is made of one channel alone."""
    read = np.unique(np.concatenate([vector.ravel() for vector in labels]))
    if any(vector.size == 1 < len(read) for vector in made) and call.kind not in SEVERAL:
        return SINGLE
    for i, vector in enumerate(made):
        own = np.isin(read, vector)
        if not np.isin(vector, read).all():
            state.use(call, "padding", {}, vector.reshape(-1))
        elif not own.all():
            state.use(call, "follower", {f"part {i}": 0}, vector.reshape(-1))
    if call.kind in SIZED:
        state.same_shape(call.name, [*labels, *made])
    return made


def _said(error: Exception) -> str:
    return f"it cannot be followed: {reason_of_keras(error)}"


# --- in a network that is cut: other sizes, other indices ---------------------------------------------------


def _resize_reshape(config: dict, call: Call, cut: Cut) -> dict:
    option = next(name for name in ("newshape", "target_shape", "shape") if name in config)
    if isinstance(config[option], int):  # everything in one row, with the batch: nothing is cut here
        return config
    old = tuple(config[option])
    batch = () if option == "target_shape" else old[:1]
    sizes = [
        -1 if given == -1 else (left if left is not None else -1)
        for given, left in zip(old[len(batch) :], cut.outputs[0], strict=True)
    ]
    return config | {option: (*batch, *sizes)}


def _resize_split(config: dict, call: Call, cut: Cut) -> dict:
    axis = call.layer.axis % len(call.input_shapes[0]) - 1
    sizes = [shape[axis] for shape in cut.outputs] if axis >= 0 else [None]
    if None in sizes or call.input_shapes[0][axis + 1] == sum(sizes):
        return config
    return config | {"indices_or_sections": np.cumsum(sizes)[:-1].tolist(), "axis": call.layer.axis}


def channel_padding(call: Call, axis: int) -> tuple[int, int]:
    """Positions (front, back) that a padding layer or operation puts around an axis (without batch)."""
    if call.kind == "ops.Pad":
        return tuple(call.layer.pad_width[axis + 1])
    return tuple(call.layer.padding[axis - 1])


def _resize_padding(config: dict, call: Call, cut: Cut) -> dict:
    """Padded channels that are kept."""
    if not cut.pad:
        return config
    option, start = ("pad_width", 1) if call.kind == "ops.Pad" else ("padding", -1)
    wide = [tuple(pair) for pair in config[option]]
    wide[cut.axis_made + start] = cut.pad
    return config | {option: wide}


def _key(call: Call) -> list:
    """The key of x[key] with one entry for each axis, and None for each new one."""
    key = call.argument(1, "key")
    key = list(key) if isinstance(key, (tuple, list)) else [key]
    missing = len(call.input_shapes[0]) - sum(k is not None and k is not Ellipsis for k in key)
    place = next((i for i, k in enumerate(key) if k is Ellipsis), len(key))
    key[place : place + 1] = [slice(None)] * missing
    return key


def _place(key: list, axis: int) -> int:
    """Where in a key the entry of an axis (without batch) stands."""
    return [i for i, k in enumerate(key) if k is not None][axis + 1]


def _shifts(call: Call) -> dict[int, int]:
    """Axis (with batch) → by how many positions a roll moves along it."""
    layer, rank = call.layer, len(call.input_shapes[0])
    if layer.axis is None:
        return {}
    axes, shifts = (np.atleast_1d(x).tolist() for x in (layer.axis, layer.shift))
    found: dict[int, int] = {}
    for axis, shift in zip(axes, np.broadcast_to(shifts, len(axes)).tolist(), strict=True):
        found[axis % rank] = found.get(axis % rank, 0) + shift
    return found


def picked(call: Call, axis: int) -> np.ndarray | None:
    """Which positions of an axis (without batch) of the dense network a call takes; None: all, in order."""
    every = np.arange(call.node.arguments.keras_tensors[0].shape[axis + 1])
    taken = every
    if call.kind == "ops.Roll":
        taken = np.roll(every, _shifts(call).get(axis + 1, 0))
    elif call.kind == "ops.GetItem":
        taken = every[(key := _key(call))[_place(key, axis)]]
    elif call.kind == "ops.Take" and call.layer.axis % len(call.input_shapes[0]) == axis + 1:
        taken = every[np.asarray(call.argument(1, "indices"))]
    return None if np.array_equal(taken, every) else taken


def picks(call: Call, axis: int, alive: np.ndarray) -> np.ndarray | None:
    """`picked` of the positions that are left: by their numbers among these."""
    if (taken := picked(call, axis)) is None:
        return None
    return (np.cumsum(alive) - 1)[taken[alive[taken]]]


def _elsewhere(call: Call, axis: int) -> Callable | None:
    """What a call does to all other axes, as a function of what it reads; None where that is nothing."""
    if call.kind == "ops.Roll":
        rest = {a: n for a, n in _shifts(call).items() if a != axis + 1 and n}
        return (lambda x: keras.ops.roll(x, tuple(rest.values()), tuple(rest))) if rest else None
    if call.kind == "ops.Take":
        return None
    return _with_key(call, axis, slice(None))


def _with_key(call: Call, axis: int, entry: slice) -> Callable | None:
    key = _key(call)
    key[_place(key, axis)] = entry
    return None if all(k == slice(None) for k in key) else lambda x: x[tuple(key)]


def _picking(call: Call, cut: Cut, name: str) -> Callable | None:
    """In a smaller network: a slice of other bounds, or else a list of indices. None: as it was."""
    if cut.alive is None or (found := picks(call, cut.axis, cut.alive)) is None:
        return None
    steps = np.unique(np.diff(found))
    if call.kind == "ops.GetItem" and len(steps) <= 1 and (steps > 0).all():
        bounds = slice(int(found[0]), int(found[-1]) + 1, int(steps[0]) if len(steps) else None)
        sliced = _with_key(call, cut.axis, bounds)
        return lambda x, *_, **__: named(sliced(x), name)
    before = _elsewhere(call, cut.axis)

    def run(x: Any, *_: Any, **__: Any) -> Any:
        x = named(before(x), f"{name}_rest") if before else x
        return named(keras.ops.take(x, found.tolist(), axis=cut.axis_made + 1), name)

    return run


def named(made: Any, name: str) -> Any:
    """The tensor, with this name for the operation that has made it."""
    made._keras_history.operation.name = name
    return made


def _run_picking(call: Call, w: running.Weights, x: tf.Tensor) -> tf.Tensor | list[tf.Tensor]:
    """Where channels are picked, those that the weight "picks" says."""
    if "picks" not in w:
        return running.layer_itself(call, w, x)
    before = _elsewhere(call, call.input_shapes[0].index(None, 1) - 1)
    return tf.gather(before(x) if before else x, w["picks"], axis=call.shapes[0].index(None, 1))


def _take(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    if call.layer.axis is None:
        return BATCH
    along = labels[0].shape[call.layer.axis % len(call.input_shapes[0]) - 1] > 1
    if len(call.inputs) == 1 and along and np.ndim(call.argument(1, "indices")) != 1:
        return SINGLE
    return moved(state, call, labels)


def _pad(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    around = dict(enumerate(call.layer.pad_width)).get(channel_axis(labels[0]) + 1, (0, 0))
    if call.layer.mode != "constant" and labels[0].size > 1 and any(around):
        return "it fills channels with others"
    return moved(state, call, labels)


def _repeat(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    return moved(state, call, labels) if np.ndim(call.layer.repeats) == 0 else "it repeats each differently"


# --- sums and comparisons of positions ----------------------------------------------------------------------


def _axes(axis: Any, rank: int) -> list[int]:
    """Axes from 0; all of them for None."""
    return list(range(rank)) if axis is None else [a % rank for a in np.atleast_1d(axis).tolist()]


def _across(call: Call, labels: np.ndarray, axis: Any) -> str | None:
    """Whether channels change along one of these axes (with batch), and the batch is none of them."""
    axes = _axes(axis, len(call.input_shapes[0]))
    if 0 in axes:
        return BATCH
    return "channels" if any(labels.shape[a - 1] > 1 for a in axes) else None


def _reduce(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    """Global pooling, and means and sums over axes along which channels do not change."""
    rank, vector = len(call.input_shapes[0]), labels[0]
    axis = list(range(1, rank - 1)) if call.kind.startswith("Global") else call.layer.axis
    across = _across(call, vector, axis)
    if across == BATCH:
        return "it reduces the batch axis"
    if across and not (call.kind in ADDING and silent(state, call.inputs[0])):
        if not state.channel_statistics:
            return REDUCES
        state.reduced.append(call.name)
    axes = tuple(a - 1 for a in _axes(axis, rank))
    if across:
        state.use(call, "consumer", {}, vector.reshape(-1))
        vector = state.fresh(1).reshape([1] * vector.ndim)
        state.lock(vector, f"{call.name}: it makes one channel of all")
    return [vector if call.layer.keepdims else vector.squeeze(axes)]


def _normalize(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    """Divided by a norm, to which a channel of zeros adds nothing."""
    across = _across(call, labels[0], call.layer.axis)
    if across == BATCH or (across and not silent(state, call.inputs[0])):
        return across if across == BATCH else "it normalises over channels"
    if across:
        state.use(call, "consumer", {}, labels[0].reshape(-1))
    return [labels[0]]


def _softmax(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    across = _across(call, labels[0], call.layer.axis) if len(call.inputs) == 1 else "channels"
    return "its softmax mixes channels" if across else [labels[0]]


def _dot(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    """Products of two tensors, added up along an axis of each; the other axes of both follow one another."""
    axes = call.layer.axes
    axes = (axes, axes) if isinstance(axes, int) else axes
    axes = [a % len(shape) - 1 for a, shape in zip(axes, call.input_shapes, strict=True)]
    if -1 in axes:
        return BATCH
    summed = [vector.take([0], a) if vector.shape[a] == vector.size else vector
              for vector, a in zip(labels, axes, strict=True)]  # fmt: skip
    over = [v.size > 1 and v.shape[a] == v.size for v, a in zip(labels, axes, strict=True)]
    rest = [v.squeeze(a) for v, a in zip(summed, axes, strict=True)]
    if any(over):
        enough = all if call.layer.normalize else any  # each is divided by its own norm
        if not enough(silent(state, t) for t in call.inputs):
            return "it adds up channels"
        state.unite(*(v.reshape(-1) for v in labels))
        rest = [state.fresh(1).reshape([1] * v.ndim) for v in rest]
    if all(v.size > 1 for v in rest):
        return "it pairs channels with channels"
    wide = int(rest[1].size > 1)
    ndim = [1] * rest[0].ndim, [1] * rest[1].ndim
    shape = [*rest[0].shape, *ndim[1]] if not wide else [*ndim[0], *rest[1].shape]
    made = rest[wide].reshape(shape)
    return [made if made.ndim else made.reshape(1)]


ADDING = ("ops.Sum", "ops.Norm")
MOVES = (
    "Permute", "RepeatVector", "ops.Transpose", "ops.ExpandDims", "ops.Squeeze", "ops.Swapaxes",
    "ops.Moveaxis", "ops.Flip", "ops.Tile", "ops.Stack", "ops.Unstack", "ops.DepthToSpace",
    "ops.SpaceToDepth", "Flatten", "ops.Ravel",
)  # fmt: skip
layer_class(*MOVES, label=moved)
layer_class("ops.Repeat", label=_repeat)
reshape = {"label": moved, "resize": _resize_reshape, "run": running.reshape}
layer_class("Reshape", "ops.Reshape", **reshape)
layer_class("ops.BroadcastTo", **reshape)
layer_class("ops.Split", label=moved, resize=_resize_split, run=running.split)
layer_class("ops.Pad", label=_pad, resize=_resize_padding, run=running.padding)
layer_class("ZeroPadding2D", label=moved, resize=_resize_padding, run=running.padding)
layer_class("ops.GetItem", "ops.Roll", label=moved, replace=_picking, run=_run_picking)
layer_class("ops.Take", label=_take, replace=_picking, run=_run_picking)
SIZED = (
    "Reshape", "ops.Reshape", "ops.BroadcastTo", "ops.Split", "ops.Pad", "ZeroPadding2D", "ops.GetItem",
    "ops.Roll", "ops.Take",
)  # fmt: skip  # whose constants are other ones where channels are gone
layer_class(
    *(f"Global{how}Pooling{rank}" for how in ("Average", "Max") for rank in ("1D", "2D", "3D")),
    label=_reduce,
    cost=costs.pool,
)
layer_class("GlobalAveragePooling2D", label=_reduce, cost=costs.pool, run=running.global_average)
layer_class(
    *(f"ops.{how}" for how in ("Mean", "Max", "Sum", "Min", "Amax", "Amin", "Std", "Var", "Norm")),
    label=_reduce,
)
layer_class("ops.Normalize", label=_normalize)
layer_class("Softmax", "ops.Softmax", "ops.LogSoftmax", label=_softmax)
layer_class("Dot", label=_dot)
