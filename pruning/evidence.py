"""What criteria look at, read off a model: weights, gradients, scales, activations. Nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from pruning.batches import batches
from pruning.criteria import Criterion
from pruning.cross_entropy import Loss, cross_entropy
from pruning.groups import Analysis, ChannelGroup
from pruning.weights import named_variables
from runs.errors import UsageError

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Place:
    """Where channels are seen: one axis of a layer's weight, or the last axis of a tensor (`tensor` ≥ 0)."""

    layer: str = ""
    weight: str = ""
    axis: int = -1
    tensor: int = -1


Seen = tuple[Place, np.ndarray]  # and the channel of the group that each position is; −1: not of this group


class Evidence:
    """The arrays behind a criterion.

    Args:
        model: functional model.
        analysis: its groups.
        data: images and labels, or images alone; None where the criterion needs neither.
        loss: (labels, outputs of the model) → losses or their mean; None takes the cross-entropy.
        batch_size: images that are run at a time.
    """

    def __init__(
        self, model: keras.Model, analysis: Analysis, data: Any = None, loss: Loss | None = None,
        batch_size: int = 128,
    ) -> None:  # fmt: skip
        self._model, self._analysis = model, analysis
        self._layers = analysis.graph.layers
        self._images, self._labels = data if isinstance(data, tuple) else (data, None)
        if isinstance(self._labels, list) and not np.ndim(self._labels[0]):  # and not one array per output
            self._labels = np.array(self._labels)
        self._loss = loss or (lambda labels, outputs: cross_entropy(analysis, labels, outputs))
        self._batch_size = batch_size
        self._variables: dict[str, dict[str, keras.Variable]] = {}

    def places(self, group: ChannelGroup, criterion: Criterion) -> list[Seen]:
        """Everywhere a criterion sees a group, in the order of the graph."""
        if criterion.source == "activations":
            return self._shown(group)
        if criterion.source == "scales":
            found = ((m, "gamma") for m in group.members if m.role == "follower" and "gamma" in m.axes)
        else:
            found = ((m, self._kernel(m)) for m in group.members if m.role in criterion.roles)
        return [
            (Place(m.layer, name, m.axes[name]), m.index) for m, name in found if name in self._named(m.layer)
        ]

    def weights(self, place: Place) -> np.ndarray:
        """The filters (n, weights) of a place, as they act: what a masked layer has switched off is zero."""
        named = self._named(place.layer)
        arrays = {name: np.asarray(named[name]) for name in {place.weight, "mask"} & named.keys()}
        layer = self._layers[place.layer]
        array = (layer.folded(arrays) if hasattr(layer, "folded") else arrays)[place.weight]
        return _filters(array, place.axis)

    def batches(self, places: list[Place], criterion: Criterion) -> Iterator[tuple[int, dict[Place, Arrays]]]:
        """Number of images, and for each place the arrays that data gives, batch by batch."""
        self._check_data(criterion)
        for part, images in batches(self._analysis, self._images, self._batch_size):
            yield part.stop - part.start, self._batch(part, images, places, criterion)

    def _batch(
        self, part: slice, images: list[tf.Tensor], places: list[Place], criterion: Criterion
    ) -> dict[Place, Arrays]:
        if not criterion.needs_labels:
            values = self._run(images)
            return {p: {"activations": _maps(values[p.tensor])} for p in places}
        labels = keras.tree.map_structure(lambda y: y[part], self._labels)
        tensors = criterion.source == "activations"
        watched = [] if tensors else [self._named(p.layer)[p.weight].value for p in places]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(watched)
            values = self._run(images, tape, {p.tensor for p in places})
            outputs = [values[t] for t in self._analysis.graph.outputs]
            loss = tf.reduce_mean(self._loss(labels, outputs[0] if len(outputs) == 1 else outputs))
        sources = [values[p.tensor] for p in places] if tensors else watched
        found = tape.gradient(loss, sources, unconnected_gradients="zero")
        pairs = zip(places, found, strict=True)
        if not tensors:
            return {p: {"gradients": _filters(_array(g), p.axis)} for p, g in pairs}
        return {
            p: {"activations": _maps(values[p.tensor]), "activation_gradients": _maps(g)} for p, g in pairs
        }

    def _run(self, images: list, tape: tf.GradientTape | None = None, watch: set | None = None) -> dict:
        """All tensors of the graph, at inference: no dropout, averages of BN as they are."""
        graph = self._analysis.graph
        values = dict(zip(graph.inputs, images, strict=True))
        for call in graph.calls:
            if call.kind != "InputLayer":
                made = call.run([values[t] for t in call.inputs], training=False)
                values |= dict(zip(call.outputs, made, strict=True))
            for tensor in set(call.outputs) & (watch or set()):
                tape.watch(values[tensor])
        return values

    def _check_data(self, criterion: Criterion) -> None:
        if self._images is None:
            raise UsageError(
                f"Criterion {criterion.name!r} looks at images: give data=(images, labels). "
                "Received: data=None"
            )
        arrays = keras.tree.flatten((self._images, self._labels))
        if strange := [type(x).__name__ for x in arrays if x is not None and not hasattr(x, "shape")]:
            raise UsageError(
                "data needs arrays: data=(images, labels), such as one large batch of a pipeline. "
                f"Received: {strange[0]}"
            )
        if self._labels is None and criterion.needs_labels:
            raise UsageError(
                f"Criterion {criterion.name!r} needs the gradient of a loss: give data=(images, labels). "
                "Received: no labels"
            )
        sizes = {len(x) for x in arrays if x is not None}
        if len(sizes) != 1 or sizes == {0}:
            raise UsageError(
                f"data needs as many labels as images, and at least one. Received: {sorted(sizes)}"
            )

    def _shown(self, group: ChannelGroup) -> list[Seen]:
        """Behind the group's non-linearities; where it has none, what its consumers read."""
        calls = self._analysis.calls
        readers, makers = (set(group.layers(role)) for role in ("consumer", "producer"))
        candidates = (
            group.sites,
            [t for c in calls if c.name in readers for t in c.inputs],
            [t for c in calls if c.name in makers for t in c.outputs],
        )
        for tensors in candidates:
            rows = [(t, row) for t in dict.fromkeys(tensors) for row in self._analysis.parts[t]]
            if seen := [(Place(tensor=t), index) for t, (name, index) in rows if name == group.name]:
                return seen
        return []

    def _named(self, layer: str) -> dict[str, keras.Variable]:
        if layer not in self._variables:
            self._variables[layer] = named_variables(self._layers[layer])
        return self._variables[layer]

    def _kernel(self, member) -> str:
        """The weight with a filter for each channel; a scale where there is no more than that."""
        named = self._named(member.layer)
        wide = (n for n in member.axes if n in named and len(named[n].shape) > 1)
        return next(wide, "gamma" if "gamma" in member.axes else "")


def _filters(array: np.ndarray, axis: int) -> np.ndarray:
    """(n, weights): a view where the axis is the last one."""
    wide = array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)
    return np.moveaxis(wide, axis, -1).reshape(-1, array.shape[axis]).T


def _maps(tensor: tf.Tensor) -> np.ndarray:
    """(images, positions, n)."""
    array = tf.cast(tensor, tf.float32).numpy()
    return array.reshape(len(array), -1, array.shape[-1])


def _array(gradient: Any) -> np.ndarray:
    return tf.convert_to_tensor(gradient).numpy()  # an embedding's gradient comes as slices
