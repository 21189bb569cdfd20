"""What a call costs: parameters and operations under a convention, as functions of its channels in and out.

Every function takes channels in and out and returns (parameters, operations of one image), each of the form
a·in·out + b·in + c·out + d with numbers that follow from the shapes of the dense network.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from typing import Any
from weakref import WeakKeyDictionary

import tensorflow as tf

from secateur.nets.graph import Call
from secateur.nets.kernels import named_variables
from secateur.pruning.conventions import Convention
from secateur.pruning.layers.profiling import macs_of
from secateur.runs.errors import first_line

Cost = Callable[[Convention, Call, int, int], tuple[int, int]]


def conv(rule: Convention, call: Call, n_in: int, n_out: int) -> tuple[int, int]:
    """Convolution with groups: kernel and bias; one multiply-accumulate for each weight and position made."""
    groups, n = call.layer.groups if hasattr(call.layer, "groups") else 1, call.input_shapes[0][-1]
    each = n_in // groups if groups != n else 1
    return _convolution(rule, call, prod(call.layer.kernel.shape[:-2]) * each * n_out, n_out)


def transposed(rule: Convention, call: Call, n_in: int, n_out: int) -> tuple[int, int]:
    """Transposed convolution: its kernel works once for each position read, its bias for each made."""
    kernel = prod(call.layer.kernel.shape[:-2]) * n_in * n_out
    bias = n_out * bool(call.layer.use_bias)
    read, made = prod(call.input_shapes[0][1:-1]), prod(call.shapes[0][1:-1])
    return kernel + bias, read * rule.mac * kernel + made * rule.bias * bias


def depthwise(rule: Convention, call: Call, n_in: int, n_out: int) -> tuple[int, int]:
    """Depthwise convolution: a kernel for each channel made."""
    return _convolution(rule, call, prod(call.layer.kernel.shape[:-2]) * n_out, n_out)


def separable(rule: Convention, call: Call, n_in: int, n_out: int) -> tuple[int, int]:
    """Depthwise kernel, then a pointwise one, at each position made; one bias."""
    inner = n_in * call.layer.depth_multiplier
    kernel = prod(call.layer.depthwise_kernel.shape[:-2]) * inner + inner * n_out
    return _convolution(rule, call, kernel, n_out)


def _convolution(rule: Convention, call: Call, kernel: int, n_out: int) -> tuple[int, int]:
    pixels, bias = prod(call.shapes[0][1:-1]), n_out * bool(call.layer.use_bias)
    return kernel + bias, pixels * (rule.mac * kernel + rule.bias * bias)


def dense(rule: Convention, call: Call, n_in: int, n_out: int, *places: int) -> tuple[int, int]:
    """Matrix and bias, at each position; `places` are the sizes of the other axes."""
    bias = n_out * (call.layer.bias is not None)
    return n_in * n_out + bias, prod(places) * (rule.mac * n_in * n_out + rule.bias * bias)


def embedding(rule: Convention, call: Call, n_in: int, n_out: int) -> tuple[int, int]:
    """A row for each word; looking it up is no operation."""
    return call.layer.input_dim * n_out, 0


def norm(rule: Convention, call: Call, n_in: int, n_out: int) -> tuple[int, int]:
    """BN: scale, shift and, where the convention counts them, two statistics a channel."""
    statistics = rule.norm_params - 2
    return (_vectors(call) + statistics) * n_out, rule.norm * prod(call.shapes[0][1:-1]) * n_out


def normalization(rule: Convention, call: Call, n_in: int, n_out: int) -> tuple[int, int]:
    """Mean and variance of each channel or of all, and how many values they are of."""
    each = n_out if call.layer._keep_axis else 1
    adapted = call.layer.input_mean is None and rule.norm_params > 2
    return (2 * each + 1) * adapted, rule.norm * prod(call.shapes[0][1:-1]) * n_out


def affine(rule: Convention, call: Call, n_in: int, n_out: int) -> tuple[int, int]:
    """Other normalisations: scale and shift a channel; their statistics are not stored."""
    return _vectors(call) * n_out, rule.norm * prod(call.shapes[0][1:-1]) * n_out


def _vectors(call: Call) -> int:
    return sum(getattr(call.layer, name, None) is not None for name in ("gamma", "beta"))


def relu(rule: Convention, call: Call, n_in: int, n_out: int) -> tuple[int, int]:
    """No parameters; an operation an element where the convention counts them."""
    return 0, rule.relu * prod(call.shapes[0][1:-1]) * n_out


def pool(rule: Convention, call: Call, n_in: int, n_out: int) -> tuple[int, int]:
    """Elements that a pooling reads."""
    read = prod(call.input_shapes[0][1:-1])
    made = prod(call.shapes[0][1:-1]) if len(call.shapes[0]) == len(call.input_shapes[0]) else 1
    window = prod(getattr(call.layer, "pool_size", (read // made,)))
    return 0, {"": 0, "window": made * window * n_out, "input": read * n_in}[rule.pool]


def prelu(rule: Convention, call: Call, n_in: int, n_out: int) -> tuple[int, int]:
    """A slope for each channel or for all, at each position that does not share it."""
    shape, channels = call.layer.alpha.shape, call.shapes[0][-1]
    slopes = prod(shape) // channels * n_out if channels in shape else prod(shape)
    return slopes, rule.relu * prod(call.shapes[0][1:-1]) * n_out


def as_they_are(rule: Convention, call: Call, n_in: int, n_out: int) -> tuple[int, int]:
    """All weights of a layer, and what TensorFlow multiplies in it.

    Where that cannot be told (`guessed`), one multiplication with each matrix at every position made.
    """
    macs = _traced(call)
    weights = getattr(call.layer, "weights", ())
    if not isinstance(macs, int):
        matrices = sum(prod(w.shape) for w in weights if len(w.shape) > 1)
        macs = prod(call.shapes[0][1:-1]) * matrices
    return sum(prod(w.shape) for w in weights), rule.mac * macs


def guessed(call: Call) -> str | None:
    """Why the operations of a layer that is not understood have been guessed."""
    found = _traced(call)
    return None if isinstance(found, int) else found


_TRACED: WeakKeyDictionary[Any, dict[tuple, int | str]] = WeakKeyDictionary()


def _traced(call: Call) -> int | str:
    """Multiply-accumulates of a call for one sample, or why they are not known."""
    known = _TRACED.setdefault(call.layer, {})
    if (key := call.input_shapes) not in known:
        tensors = call.node.arguments.keras_tensors
        specs = [tf.TensorSpec((1, *x.shape[1:]), x.dtype) for x in tensors]
        try:
            known[key] = macs_of(lambda *xs: call.run(xs, training=False), specs)
        except Exception as error:  # a layer of somebody else may raise anything
            known[key] = first_line(error)
    return known[key]


def by_axes(reads: Mapping[str, int], makes: Mapping[str, int], activation: bool) -> Cost:
    """The cost of a layer whose weights have an axis for what it reads or makes; it has all others, too.

    Kernels, which read or are called so, work once at each position made; `activation` counts as ReLU.
    """

    def cost(rule: Convention, call: Call, n_in: int, n_out: int) -> tuple[int, int]:
        params, once = 0, rule.relu * n_out * activation
        stored = {id(weight) for weight in call.layer.weights}  # no state of random numbers
        for name, weight in named_variables(call.layer).items():
            if id(weight) in stored:
                sizes = {axes[name]: n for axes, n in ((reads, n_in), (makes, n_out)) if name in axes}
                shape = dict(enumerate(weight.shape)) | {a % len(weight.shape): n for a, n in sizes.items()}
                size = prod(shape.values())
                kernel = name in reads or (name in makes and name.endswith("kernel"))
                params, once = params + size, once + size * (rule.mac if kernel else rule.bias)
        return params, prod(call.shapes[0][1:-1]) * once

    return cost
