"""Products of tensors, and of a tensor with a kernel, by the letters of an einsum: which axes meet which.

Axes of one letter hold the same channels. A letter of all tensors and of the result goes through, as heads
do; one that is missing in the result is summed over, as the width of heads in queries · keys.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import prod

import numpy as np
import tensorflow as tf

from secateur.nets.graph import Call
from secateur.pruning.conventions import Convention
from secateur.pruning.layers.activations import mixes
from secateur.pruning.layers.labels import Labels
from secateur.pruning.layers.producers import QUANTISED, quantised
from secateur.pruning.layers.registry import Cut, Place, Product, layer_class
from secateur.pruning.layers.running import Weights
from secateur.pruning.layers.silence import NOT_ZERO, silent

ATTENTION = "ops.DotProductAttention"
NOT_UNDERSTOOD = "its equation is not understood"
SEVERAL = "it has channels along several axes"
MEETS = "its channels meet others that stay"  # or set a scale: without one Keras takes it from the width


def letters(call: Call) -> tuple[list[str], str] | None:
    """Letters of the axes that each operand has, and of the result; the first one of each is the batch.

    None where that is not so. Axes that "..." stands for at the front are called 0, 1, ….
    """
    if call.kind == ATTENTION:
        return (["btnh", "bsnh", "bsnd", "bnts", "bnts"][: len(call.inputs)], "btnd")
    if call.kind == "ops.Matmul":
        shapes = _operands(call)
        rank = max(map(len, shapes))
        if any(len(shape) < 2 for shape in shapes):
            return None
        names = "".join(chr(ord("a") + i) for i in range(rank))
        found = [names[rank - len(s) : -2] + ends for s, ends in zip(shapes, ("yx", "xz"), strict=True)]
        made = names[:-2] + "yz"
        batch = [text for i, text in enumerate(found) if i in _symbolic(call)]
        return (found, made) if all(text[0] == made[0] for text in batch) else None
    text = (call.layer.equation if call.kind == "EinsumDense" else call.layer.subscripts).replace(" ", "")
    if "->" not in text:
        return None
    sides = [*text.split("->")[0].split(","), text.split("->")[1]]
    if not all(re.fullmatch(r"(\.\.\.)?[a-zA-Z]+", side) for side in sides):
        return None
    shapes = [*_operands(call), call.shapes[0]]
    found = []
    for side, shape in zip(sides, shapes, strict=True):
        named = side.removeprefix("...")
        left = "".join(map(str, range(len(shape) - len(named)))) if named != side else ""
        found.append(left + named)
    if any(len(set(side)) < len(side) for side in found):
        return None
    *read, made = found
    batch = made[0]
    tensors = [read[i] for i in _symbolic(call)]
    inside = [side for i, side in enumerate(read) if i not in _symbolic(call)]
    if any(side[0] != batch for side in tensors) or any(batch in side for side in inside):
        return None
    return read, made


def _operands(call: Call) -> list[tuple]:
    """Shapes of all operands."""
    if call.kind == "EinsumDense":
        return [call.input_shapes[0], tuple(call.layer.kernel.shape)]
    given = _given(call)
    return [tuple(getattr(x, "shape", np.shape(x))) for x in given]


def _given(call: Call) -> list:
    args, kwargs = call.node.arguments.args, call.node.arguments.kwargs
    return [*args, *(kwargs[name] for name in ("x1", "x2") if name in kwargs)]


def _symbolic(call: Call) -> list[int]:
    """Which operands are tensors of the graph."""
    if call.kind == "EinsumDense":
        return [0]
    if call.kind == ATTENTION:
        return list(range(len(call.inputs)))
    return [i for i, x in enumerate(_given(call)) if id(x) in call.keys]


def _product(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    """Axes of one letter are united; what is summed over must be zero where it is removed."""
    if (found := letters(call)) is None:
        return NOT_UNDERSTOOD
    read, made = found
    sides = [read[i] for i in _symbolic(call)]
    others = "".join(side for i, side in enumerate(read) if i not in _symbolic(call))
    channels: dict[str, list[tuple[int, np.ndarray]]] = {}
    for tensor, side, array in zip(call.inputs, sides, labels, strict=True):
        varying = [axis for axis, n in enumerate(array.shape) if n > 1]
        for axis in varying:
            channels.setdefault(side[axis + 1], []).append((tensor, array.reshape(-1)))
    for letter, held in channels.items():
        for _, vector in held[1:]:
            state.unite(held[0][1], vector)
        pairs = zip(sides, call.input_shapes, strict=True)
        sizes = [shape[side.index(letter)] for side, shape in pairs if letter in side]
        sizes = [size for size in sizes if size != 1]  # of size 1 it is the same for all
        sharing = len(sizes)
        scaled = call.kind == ATTENTION and letter == "h" and call.argument(5, "scale") is None
        if len(set(sizes)) > 1 or sharing > len(held) or letter in others or scaled:
            state.lock(held[0][1], f"{call.name}: {MEETS}")
        elif letter not in made and not any(silent(state, tensor) for tensor, _ in held):
            state.lock(held[0][1], f"{call.name}: {NOT_ZERO}")
        if letter not in made:  # it reads them, and needs one
            state.use(call, "consumer", {f"axis {letter}": 0}, held[0][1])
        elif sharing > 1:
            state.heads.append(held[0][1])
    if call.kind == ATTENTION:  # Keras says that it makes the width of queries
        widths = [channels[letter][0][1] for letter in "hd" if letter in channels]
        for vector in widths[1:]:
            state.unite(widths[0], vector)
        if len(widths) == 1:
            state.lock(widths[0], f"{call.name}: {MEETS}")
    going = [letter for letter in channels if letter in made]
    if len(going) > 1:
        return SEVERAL
    vector = channels[going[0]][0][1] if going else state.fresh(1)
    return [vector.reshape([-1 if letter in going else 1 for letter in made[1:]])]


def _dense(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
    """Channels that are summed over are read, others go through; where none does, new ones are made."""
    if quantised(call.layer):
        return QUANTISED
    if len(labels) > 1 or (found := letters(call)) is None:
        return NOT_UNDERSTOOD
    (read, kernel), made = found
    varying = [axis for axis, n in enumerate(labels[0].shape) if n > 1]
    letter, vector = (read[varying[0] + 1] if varying else ""), labels[0].reshape(-1)
    if letter and letter not in kernel + made:
        return "it sums over channels"
    new = [x for x in made if x not in read]
    if letter and letter in made:
        axes = {"kernel": kernel.index(letter)} if letter in kernel else {}
        role, out = "follower", letter
    else:
        if letter:
            state.use(call, "consumer", {"kernel": kernel.index(letter)}, vector)
        if not new:
            return [state.fresh(1).reshape([1] * (len(made) - 1))]
        out = new[0] if state.outer else new[-1]  # of heads and their width, one after the other
        vector = state.fresh(call.shapes[0][made.index(out)])
        role, axes = "producer", {"kernel": kernel.index(out)}
    bias = made.index(out) - (len(made) - len(call.layer.bias.shape)) if call.layer.bias is not None else -1
    if bias >= 0 and call.layer.bias.shape[bias] == len(vector):
        axes = axes | {"bias": bias}
    if axes:
        state.use(call, role, axes, vector)
    if reason := mixes(call.layer.activation):
        state.lock(vector, f"{call.name}: {reason}")
    return [vector.reshape([-1 if x == out else 1 for x in made[1:]])]


def _resize(config: dict, call: Call, left: Cut) -> dict:
    old = config["output_shape"]
    given = [old] if isinstance(old, int) else list(old)
    sizes = left.outputs[0][len(left.outputs[0]) - len(given) :]
    return config | {"output_shape": [a and n for a, n in zip(given, sizes, strict=True)]}


def _all(call: Call) -> dict[str, Place]:
    """Letter, but for the batch → an axis that it is of; where it has size 1 elsewhere, the whole one."""
    read, made = letters(call) or ([], "")
    numbers = iter(call.inputs)
    tensors = [next(numbers) if i in _symbolic(call) else "kernel" for i in range(len(read))]
    places = [
        (x, (tensor, axis)) for side, tensor in zip(read, tensors, strict=True) for axis, x in enumerate(side)
    ]
    places += [(x, (call.outputs[0], axis)) for axis, x in enumerate(made)]
    found: dict[str, Place] = {}
    for letter, place in places:
        if letter != made[0] and (letter not in found or _size(call, found[letter]) == 1):
            found[letter] = place
    return found


def _size(call: Call, place: Place) -> int | None:
    where, axis = place
    if isinstance(where, str):
        return call.layer.kernel.shape[axis] if call.kind == "EinsumDense" else 1
    shapes = dict(zip((*call.inputs, *call.outputs), (*call.input_shapes, *call.shapes), strict=True))
    return shapes[where][axis]


def _sized(call: Call) -> Sequence[Place]:
    return list(_all(call).values()) if call.kind == "EinsumDense" or len(call.inputs) > 1 else ()


def _cost(rule: Convention, call: Call, *sizes: int) -> tuple[int, int]:
    """One multiplication for each combination of letters; kernel and bias as large as theirs say."""
    if call.kind == ATTENTION:
        left = dict(zip(_all(call), sizes, strict=True))
        pairs = left["t"] * left["s"] * left["n"]
        return 0, rule.mac * pairs * (left["h"] + left["d"])
    if call.kind != "EinsumDense":
        return 0, rule.mac * prod(sizes) if sizes else 0
    if (found := letters(call)) is None:
        return sum(prod(w.shape) for w in call.layer.weights), 0
    (_, kernel), made = found
    left = dict(zip(_all(call), sizes, strict=True))
    params, macs = prod(left[x] for x in kernel), rule.mac * prod(sizes)
    if call.layer.bias is not None:
        shape = call.layer.bias.shape
        tail = made[len(made) - len(shape) :]
        params += prod(left[x] if n > 1 or left[x] == 0 else n for x, n in zip(tail, shape, strict=True))
        macs += rule.bias * prod(left[x] for x in made[1:])
    return params, macs


def _products(call: Call, *sizes: float) -> list[Product]:
    """Letters of both operands but one are rows or summed over; several operands are not understood."""
    read, made = letters(call) or ([], "")
    left = dict(zip(_all(call), sizes, strict=True)) if len(read) > 1 else {}
    pairs = [(*read, made)] if len(read) == 2 else []
    if call.kind == ATTENTION:  # queries · keys, then · values
        pairs = [("btnh", "bsnh", "btns"), ("btns", "bsnd", made)]
    found = []
    for first, second, result in pairs:
        kept = (
            set(first) & set(result),
            set(first + second) - set(result),
            set(second) & set(result) - set(first),
        )
        found.append(tuple(prod(left.get(x, 1) for x in some) for some in kept))
    return found


def _run_dense(call: Call, w: Weights, x: tf.Tensor) -> tf.Tensor:
    y = tf.einsum(call.layer.equation, x, w["kernel"])
    y = y + w["bias"] if "bias" in w else y
    return y if call.layer.activation is None else call.layer.activation(y)


known = {"cost": _cost, "sized": _sized, "products": _products}
layer_class("EinsumDense", label=_dense, resize=_resize, run=_run_dense, **known)
layer_class("ops.Matmul", "ops.Einsum", ATTENTION, label=_product, **known)
