"""What criteria look at, read off a model: weights, gradients, scales, activations. Nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from math import ceil
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from secateur.nets.kernels import named_variables
from secateur.nets.task import Task
from secateur.pruning.groups.analysis import Analysis
from secateur.pruning.groups.group import ChannelGroup
from secateur.pruning.score.batches import MOST, batches, fitting, parts
from secateur.pruning.score.curvature import hessian_diagonal, signs, squared_gradients
from secateur.pruning.score.places import Place, Seen, places_of
from secateur.pruning.score.registry import Criterion
from secateur.runs.errors import UsageError

Arrays = dict[str, np.ndarray]
PROBES = 32  # behind an estimated Hessian, for all blocks of images together


class Evidence:
    """The arrays behind a criterion.

    Args:
        analysis: of a functional model.
        data: images and labels, or images alone; None where the criterion needs neither.
        task: of the model, for gradients of its loss; None where the criterion needs none.
        batch_size: images of a batch; None: see `batches`.
    """

    def __init__(
        self, analysis: Analysis, data: Any = None, task: Task | None = None, batch_size: int | None = None
    ) -> None:
        self._analysis, self._layers = analysis, analysis.graph.layers
        self._images, self._labels = data if isinstance(data, tuple) else (data, None)
        if isinstance(self._labels, list) and not any(map(np.ndim, self._labels)):  # no array per output
            self._labels = np.array(self._labels)
        self._task, self._batch_size = task, batch_size
        self._named = {
            path: named_variables(layer)
            for path, layer in self._layers.items()
            if getattr(layer, "variables", ())
        }

    def places(self, group: ChannelGroup, criterion: Criterion) -> list[Seen]:
        """Everywhere a criterion sees a group, in the order of the graph."""
        return places_of(group, criterion, self._analysis, self._named)

    def weights(self, place: Place) -> np.ndarray:
        """The filters (n, weights) of a place, as they act: what a masked layer has switched off is zero."""
        named = self._named[place.layer]
        arrays = {name: np.asarray(named[name]) for name in {place.weight, "mask"} & named.keys()}
        layer = self._layers[place.layer]
        array = (layer.folded(arrays) if hasattr(layer, "folded") else arrays)[place.weight]
        return _filters(array, place.axis)

    def batches(
        self, places: list[Place], criterion: Criterion, rng: np.random.Generator
    ) -> Iterator[tuple[int, dict[Place, Arrays]]]:
        """Number of images, and for each place the arrays that data gives, batch by batch.

        A criterion that sees "all" has one batch. Derivatives by weights are means over a batch, of which no
        more is run at once than fits into `batches.MEMORY`; by default it has 128 images. Activations
        are there for the whole batch, so that by default it has as many images as fit, 128 at most.
        """
        _check_data(criterion, self._images, self._labels)
        if self._task and criterion.needs_labels:
            self._task.check(self._labels, self._analysis.graph.output_shapes[0])
        count = len(keras.tree.flatten(self._images)[0])
        if criterion.source == "activations":
            size = self._batch_size or fitting(self._analysis, self._images)
            for part, images in batches(self._analysis, self._images, size):
                yield part.stop - part.start, self._activations(part, images, places, criterion)
            return
        measures = {
            "gradients": self._gradients,
            "fisher": self._fisher,
            "hessian": self._hessian,
            "jacobian": self._jacobian,
        }
        for part in parts(count, count if criterion.batches == "all" else self._batch_size or MOST):
            found = {n: measures[n](part, places, rng) for n in criterion.inputs if n in measures}
            arrays = {
                place: {name: _filters(rows[i], place.axis) for name, rows in found.items()}
                for i, place in enumerate(places)
            }
            yield part.stop - part.start, arrays

    def _activations(
        self, part: slice, images: list[tf.Tensor], places: list[Place], criterion: Criterion
    ) -> dict[Place, Arrays]:
        watched = {place.tensor for place in places}
        if not criterion.needs_labels:
            values = self._run(images, keep=watched)
            return {p: {"activations": self._maps(p, values[p.tensor])} for p in places}
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            values = self._run(images, tape, keep=watched)
            loss = self._mean_loss(part, values)
        found = tape.gradient(loss, [values[p.tensor] for p in places], unconnected_gradients="zero")
        return {
            p: {"activations": self._maps(p, values[p.tensor]), "activation_gradients": self._maps(p, g)}
            for p, g in zip(places, found, strict=True)
        }

    def _gradients(self, part: slice, places: list[Place], rng: np.random.Generator) -> list[np.ndarray]:
        """Those of the mean loss of a batch, one for each place, in the shape of its weight."""
        watched, sums = self._watched(places), [0.0] * len(places)
        for chunk, images in self._chunks(part):
            share = (chunk.stop - chunk.start) / (part.stop - part.start)
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(watched)
                loss = self._mean_loss(chunk, self._run(images))
            for i, g in enumerate(tape.gradient(loss, watched, unconnected_gradients="zero")):
                # An embedding's comes as slices. As arrays there is one of them beside the sums.
                sums[i] = sums[i] + share * tf.convert_to_tensor(g).numpy()
        return sums

    def _fisher(self, part: slice, places: list[Place], rng: np.random.Generator) -> list[np.ndarray]:
        """Mean over images of their squared gradients: the diagonal of the empirical Fisher matrix."""
        rows = ((images, self._tensors(one)) for one, images in self._chunks(part, 1))
        return squared_gradients(self._loss_of, self._watched(places), rows)

    def _jacobian(self, part: slice, places: list[Place], rng: np.random.Generator) -> list[np.ndarray]:
        """Mean over images of (∂vᵀf/∂w)², v = ±1 at random for each image: expected Σ_c (∂f_c/∂w)²."""

        def outputs(images: list[tf.Tensor]) -> list[tf.Tensor]:
            values = self._run(images)
            return [tf.cast(values[t], tf.float32) for t in self._analysis.graph.outputs]

        def along(images: list[tf.Tensor], v: list[tf.Tensor]) -> tf.Tensor:
            return sum(tf.reduce_sum(y * z) for y, z in zip(outputs(images), v, strict=True))

        shapes = [y.shape for y in outputs(next(iter(self._chunks(part, 1)))[1])]
        rows = (
            (images, [tf.constant(signs(rng, shape)) for shape in shapes])
            for _, images in self._chunks(part, 1)
        )
        return squared_gradients(along, self._watched(places), rows)

    def _hessian(self, part: slice, places: list[Place], rng: np.random.Generator) -> list[np.ndarray]:
        """Diagonal of that of the mean loss. What is drawn does not depend on the number run at once."""
        cuts = list(parts(part.stop, MOST, part))
        blocks = (
            ((c.stop - c.start, (images, self._tensors(c))) for c, images in self._chunks(cut, twice=True))
            for cut in cuts
        )
        probes = ceil(PROBES / len(cuts))
        return hessian_diagonal(self._loss_of, self._watched(places), blocks, partial(signs, rng), probes)

    def _watched(self, places: list[Place]) -> list[Any]:
        return [self._named[p.layer][p.weight].value for p in places]

    def _chunks(
        self, part: slice, size: int | None = None, twice: bool = False
    ) -> Iterator[tuple[slice, list[tf.Tensor]]]:
        """Images of a batch, as many at a time as fit, or fit `twice`: for gradients of gradients."""
        if size is None:
            fits = fitting(self._analysis, self._images)
            size = min(fits, self._batch_size or fits)
        return batches(self._analysis, self._images, max(1, size // 2) if twice else size, part)

    def _maps(self, place: Place, tensor: tf.Tensor) -> np.ndarray:
        """(images, positions, n)."""
        axis = self._analysis.axis(place.tensor) + 1
        array = np.moveaxis(tf.cast(tensor, tf.float32).numpy(), axis, -1)
        return array.reshape(len(array), -1, array.shape[-1])

    def _mean_loss(self, part: slice, values: dict[int, tf.Tensor]) -> tf.Tensor:
        return self._loss(keras.tree.map_structure(lambda y: y[part], self._labels), values)

    def _loss_of(self, images: list[tf.Tensor], labels: Any) -> tf.Tensor:
        return self._loss(labels, self._run(images))

    def _loss(self, labels: Any, values: dict[int, tf.Tensor]) -> tf.Tensor:
        outputs = [values[t] for t in self._analysis.graph.outputs]
        return self._task.loss(labels, outputs[0] if len(outputs) == 1 else outputs)

    def _tensors(self, part: slice) -> Any:
        """Labels of some images."""
        return keras.tree.map_structure(lambda y: tf.convert_to_tensor(y[part]), self._labels)

    def _run(
        self, images: list, tape: tf.GradientTape | None = None, keep: set[int] = frozenset()
    ) -> dict[int, tf.Tensor]:
        """Outputs and the tensors to keep, at inference: no dropout, averages of BN as they are.

        A tape watches those to keep. Others go as soon as nobody reads them any more.
        """
        graph = self._analysis.graph
        values = dict(zip(graph.inputs, images, strict=True))
        last = {t: call for call in graph.calls for t in (*call.outputs, *call.inputs)}
        for call in graph.calls:
            if call.kind != "InputLayer":
                made = call.run([values[t] for t in call.inputs], training=False)
                values |= dict(zip(call.outputs, made, strict=True))
            for tensor in keep.intersection(call.outputs) if tape else ():
                tape.watch(values[tensor])
            for tensor in {*call.inputs, *call.outputs} - keep - {*graph.outputs}:
                if last[tensor] is call:
                    del values[tensor]
        return values


def _check_data(criterion: Criterion, images: Any, labels: Any) -> None:
    """Raises `UsageError` unless images and labels are arrays of one length, as far as they are needed."""
    if images is None:
        raise UsageError(
            f"Criterion {criterion.name!r} looks at images: give data="
            f"{'(images, labels)' if criterion.needs_labels else 'images'}. Received: data=None"
        )
    arrays = keras.tree.flatten((images, labels))
    if strange := [type(x).__name__ for x in arrays if x is not None and not hasattr(x, "shape")]:
        raise UsageError(
            "data needs arrays: data=(images, labels), such as one large batch of a pipeline. "
            f"Received: {strange[0]}"
        )
    if labels is None and criterion.needs_labels:
        raise UsageError(
            f"Criterion {criterion.name!r} needs the gradient of a loss: give data=(images, labels). "
            "Received: no labels"
        )
    sizes = {len(x) for x in arrays if x is not None}
    if len(sizes) != 1 or sizes == {0}:
        raise UsageError(f"data needs as many labels as images, and at least one. Received: {sorted(sizes)}")


def _filters(array: np.ndarray, axis: int) -> np.ndarray:
    """(n, weights): a view where the axis is the last one."""
    wide = array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)
    return np.moveaxis(wide, axis, -1).reshape(-1, array.shape[axis]).T
