"""Operations of `keras.ops` on weights, as `x * self.gamma`, in the form of layers of Keras that do the same.

A weight may go through operations of its own before it meets the data: a standardised kernel becomes the
kernel of a convolution. Layers hold copies; each reading of the graph fills them anew.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

Value = Callable[[], np.ndarray]
DEPTHWISE = {3: keras.layers.DepthwiseConv1D, 4: keras.layers.DepthwiseConv2D}
CONVS = {3: keras.layers.Conv1D, 4: keras.layers.Conv2D, 5: keras.layers.Conv3D}
TRANSPOSED = {
    3: keras.layers.Conv1DTranspose,
    4: keras.layers.Conv2DTranspose,
    5: keras.layers.Conv3DTranspose,
}


class WeightsRefused(Exception):
    """An operation with weights that is no layer of Keras, in words."""


@dataclass
class Weighted:
    """An operation with weights as a layer.

    Attributes:
        make, config: class of Keras and its options but for the name.
        values: name of a weight → function that computes it from the variables as they are now.
        read, outputs: the symbolic tensors.
        name: attribute of the first weight; variables: all that go in, by which a layer is known again.
        bias_shape: of the weight "bias"; () where there is none.
    """

    make: type
    config: dict
    values: dict[str, Value]
    read: Any
    outputs: list[Any]
    name: str
    variables: list[Any]
    operation: Any
    bias_shape: tuple = ()

    def layer(self, name: str) -> keras.Layer:
        """A layer with the weights of now, called once on a symbolic tensor."""
        trains = any(variable.trainable for variable in self.variables)
        made = self.make(**self.config, name=name, trainable=trains)
        made(keras.KerasTensor(self.read.shape, self.read.dtype))
        for weight, value in self.values.items():
            getattr(made, weight).assign(value())
        return made


def weighted(
    layer: Any,
    nodes: list[Any],
    inputs: list[Any],
    outputs: list[Any],
    weights: Mapping[int, tuple[str, Any]],
) -> list[Any]:
    """The calls inside a layer, those that read weights as `Weighted`, those of weights alone left out.

    Args:
        layer: whose calls they are.
        nodes: Keras' records of calls, producers first.
        inputs, outputs: symbolic tensors.
        weights: id of a symbolic tensor that stands for a weight → (name, variable).

    Raises `WeightsRefused` where no layer of Keras does the same.
    """
    values = _Values(weights)
    data = set(map(id, inputs))
    readers = Counter(id(t) for node in nodes for t in node.arguments.keras_tensors)
    readers.update(map(id, outputs))
    made_by: dict[int, Weighted] = {}
    found: list[Any] = []
    for node in nodes:
        own = [t for t in node.arguments.keras_tensors if id(t) not in data]
        variables = [x for x in keras.tree.flatten(_arguments(node)) if isinstance(x, keras.Variable)]
        read = [t for t in node.arguments.keras_tensors if id(t) in data]
        if not read:
            values.add(node)
            continue
        data.update(map(id, node.outputs))
        if not own and not variables:
            found.append(node)
            continue
        before = made_by.get(id(read[0])) if readers[id(read[0])] == 1 else None
        new = _Operation(layer, node, read, values).as_layer(before)
        if new is not before:
            found.append(new)
        made_by |= {id(t): new for t in node.outputs}
    if any(id(t) not in data for t in outputs):
        raise WeightsRefused("it makes a tensor of weights alone")
    return found


def _arguments(node: Any) -> list[Any]:
    return [*node.arguments.args, *node.arguments.kwargs.values()]


class _Values:
    """What symbolic tensors of weights stand for."""

    def __init__(self, weights: Mapping[int, tuple[str, Any]]) -> None:
        self._weights, self._made_by = weights, {}

    def add(self, node: Any) -> None:
        self._made_by |= {id(t): (node, i) for i, t in enumerate(node.outputs)}

    def of(self, tensor: Any) -> Any:
        """The value now, of a symbolic tensor or a variable."""
        if isinstance(tensor, keras.Variable):
            return keras.ops.convert_to_tensor(tensor.value)
        if id(tensor) in self._weights:
            held = self._weights[id(tensor)][1]
            return keras.ops.cast(getattr(held, "value", held), tensor.dtype)
        node, place = self._made_by[id(tensor)]
        read = {id(t): self.of(t) for t in node.arguments.keras_tensors}
        args, kwargs = node.arguments.fill_in(read)
        return keras.tree.flatten(node.operation(*args, **kwargs))[place]

    def behind(self, tensor: Any) -> list[tuple[str, Any]]:
        """(Name, variable) of all weights that a tensor is computed from."""
        if isinstance(tensor, keras.Variable):
            return [(re.sub(r"\W", "_", tensor.name), tensor)]
        if id(tensor) in self._weights:
            return [row for row in [self._weights[id(tensor)]] if _is_variable(row[1])]
        if id(tensor) not in self._made_by:
            return []
        node, _ = self._made_by[id(tensor)]
        inner = [*node.arguments.keras_tensors, *filter(_is_variable, keras.tree.flatten(_arguments(node)))]
        own = [(node.operation.name, v) for v in getattr(node.operation, "variables", ())]
        return own + [row for one in inner for row in self.behind(one)]


def _is_variable(x: Any) -> bool:
    return isinstance(x, keras.Variable)


class _Operation:
    """One operation that reads data and weights."""

    def __init__(self, layer: Any, node: Any, read: list[Any], values: _Values) -> None:
        self.layer, self.node, self.kind = layer, node, type(node.operation).__name__
        self.operands = [x for x in keras.tree.flatten(_arguments(node)) if _is_tensor(x)]
        others = [x for x in self.operands if all(x is not t for t in read)]
        named = [row for x in others for row in values.behind(x)]
        if len(read) != 1 or len(others) != 1 or isinstance(node.operation, keras.Layer) or not named:
            names = ", ".join(name for name, _ in named) or "weights"
            raise WeightsRefused(f"no layer of Keras does what it does with {names} ({self.kind})")
        self.x, self.w = read[0], others[0]
        self.first = self.operands[0] is self.x
        self.name, self.variables = named[0][0], [variable for _, variable in named]
        self.value: Value = lambda: keras.ops.convert_to_numpy(values.of(others[0]))

    def as_layer(self, before: Weighted | None) -> Weighted:
        """The layer; `before`, with a bias, where only this operation reads what that makes."""
        if self.kind in ("Add", "Subtract"):
            return self._shift(before)
        rule = getattr(self, f"_{self.kind.lower()}", None)
        if rule is None:
            raise self._refused()
        return rule()

    def _refused(self) -> WeightsRefused:
        return WeightsRefused(f"no layer of Keras does what it does with {self.name} (ops.{self.kind})")

    def _layer(self, make: type, config: dict, values: dict[str, Value]) -> Weighted:
        config = config | {"dtype": self.layer.dtype_policy}
        outputs, variables = list(self.node.outputs), list(self.variables)
        return Weighted(make, config, values, self.x, outputs, self.name, variables, self.node.operation)

    # --- element by element --------------------------------------------------------------------------------

    def _axes(self) -> list[int]:
        """Axes of the data along which the weight changes. Raises `WeightsRefused` where it is no such."""
        shape, full = self._aligned(), tuple(self.x.shape)
        fits = len(shape) == len(full) > 1 and shape[0] == 1 and full[-1] is not None
        if not fits or any(n not in (1, m) for n, m in zip(shape, full, strict=True)):
            raise self._refused()
        return [axis for axis, n in enumerate(shape) if n != 1]

    def _aligned(self) -> tuple:
        shape = tuple(self.w.shape)
        return (1,) * (len(self.x.shape) - len(shape)) + shape

    def _spread(self, axes: list[int], value: Value | None = None) -> Value:
        """The weight with these axes of the data alone."""
        sizes, aligned = [self.x.shape[axis] for axis in axes], self._aligned()
        squeezed = [n for axis, n in enumerate(aligned) if axis in axes]
        value = value or self.value
        return lambda: np.broadcast_to(value().reshape(squeezed), sizes)

    def _scale(self, axes: list[int], kernel: Value) -> Weighted:
        rank, last = len(self.x.shape), len(self.x.shape) - 1
        if axes == [last] and rank in DEPTHWISE:
            shape = (*[1] * (rank - 2), self.x.shape[-1], 1)
            config = {"kernel_size": 1, "use_bias": False}
            return self._layer(DEPTHWISE[rank], config, {"kernel": lambda: kernel().reshape(shape)})
        letters = string.ascii_lowercase[:rank]
        equation = f"{letters},{''.join(letters[axis] for axis in axes)}->{letters}"
        config = {"equation": equation, "output_shape": tuple(self.x.shape[1:])}
        return self._layer(keras.layers.EinsumDense, config, {"kernel": kernel})

    def _multiply(self) -> Weighted:
        axes = sorted({*self._axes(), len(self.x.shape) - 1})
        return self._scale(axes, self._spread(axes))

    def _divide(self) -> Weighted:
        if not self.first:
            raise self._refused()
        axes, value = sorted({*self._axes(), len(self.x.shape) - 1}), self.value
        return self._scale(axes, self._spread(axes, lambda: 1 / value()))

    _truedivide = _divide

    def _shift(self, before: Weighted | None) -> Weighted:
        """A bias, of the layer before or of one whose kernel is one (minus one for `weight − data`)."""
        axes, last, own = self._axes(), len(self.x.shape) - 1, self.value
        minus = self.kind == "Subtract"
        axes = list(range(min([*axes, last]), last + 1))
        aligned, shape = self._aligned()[axes[0] :], tuple(self.x.shape[a] for a in axes)
        wide = tuple(
            m if a > 1 or i == last - axes[0] else 1
            for i, (a, m) in enumerate(zip(aligned, shape, strict=True))
        )

        def bias() -> np.ndarray:
            value = own().reshape(aligned)
            return np.broadcast_to(-value if minus and self.first else value, wide)

        by_channel = len(axes) == 1
        joins = before and "bias" not in before.values and (by_channel or "equation" in before.config)
        if before and not minus and before.bias_shape == wide:  # a class token, and its position
            token = before.values["bias"]
            before.values["bias"] = lambda: token() + bias()
            return self._instead_of(before)
        if not joins or (minus and not self.first):
            size = self.x.shape[-1]
            sign = -1 if minus and not self.first else 1
            ones: Value = lambda: np.full((size,), sign, np.float32)  # noqa: E731
            if by_channel:
                before = self._scale([last], ones)
            else:
                before = self._einsum_ones(ones)
        assert before
        if "equation" in before.config:
            out = before.config["equation"].partition("->")[2]
            before.config["bias_axes"] = "".join(out[a] for a in axes if wide[a - axes[0]] > 1 or a == last)
        else:
            before.config["use_bias"] = True
        before.values["bias"], before.bias_shape = bias, wide
        return self._instead_of(before)

    def _instead_of(self, before: Weighted) -> Weighted:
        before.outputs = list(self.node.outputs)
        before.variables += [v for v in self.variables if all(v is not known for known in before.variables)]
        return before

    def _einsum_ones(self, ones: Value) -> Weighted:
        letters = string.ascii_lowercase[: len(self.x.shape)]
        config = {"equation": f"{letters},{letters[-1]}->{letters}", "output_shape": tuple(self.x.shape[1:])}
        return self._layer(keras.layers.EinsumDense, config, {"kernel": ones})

    # --- kernels -------------------------------------------------------------------------------------------

    def _kernel(self, makes: Mapping[int, type], **config: Any) -> Weighted:
        rank, own = len(self.x.shape), self.node.operation
        if not self.first or rank not in makes or own.data_format not in (None, "channels_last"):
            raise self._refused()
        options = {name: getattr(own, name) for name in ("strides", "padding", "dilation_rate")}
        config = config | options | {"kernel_size": tuple(self.w.shape[: rank - 2]), "use_bias": False}
        return self._layer(makes[rank], config, {"kernel": self.value})

    def _conv(self) -> Weighted:
        groups = self.x.shape[-1] // self.w.shape[-2]
        return self._kernel(CONVS, filters=self.w.shape[-1], groups=groups)

    def _depthwiseconv(self) -> Weighted:
        return self._kernel(DEPTHWISE, depth_multiplier=self.w.shape[-1])

    def _convtranspose(self) -> Weighted:
        padding = self.node.operation.output_padding
        return self._kernel(TRANSPOSED, filters=self.w.shape[-2], output_padding=padding)

    def _matmul(self) -> Weighted:
        if not self.first or len(self.w.shape) != 2:
            raise self._refused()
        config = {"units": self.w.shape[-1], "use_bias": False}
        return self._layer(keras.layers.Dense, config, {"kernel": self.value})

    _dot = _matmul

    def _tensordot(self) -> Weighted:
        axes = self.node.operation.axes
        if axes != 1 and keras.tree.flatten(axes) not in ([-1, 0], [len(self.x.shape) - 1, 0]):
            raise self._refused()
        return self._matmul()

    def _einsum(self) -> Weighted:
        equation = self.node.operation.subscripts.replace(" ", "")
        if not self.first or "->" not in equation:
            raise self._refused()
        config = {"equation": equation, "output_shape": tuple(self.node.outputs[0].shape[1:])}
        return self._layer(keras.layers.EinsumDense, config, {"kernel": self.value})


def _is_tensor(x: Any) -> bool:
    return isinstance(x, (keras.KerasTensor, keras.Variable))
