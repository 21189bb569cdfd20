"""What the outputs of a model mean, how wrong they are, and how many are right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from secateur.nets import labels as fitting
from secateur.nets.endings import ending_of
from secateur.nets.graph import Graph, trace
from secateur.nets.losses import (
    CROSS_ENTROPY,
    FOCAL,
    Loss,
    LossSpec,
    compiled_losses,
    means,
    name_of,
    per_output,
)
from secateur.runs.errors import UsageError

Metric = Callable[[Any, Any], Any]
"""(labels, outputs) of all images → a number, larger = better."""
METRICS = {
    "classes": "accuracy",
    "labels": "labels right",
    "numbers": "R²",
    "maps": "pixels right",
    "own": "−loss",
}
SHARES_OF = {"softmax": tf.nn.softmax, "sigmoid": tf.sigmoid}


@dataclass(frozen=True)
class Task:
    """What a model is for; `Task.of` reads it off one.

    Attributes:
        kind: "classes" (one of several, or one output for two), "labels" (several of them: multi-hot),
            "numbers" (regression), "maps" (a class for each position: segmentation), or "own" (a loss that
            the user gives, outputs in any structure).
        shares: whether outputs are probabilities, of softmax or sigmoid, and no logits.
        units: numbers in the last axis of the output; 1 tells two classes apart.
        loss_spec: the loss.
        sigmoid: whether classes have a sigmoid each, so that their loss is that of binary decisions.
        measure: a metric of the user's in place of the one that belongs to the kind.
        ends: "softmax", "sigmoid" or "" of each output, in the order of `model.outputs`.
        missing: those that outputs lack when they come here, and are put behind them first; see `bare`.
    """

    kind: str
    shares: bool
    units: int
    loss_spec: LossSpec
    sigmoid: bool = False
    measure: Metric | None = None
    ends: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        model: keras.Model,
        loss: Loss | None = None,
        *,
        metric: Metric | None = None,
        graph: Graph | None = None,
    ) -> Task:
        """The task of a functional model.

        Args:
            model: with a graph.
            loss: a name of Keras ("mse"), one of `keras.losses`, or a function (labels, outputs) → losses
                (n,), or their mean. None is what the model was compiled with, or else the cross-entropy: of
                classes for an output (n, classes), of a class for each position for one of more axes.
            metric: see `Metric`.
            graph: of the model, if it is there already.

        An object of `keras.losses` is used as it is, `from_logits` too. The name of a cross-entropy is that
        of logits or of shares, as the model ends. Raises `UsageError` for an unknown name, a loss that does
        not fit the outputs, and several outputs without a loss.
        """
        graph = graph or trace(model)
        losses = compiled_losses(model) if loss is None else loss
        if len(graph.outputs) > 1 and losses is not None:
            spec = _of_several(model, graph, loss)
            ends = tuple(_end(graph, i) for i in range(len(graph.outputs)))
            return cls("own", any(ends), 0, spec, measure=metric, ends=ends)
        if losses is not None:
            return replace(_of_output(graph, 0, LossSpec.of(losses, compiled=loss is None)), measure=metric)
        return replace(cls.of_outputs(model, graph), measure=metric)

    @classmethod
    def of_outputs(cls, model: keras.Model, graph: Graph | None = None) -> Task:
        """What the output of a model of which no loss is known is taken for: classes or maps.

        Raises `UsageError` for several outputs, and for one of which that cannot be.
        """
        graph = graph or trace(model)
        _check_guess(graph)
        return _of_output(graph, 0, LossSpec("categorical", CROSS_ENTROPY))

    @property
    def bare(self) -> Task:
        """The same for outputs without their softmax or sigmoid, as `endings.logits_of` makes them.

        A cross-entropy is then that of logits. Any other loss is judged behind the ends that are missing.
        Raises `UsageError` for a softmax along another axis than the last.
        """
        if not any(self.ends):
            return self
        spec = self.loss_spec.of_logits() if self.measure is None else None
        if spec and self.kind != "own":
            return replace(self, shares=False, loss_spec=spec, ends=())
        if strange := next((end for end in self.ends if end and end not in SHARES_OF), None):
            raise UsageError(f"Logits need a softmax along the last axis. Received: {strange}")
        return replace(self, ends=(), missing=self.ends)

    def of_classes(self, one_hot: bool | None = None) -> Task | None:
        """The task of a user's own loss whose labels are classes, so that they can be counted.

        `one_hot` says which labels the loss reads; None tries it. None is returned where it reads neither.
        """
        spec = self.loss_spec if self.units == 1 else self.loss_spec.of_classes(self.units, one_hot)
        return replace(self, kind="classes", loss_spec=spec) if spec else None

    @property
    def of_integers(self) -> Task:
        """The same for classes that come as integers, whatever form of labels the loss reads."""
        return (
            replace(self, loss_spec=self.loss_spec.of_integers(self.units))
            if self.kind == "classes"
            else self
        )

    @property
    def metric_name(self) -> str:
        """What `metric` and `score` are; larger is better."""
        return name_of(self.measure) if self.measure else METRICS[self.kind]

    @property
    def by_image(self) -> bool:
        """Whether loss and score of all images are the means of those of each."""
        return self.kind == "classes" and self.measure is None and self.loss_spec.ignored is None

    def losses(self, labels: Any, outputs: Any) -> tf.Tensor:
        """How wrong each image's outputs are, float32 (n,); of positions the mean.

        Args:
            labels: classes: integers (n,) or (n, 1), or one-hot (n, units); labels: (n, units) of 0 and 1;
                numbers: of the outputs' shape; maps: integers (n, h, w) or one-hot; own: what the loss reads.
            outputs: as the model gives them.

        Where a function of the user's returns a mean, all images have it.
        """
        found = self._losses(labels, outputs)
        return found if len(found.shape) else tf.fill([tf.shape(keras.tree.flatten(outputs)[0])[0]], found)

    def loss(self, labels: Any, outputs: Any) -> tf.Tensor:
        """The mean of `losses`, a float32 scalar."""
        return tf.reduce_mean(self._losses(labels, outputs))

    def metric(self, labels: Any, outputs: Any) -> tf.Tensor:
        """`metric_name` of a batch, a float32 scalar."""
        if self.kind == "own" and not self.measure:
            return -self.loss(labels, outputs)
        return tf.cast(self._measured(labels, self._whole(outputs), tf.float32), tf.float32)

    def score(self, labels: Any, outputs: Any) -> float:
        """`metric_name` of all images, from arrays. Raises `UsageError` for classes of several labels."""
        if self.kind == "own" and not self.measure:
            return -float(self.loss(labels, keras.tree.map_structure(tf.convert_to_tensor, outputs)))
        if self.missing:
            outputs = keras.tree.map_structure(np.asarray, self._whole(outputs))
        if self.kind == "classes" and not self.measure:
            fitting.check_one_class(np.asarray(labels), self.units)
        return float(self._measured(labels, outputs, tf.float64))

    def check(self, labels: Any, outputs_shape: tuple[int | None, ...]) -> None:
        """Raises `UsageError`, which names what is wrong, for labels that do not fit outputs of this shape.

        Wrong are integers that are no class, real numbers for classes, one-hot labels for a loss that reads
        integers and the other way round, and other shapes. What an "own" loss reads is not known.
        """
        if self.kind != "own":
            labels = np.asarray(labels)
            self.check_form(labels, outputs_shape)
            fitting.check_values(self, labels, labels.ndim == len(outputs_shape))

    def check_form(self, labels: Any, outputs_shape: tuple[int | None, ...]) -> None:
        """The part of `check` that reads shape and type alone, for tensors whose values are not there yet."""
        if self.kind != "own":
            dtype = np.dtype(getattr(labels.dtype, "as_numpy_dtype", labels.dtype))
            fitting.check_form(self, tuple(labels.shape), dtype, tuple(outputs_shape))

    def _measured(self, labels: Any, outputs: Any, dtype: tf.DType) -> Any:
        """What `metric` and `score` are, of outputs behind their ends."""
        if self.measure:
            return self.measure(labels, outputs)
        if self.kind == "numbers":
            outputs = tf.cast(outputs, dtype)
            return r_squared(tf.reshape(tf.cast(labels, dtype), tf.shape(outputs)), outputs)
        right, counted = (None if x is None else tf.cast(x, dtype) for x in self._right(labels, outputs))
        if counted is None:
            return tf.reduce_mean(right)
        return tf.math.divide_no_nan(tf.reduce_sum(right * counted), tf.reduce_sum(counted))

    def _losses(self, labels: Any, outputs: Any) -> tf.Tensor:
        """(n,), or a mean of a user's."""
        outputs = self._whole(outputs)
        if self.kind == "own":
            return means(self._function(labels, outputs)(labels, outputs))
        outputs = tf.cast(outputs, tf.float32)
        labels = self._as_read(tf.convert_to_tensor(labels), outputs)
        found = means(self._function(labels, outputs)(labels, outputs))
        return found if self.loss_spec.ignored is None else found * self._counted(labels)

    def _whole(self, outputs: Any) -> Any:
        """Outputs behind the ends that they lack."""
        if not self.missing:
            return outputs
        pairs = zip(keras.tree.flatten(outputs), self.missing, strict=True)
        return keras.tree.pack_sequence_as(
            outputs, [SHARES_OF[end](tf.cast(z, tf.float32)) if end else z for z, end in pairs]
        )

    # --- of one output -------------------------------------------------------------------------------------

    @property
    def two(self) -> bool:
        """Whether each number of the outputs decides by itself."""
        return self.kind == "labels" or (self.units == 1 and self.kind != "numbers")

    def _function(self, labels: tf.Tensor, outputs: tf.Tensor) -> Callable:
        if self.loss_spec.function:
            return self.loss_spec.function
        one_hot = len(labels.shape) == len(outputs.shape)
        of_integers = keras.losses.sparse_categorical_crossentropy
        of_shares = keras.losses.categorical_crossentropy if one_hot else of_integers
        of_each = keras.losses.binary_crossentropy
        return partial(of_each if self.two or self.sigmoid else of_shares, from_logits=not self.shares)

    def _as_read(self, labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
        """Labels in the form that the loss reads: integers (n, …) or numbers of the outputs' shape."""
        if self.kind == "numbers" or self.two:
            return tf.reshape(tf.cast(labels, tf.float32), tf.shape(outputs))
        if self._one_hot(labels, outputs):
            return tf.cast(labels, tf.float32)
        labels = tf.reshape(tf.cast(labels, tf.int32), tf.shape(outputs)[:-1])
        return tf.one_hot(labels, self.units) if self.sigmoid or self.loss_spec.sparse is False else labels

    def _one_hot(self, labels: tf.Tensor, outputs: tf.Tensor) -> bool:
        return len(labels.shape) == len(outputs.shape) and labels.shape[-1] == self.units

    def _right(self, labels: Any, outputs: Any) -> tuple[tf.Tensor, tf.Tensor | None]:
        """Booleans for each decision, and which of them count; None: all."""
        labels, outputs = tf.convert_to_tensor(labels), tf.convert_to_tensor(outputs)
        if self.two:
            labels = tf.reshape(tf.cast(labels, tf.float32), tf.shape(outputs))
            return tf.equal(outputs > (0.5 if self.shares else 0.0), labels > 0.5), None
        one_hot = self._one_hot(labels, outputs)
        labels = tf.argmax(labels, -1) if one_hot else tf.reshape(labels, tf.shape(outputs)[:-1])
        labels = tf.cast(labels, tf.int64)
        counted = None if self.loss_spec.ignored is None else tf.not_equal(labels, self.loss_spec.ignored)
        return tf.equal(tf.argmax(outputs, -1), labels), counted

    def _counted(self, labels: tf.Tensor) -> tf.Tensor:
        """All positions over those that count: Keras divides by these."""
        return tf.math.reciprocal_no_nan(
            tf.reduce_mean(tf.cast(tf.not_equal(labels, self.loss_spec.ignored), tf.float32))
        )


def r_squared(labels: tf.Tensor, outputs: tf.Tensor) -> tf.Tensor:
    """1 − Σ(y − p)² / Σ(y − ȳ)² of each number of the last axis, and the mean of these: (n, …, k) → scalar.

    A number that does not vary counts 1 where it is met exactly and 0 elsewhere, as in scikit-learn.
    """
    axes = list(range(max(1, len(outputs.shape) - 1)))
    missed = tf.reduce_sum((labels - outputs) ** 2, axes)
    varied = tf.reduce_sum((labels - tf.reduce_mean(labels, axes, keepdims=True)) ** 2, axes)
    still = tf.cast(missed > 0, missed.dtype)
    return tf.reduce_mean(1 - tf.where(varied > 0, tf.math.divide_no_nan(missed, varied), still))


def _kind(spec: LossSpec, shape: tuple) -> str:
    """Raises `UsageError` for a cross-entropy of several classes over a single output."""
    if spec.family in ("own", "numbers"):
        return spec.family
    if spec.family == "binary":
        return "classes" if len(shape) == 2 and shape[-1] == 1 else "labels"
    if spec.sparse is not None and shape[-1] == 1:
        raise UsageError(
            f"One output for two classes needs loss='binary_crossentropy'. Received: loss={spec.name!r}"
        )
    return "classes" if len(shape) == 2 else "maps"


def _check_guess(graph: Graph) -> None:
    """Raises `UsageError` for outputs whose meaning must be given."""
    end, shape, what = ending_of(graph), graph.output_shapes[0], ""
    if len(graph.outputs) > 1:
        what = f"{len(graph.outputs)} outputs"
    elif len(shape) < 2:
        what = f"an output of shape {shape}"
    elif end is not None and not end.along_last:
        what = f"softmax in {end.call.name!r} along another axis than the last of an output of shape {shape}"
    if what:
        raise UsageError(
            "Give loss=, a name of Keras or a function of labels and outputs, for a model that is no "
            f"classifier. Received: {what}"
        )


def _of_output(graph: Graph, output: int, spec: LossSpec) -> Task:
    shape, end = graph.output_shapes[output], ending_of(graph, output)
    kind = _kind(spec, shape)
    if end is None and spec.function in FOCAL:
        spec = spec.of_logits() or spec
    sigmoid = end is not None and end.activation == "sigmoid" and spec.sparse is None
    units = shape[-1] if len(shape) > 1 and shape[-1] else 0
    sigmoid = sigmoid and kind in ("classes", "maps")
    return Task(kind, end is not None, units, spec, sigmoid, ends=(_end(graph, output),))


def _end(graph: Graph, output: int) -> str:
    """A key of `SHARES_OF`, what else it is in words, or ""."""
    if (end := ending_of(graph, output)) is None:
        return ""
    return end.activation if end.along_last else f"softmax in {end.call.name!r} along another axis"


def _of_several(model: keras.Model, graph: Graph, loss: Any) -> LossSpec:
    """A user's function reads all outputs; any other loss is of each of them, as the compiled ones are."""
    if loss is None:
        weights = model.get_compile_config().get("loss_weights")
        return _joint(model, graph, compiled_losses(model), weights)
    spec = None if keras.tree.is_nested(loss) else LossSpec.of(loss)
    return spec if spec and spec.family == "own" else _joint(model, graph, loss)


def _joint(model: keras.Model, graph: Graph, losses: Any, weights: Any = None) -> LossSpec:
    """The sum of what several outputs lose, each by its weight; None for an output without a loss."""
    specs = [None if loss is None else LossSpec.of(loss, compiled=True) for loss in per_output(losses, model)]
    tasks = [spec if spec is None else _of_output(graph, i, spec) for i, spec in enumerate(specs)]
    scales = [1.0 if weight is None else weight for weight in per_output(weights, model)]

    def together(labels: Any, outputs: Any) -> tf.Tensor:
        sides = per_output(labels, model), per_output(outputs, model)
        rows = zip(tasks, scales, *sides, strict=True)
        return sum(scale * task.losses(y, x) for task, scale, y, x in rows if task)

    return LossSpec("own", " + ".join(spec.name for spec in specs if spec), together)
