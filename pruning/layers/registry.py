"""The table of layer classes: one entry says all that pruning knows of one."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np

from secateur.nets.copies import config_of
from secateur.nets.graph import KNOWN, Call, kind_of
from secateur.pruning.layers.costs import Cost, as_they_are
from secateur.pruning.layers.labels import Labels
from secateur.runs.errors import UsageError
from secateur.runs.registry import Registry

Label = Callable[[Labels, Call, list[np.ndarray]], "list[np.ndarray] | str"]
Plain = Callable[[Any], tuple[type, dict]]
Place = tuple[str | int, int]  # weight or tensor, and an axis of it
Product = tuple[float, float, float]  # rows, columns read, columns made


@dataclass(frozen=True)
class Cut:
    """What is left of the tensors that a layer reads and makes: sizes along each axis, without the batch.

    None where the size is open or where what is left is no box.

    Attributes:
        weights: shapes of the layer's weights by name.
        axis, axis_made: the axes (without batch) along which the first tensor read, and made, has channels.
        alive: along `axis`, which positions are left; None: all.
        pad: how many of the channels that a padding adds are left, (front, back); None: it adds none.
    """

    inputs: tuple[tuple[int | None, ...], ...]
    outputs: tuple[tuple[int | None, ...], ...]
    weights: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    axis: int = -1
    axis_made: int = -1
    alive: np.ndarray | None = None
    pad: tuple[int, int] | None = None


@dataclass(frozen=True)
class LayerClass:
    """All that pruning knows of a layer class or an operation. Axes of kernels: `nets.kernels.FILTERS`.

    Attributes:
        label: (state, call, labels of its inputs) → labels of its outputs; or the reason, a string, why the
            channels around this call must stay.
        size: the option with the number of channels that it makes; "" where that follows from its inputs.
        resize: (configuration, call, what is left) → configuration, where more than `size` changes.
        replace: (call, what is left, name) → what is called in its place with the same arguments, where the
            arguments of a call name channels; None: the layer itself.
        cost: (convention, call, channels in, channels out) → parameters and operations; None: it has none.
            Where `sized` is given it takes the sizes of those axes instead; it is linear in each of them.
        sized: call → the axes that its cost depends on: (weight by name, or number of a tensor, axis).
        timed: whether it computes so much that its milliseconds are measured by themselves.
        products: (call, the sizes that `cost` takes) → the products of matrices that it computes, as (rows,
            columns read, columns made): what its milliseconds are measured as in place of the layer itself.
        activation: whether it is a non-linearity: what it makes shows how much a channel does.
        run: (call, weights by name, tensors) → what it makes, with weights of any width and the statistics
            of the batch; the shapes of this call are None where a plan can cut. None: what the layer itself
            makes with these weights.
        plain: layer → class and configuration of the layer of Keras that does the same; None: it is plain.
        masked: layer → class and configuration of the layer of ours that does the same with a "mask", for a
            layer in which channels of zeros are not as good as removed ones; or → None, where they are.
        refit: (layer, its weights as arrays, the layer that takes them) → the arrays to give it, for a layer
            that computes with its sizes.
    """

    label: Label
    size: str = ""
    resize: Callable[[dict, Call, Cut], dict] | None = None
    replace: Callable[[Call, Cut, str], Callable | None] | None = None
    cost: Cost | None = None
    timed: bool = False
    products: Callable[..., list[Product]] | None = None
    activation: bool = False
    run: Callable[..., Any] | None = None
    plain: Plain | None = None
    sized: Callable[[Call], Sequence[Place]] | None = None
    masked: Callable[[Any], tuple[type, dict] | None] | None = None
    refit: Callable[[Any, dict, Any], dict] | None = None

    def resized(self, config: dict, call: Call, left: Cut) -> dict:
        """The configuration of the layer with what is left of it."""
        if self.size:
            config = config | {self.size: left.outputs[0][-1]}
        return self.resize(config, call, left) if self.resize else config


def _refuse(found: Any, name: str) -> None:
    raise UsageError(f"Loading it must call register_layer with the class. Received: entry point {name}")


LAYERS: Registry[LayerClass] = Registry(
    "layer class", "layers", folder="secateur.pruning.layers", accept=_refuse
)
"""By what `nets.graph.kind_of` calls the class."""


@functools.cache  # a class that nobody knows is looked for among installed packages, once
def find(kind: str) -> LayerClass | None:
    """What is known of a class, by the name that `nets.graph.kind_of` gives it."""
    return LAYERS.get(kind)


KNOWN.append(find)  # a class that is taught here is not unfolded


def staying(reason: str) -> Label:
    """The label rule of a layer around which all channels stay."""
    return lambda state, call, labels: reason


def layer_class(*names: str, origin: Any = None, **known: Any) -> None:
    """Registers classes that are alike; operations are called "ops.Add". Takes what `LayerClass` does."""
    for name in names:
        LAYERS.register(LayerClass(**known), name=name, origin=origin or known["label"])
    find.cache_clear()


def find_installed() -> None:
    """Imports what installed packages offer, so that Keras finds their classes in saved models."""
    for kind in LAYERS:
        find(kind)


def of_a_frame(call: Call) -> Call:
    """The call inside of a `TimeDistributed` as one of single frames; any other call as it is."""
    if call.kind != "TimeDistributed":
        return call
    sizes = ([(s[0], *s[2:]) for s in shapes] for shapes in (call.input_shapes, call.shapes))
    input_shapes, shapes = map(tuple, sizes)
    return replace(call, layer=call.layer.layer, input_shapes=input_shapes, shapes=shapes)


def cost_of(call: Call) -> Cost | None:
    """Parameters and operations of a call, as a function of its channels; None where it costs nothing.

    A layer that is not understood costs what TensorFlow computes in it.
    """
    if known := find(call.kind):
        return known.cost
    foreign = "." in call.kind and isinstance(call.layer, keras.Layer)
    return as_they_are if foreign or getattr(call.layer, "weights", ()) else None


def sized(call: Call) -> Sequence[Place] | None:
    """The axes that `cost_of` a call is a function of; None: the channels that it reads and makes."""
    known = find(call.kind)
    return known.sized(call) if known and known.sized else None


def last_and_others(call: Call) -> list[Place]:
    """The channels at the end that a call reads and makes, and all other axes of what it makes."""
    read, made = call.inputs[0], call.outputs[0]
    return [(read, -1), (made, -1), *((made, axis) for axis in range(1, len(call.shapes[0]) - 1))]


def is_activation(call: Call) -> bool:
    """Whether its output is what a non-linearity let through: where a gate of its channels would sit."""
    call = of_a_frame(call)
    own = getattr(call.layer, "activation", None)
    if own is not None:
        return own is not keras.activations.linear
    known = find(call.kind)
    return known is not None and known.activation


def own(layer: Any) -> tuple[type, dict]:
    """Class and configuration of the layer itself."""
    return type(layer), config_of(layer)


def with_mask(layer: Any) -> tuple[type, dict]:
    """Those of the layer that does the same, in which channels of zeros are as good as none."""
    known = find(kind_of(type(layer)))
    return (known.masked(layer) if known and known.masked else None) or own(layer)


def plain(layer: Any) -> tuple[type, dict]:
    """Class and configuration of the layer of Keras that does the same as this one."""
    known = find(kind_of(type(layer)))
    return known.plain(layer) if known and known.plain else own(layer)


def plain_twin(make: type[keras.Layer], **more: Any) -> Plain:
    """The `plain` of a masked layer: class `make`, its own options but for initial values, and `more`."""

    def twin(layer: Any) -> tuple[type, dict]:
        own = {name: x for name, x in layer.get_config().items() if not name.endswith("initializer")}
        return make, own | more

    return twin
