"""The table of layer classes: one entry says all that pruning knows of one."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
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


@dataclass(frozen=True)
class Cut:
    """What is left of the tensors that a layer reads and makes: sizes along each axis, without the batch.

    None where the size is open or where what is left is no box.
    """

    inputs: tuple[tuple[int | None, ...], ...]
    outputs: tuple[tuple[int | None, ...], ...]


@dataclass(frozen=True)
class LayerClass:
    """All that pruning knows of a layer class or an operation. Axes of kernels: `nets.kernels.FILTERS`.

    Attributes:
        label: (state, call, labels of its inputs) → labels of its outputs; or the reason, a string, why the
            channels around this call must stay.
        size: the option with the number of channels that it makes; "" where that follows from its inputs.
        resize: (configuration, call, what is left) → configuration, where more than `size` changes.
        cost: (convention, call, channels in, channels out) → parameters and operations; None: it has none.
        timed: whether it computes so much that its milliseconds are measured by themselves.
        activation: whether it is a non-linearity: what it makes shows how much a channel does.
        run: (call, weights by name, tensors) → what it makes, with weights of any width and the statistics
            of the batch; the shapes of this call are None where a plan can cut. None: what the layer itself
            makes with these weights.
        plain: layer → class and configuration of the layer of Keras that does the same; None: it is plain.
    """

    label: Label
    size: str = ""
    resize: Callable[[dict, Call, Cut], dict] | None = None
    cost: Cost | None = None
    timed: bool = False
    activation: bool = False
    run: Callable[..., Any] | None = None
    plain: Plain | None = None

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

    A layer that is not understood has the weights that it has.
    """
    if known := find(call.kind):
        return known.cost
    return as_they_are if getattr(call.layer, "weights", ()) else None


def is_activation(call: Call) -> bool:
    """Whether its output is what a non-linearity let through: where a gate of its channels would sit."""
    call = of_a_frame(call)
    own = getattr(call.layer, "activation", None)
    if own is not None:
        return own is not keras.activations.linear
    known = find(call.kind)
    return known is not None and known.activation


def plain(layer: Any) -> tuple[type, dict]:
    """Class and configuration of the layer of Keras that does the same as this one."""
    known = find(kind_of(type(layer)))
    return known.plain(layer) if known and known.plain else (type(layer), config_of(layer))


def plain_twin(make: type[keras.Layer], **more: Any) -> Plain:
    """The `plain` of a masked layer: class `make`, its own options but for initial values, and `more`."""

    def twin(layer: Any) -> tuple[type, dict]:
        own = {name: x for name, x in layer.get_config().items() if not name.endswith("initializer")}
        return make, own | more

    return twin
