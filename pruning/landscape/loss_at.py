"""The loss of a model as a function of its trainable weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from secateur.nets.kernels import filter_axes, named_variables
from secateur.nets.task import Task
from secateur.op_utils import tensors
from secateur.runs.errors import TrainingError

Weights = list[np.ndarray]


class LossAt:
    """Weights → mean loss and metric on images; the model keeps its own. Compiled once.

    Args:
        model: functional; of logits where `task` says so.
        data: (images as the model reads them, labels), arrays in the structures that it has.
        task: what outputs mean, and their loss; see `nets.Task.of`.
        batch_size: images at a time. With `batch_statistics` a remainder is left out.
        batch_statistics: normalise by those of each batch, as EKG evaluates sub-networks, in place of the
            moving averages, which are those of the weights that the model has.
    """

    def __init__(
        self, model: keras.Model, data: tuple[Any, Any], task: Task, batch_size: int = 256,
        batch_statistics: bool = False,
    ) -> None:  # fmt: skip
        self._model, self._data, self._task = model, data, task
        self.count = len(keras.tree.flatten(data[1])[0])
        self._size, self._by_batch = min(batch_size, self.count), batch_statistics
        self._value = tf.function(self._measured, autograph=False, reduce_retracing=True)
        self._product = tf.function(self._hessian_times, autograph=False, reduce_retracing=True)

    @property
    def weights(self) -> Weights:
        """The trainable ones, as they are now."""
        return [keras.ops.convert_to_numpy(v) for v in self._model.trainable_variables]

    @property
    def filters(self) -> list[tuple[int, ...]]:
        """For each weight the axes, from the end, that number its filters; () of vectors."""
        known = {}
        for layer in self._model._flatten_layers():
            axes = filter_axes(layer)
            known |= {id(v): axes[name] for name, v in named_variables(layer).items() if name in axes}
        trained = self._model.trainable_variables
        return [known.get(id(v), (-1,) if len(v.shape) > 1 else ()) for v in trained]

    def __call__(self, weights: Sequence[np.ndarray]) -> tuple[float, float]:
        """Mean loss and metric over all images."""
        total, params = np.zeros(2), [tf.convert_to_tensor(w, v.dtype) for w, v in self._paired(weights)]
        for images, labels, count in self._batches():
            total += count * np.array([float(x) for x in self._value(params, images, labels)])
        loss, metric = (total / self._used).tolist()
        return loss, metric

    def hessian_times(self, vector: np.ndarray, weights: Sequence[np.ndarray] | None = None) -> np.ndarray:
        """The Hessian of the mean loss times a vector (all weights one behind the other,), float64."""
        params = [
            tf.convert_to_tensor(w, v.dtype)
            for w, v in self._paired(self.weights if weights is None else weights)
        ]
        parts = [
            tf.convert_to_tensor(part, p.dtype) for part, p in zip(self.split(vector), params, strict=True)
        ]
        total = np.zeros(len(vector))
        for images, labels, count in self._batches():
            found = self._product(params, parts, images, labels)
            total += count * np.concatenate([np.ravel(x.numpy()).astype(np.float64) for x in found])
        if not np.isfinite(total).all():
            raise TrainingError("The curvature of the loss is not finite. Take weights at which the loss is")
        return total / self._used

    def split(self, vector: np.ndarray) -> Weights:
        """A vector of all weights as arrays of their shapes."""
        shapes = [tuple(v.shape) for v in self._model.trainable_variables]
        edges = np.cumsum([int(np.prod(shape)) for shape in shapes])
        return [part.reshape(shape) for part, shape in zip(np.split(vector, edges[:-1]), shapes, strict=True)]

    def _paired(self, weights: Sequence[np.ndarray]):
        return zip(weights, self._model.trainable_variables, strict=True)

    @property
    def _used(self) -> int:
        return self.count - self.count % self._size if self._by_batch else self.count

    def _batches(self) -> Iterator[tuple[Any, Any, int]]:
        for start in range(0, self._used, self._size):
            part = slice(start, min(start + self._size, self._used))
            images, labels = keras.tree.map_structure(lambda x, part=part: x[part], self._data)
            yield tensors(images), tensors(labels), part.stop - part.start

    def _outputs(self, params: list[tf.Tensor], images: Any) -> Any:
        rest = self._model.non_trainable_variables
        return self._model.stateless_call(params, [v.value for v in rest], images, training=self._by_batch)[0]

    def _measured(self, params: list[tf.Tensor], images: Any, labels: Any) -> tuple[tf.Tensor, tf.Tensor]:
        outputs = self._outputs(params, images)
        return self._task.loss(labels, outputs), self._task.metric(labels, outputs)

    def _hessian_times(self, params: list[tf.Tensor], vector: list[tf.Tensor], images: Any, labels: Any):
        """Pearlmutter 1994: the gradient of the gradient's product with the vector."""
        with tf.GradientTape() as outer:
            outer.watch(params)
            with tf.GradientTape() as inner:
                inner.watch(params)
                loss = self._task.loss(labels, self._outputs(params, images))
            gradients = inner.gradient(loss, params, unconnected_gradients="zero")
        return outer.gradient(gradients, params, vector, unconnected_gradients="zero")
