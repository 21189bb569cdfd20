"""A layer class that the project does not know, taught in one call."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

import keras
import numpy as np

from secateur.nets.graph import Call, kind_of
from secateur.nets.kernels import FILTERS, named_variables
from secateur.pruning.layers.costs import Cost, as_they_are, by_axes
from secateur.pruning.layers.labels import Labels
from secateur.pruning.layers.passing import passing
from secateur.pruning.layers.producers import making
from secateur.pruning.layers.registry import LAYERS, Label, Plain, layer_class, staying
from secateur.runs.errors import UsageError
from secateur.runs.suggest import nearest

Axes = Mapping[str, int]
NONE: Axes = {}


def register_layer(
    layer: type[keras.Layer], *, reads: Axes = NONE, makes: Axes = NONE, follows: Axes = NONE, size: str = "",
    stays: str = "", activation: bool = False, cost: Cost | None = None, plain: Plain | None = None,
) -> type[keras.Layer]:  # fmt: skip
    """Teaches the project a class of layers: to cut, count, time, search and code it. Channels come last.

    Args:
        layer: the class. Without more, each channel goes through by itself; several inputs meet as in `Add`.
        follows: weight → its axis for the channels that go through: {"gamma": -1} in a normalisation. Weights
            have the names that `add_weight(name=…)` gave them; axes may count from the end.
        reads, makes: weight → its axis for the channels that a layer reads, or makes: {"kernel": -2} and
            {"kernel": -1, "bias": -1} in a convolution.
        size: with `makes`, the option of `__init__` that holds the number of channels, "filters".
        stays: why no channel around the layer can be removed: "it mixes channels".
        activation: whether it is a non-linearity, behind which criteria and EKG look at channels.
        cost: (convention, call, channels in, channels out) → (parameters, operations of one image); None
            counts its weights, kernels (those that read) once at every position made.
        plain: layer → (class, configuration) of a layer of Keras that does the same, for `compact`; its
            weights, and its option `size`, have the same names. None keeps the class, which a compact model
            then needs.

    Returns the class; Keras finds it by its name in saved models from now on. The last call for a class
    counts. It needs a `get_config` with all arguments of `__init__`, and a `call` that takes sizes from
    weights and inputs and treats a channel of zeros like one that is not there. A package makes this call in
    a module that it offers as an entry point: "package.module.Class" of the group `secateur.layers`.

    Raises `UsageError` for no class of a layer, for one that the project knows, for options that do not go
    together; and, from `find_groups` on, for a weight that does not exist or has another size there.

        secateur.register_layer(Mish, activation=True)
        secateur.register_layer(Gain, follows={"gain": -1})
        secateur.register_layer(MyConv, reads={"kernel": -2}, makes={"kernel": -1}, size="filters")
        secateur.register_layer(Mixer, stays="it mixes channels")
    """
    kind = _check_class(layer)
    _check_options(layer, reads, makes, follows, size, stays)
    own = {**makes, **follows}
    layer_class(
        kind,
        label=_named(_label(reads, makes, follows, stays), reads, makes, follows),
        size=size,
        cost=cost or (as_they_are if stays else by_axes(reads, own, activation)),
        timed=bool(makes),
        activation=activation,
        plain=plain,
        origin=layer,
    )
    FILTERS[kind] = {name: (axis,) for name, axis in own.items() if name in reads or name.endswith("kernel")}
    foreign, named = kind != layer.__name__, keras.saving.get_registered_name(layer)
    if foreign and named == layer.__name__:  # no decorator has told Keras another name
        keras.saving.get_custom_objects()[layer.__name__] = layer
    return layer


def _label(reads: Axes, makes: Axes, follows: Axes, stays: str) -> Label:
    if stays:
        return staying(stays)
    return making(reads, makes) if makes else passing(follows)


def _named(label: Label, *several: Axes) -> Label:
    """The rule, for layers that have at least one of the weights named."""

    def checked(state: Labels, call: Call, labels: list[np.ndarray]) -> list[np.ndarray] | str:
        own = named_variables(call.layer)
        for axes in several:
            if axes and not axes.keys() & own.keys():
                raise UsageError(
                    f"Layer {call.name!r} has none of these weights. Received: {', '.join(axes)}; it has "
                    f"{', '.join(own) or 'no weights'}"
                )
        return label(state, call, labels)

    return checked


def _check_class(layer: type[keras.Layer]) -> str:
    """What `kind_of` calls the class. Raises `UsageError` for no layer, and for one that is known."""
    if not (isinstance(layer, type) and issubclass(layer, keras.Layer)):
        raise UsageError(f"register_layer takes a class of layers. Received: {layer!r}")
    kind = kind_of(layer)
    if kind == layer.__name__ and kind in LAYERS:
        raise UsageError(f"This class is known; register one that is derived from it. Received: {kind}")
    return kind


def _check_options(layer: type, reads: Axes, makes: Axes, follows: Axes, size: str, stays: str) -> None:
    """Raises `UsageError` for options that say different things, and for a size that is no option."""
    given = {"reads": reads, "makes": makes, "size": size}
    if len({bool(value) for value in given.values()}) > 1:
        missing = next(name for name, value in given.items() if not value)
        raise UsageError(f"A layer that makes channels needs reads, makes and size. Received: no {missing}")
    if sum(map(bool, (makes, follows, stays))) > 1:
        named = ", ".join(n for n, v in (("makes", makes), ("follows", follows), ("stays", stays)) if v)
        raise UsageError(f"Channels are made, go through, or stay: give one of these. Received: {named}")
    options = {name for c in layer.__mro__ for name in inspect.signature(c.__init__).parameters}
    if size and size not in options:
        raise UsageError(
            f"{layer.__name__} has no such option. Received: size={size!r}. {nearest(size, options)}"
        )
