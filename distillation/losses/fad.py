"""FAD: the student's filters are moved a little towards filters of the teacher that they attend to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, NoReturn

import keras
import tensorflow as tf

from secateur.distillation.loss import Loss, register
from secateur.runs.errors import UsageError

SLOPE = 0.2  # of the leaky ReLU before the softmax


def filters(kernel: tf.Tensor) -> tf.Tensor:
    """A convolution's kernel as one row per filter: (h, w, in, out) → (out, h·w·in)."""
    return tf.transpose(tf.reshape(kernel, [-1, kernel.shape[-1]]))


def attended(
    keys: tf.Tensor, queries: tf.Tensor, values: tf.Tensor, of_keys: tf.Tensor, of_queries: tf.Tensor
) -> tf.Tensor:
    """For each student's filter the teacher's values, averaged by softmax_t(leaky(k·a_k + q·a_q)).

    Args:
        keys: (s, units) of the student's filters.
        queries, values: (t, units) and (t, n) of the teacher's.
        of_keys, of_queries: (units, 1), a_k and a_q.

    Returns (s, n).
    """
    scores = tf.matmul(keys, of_keys) + tf.transpose(tf.matmul(queries, of_queries))
    return tf.matmul(tf.nn.softmax(tf.nn.leaky_relu(scores, SLOPE), 1), values)


@register
class FAD(Loss):
    """kernel + weight · scale · attended filters of the teacher: a change of the student, no comparison.

    A `Lesson` calls `adapt` in the forward pass and convolves with what it returns; the gradient of the
    cross-entropy and of its other losses then trains the student's kernels and FAD's own weights. What is
    kept after training are the adapted kernels, see `Lesson.settle`. (HAP's further methods; its program adds
    into the stored kernels at each step instead.)

    Args:
        units: length of keys and queries; published: 128.
        scale: of what is added; published: 1e-3.
    """

    key: ClassVar[str] = "fad"
    moves_kernels: ClassVar[bool] = True

    def __init__(self, units: int = 128, scale: float = 1e-3) -> None:
        super().__init__()
        if units < 1:
            raise UsageError(f"FAD needs keys of at least one number. Received: units={units}")
        self.units, self.scale = units, scale

    def build(self, student: Sequence[Sequence[int]], teacher: Sequence[Sequence[int]]) -> None:
        """From the shapes (h, w, in, out) of both sides' kernels, which correspond one to one."""
        _check_numbers(student, teacher)
        self.links = [self._link(i, *pair) for i, pair in enumerate(zip(student, teacher, strict=True))]

    def prepare(self, teacher: Any, student: Any) -> NoReturn:
        """Outputs have nothing that it could compare: always a `UsageError`."""
        raise UsageError(
            "Loss 'fad' changes the student's kernels and compares no outputs. Received: outputs\n"
            "Train with distillation.Lesson, which computes with the changed kernels"
        )

    def compare(self, teacher: Any, student: Any) -> NoReturn:
        """See `prepare`."""
        self.prepare(teacher, student)

    def adapt(
        self, student: Sequence[tf.Tensor], teacher: Sequence[tf.Tensor], weight: float = 1.0
    ) -> list[tf.Tensor]:
        """Kernels to convolve with, float32, of the student's shapes.

        Args:
            student: the student's kernels (h, w, in, out).
            teacher: the teacher's that correspond, of any sizes; no gradient reaches them.
            weight: factor on `scale`; with 0 nothing changes.

        The order of a teacher's filters does not matter. Raises `UsageError` for unequal numbers.
        """
        _check_numbers(student, teacher)
        if not self.built:
            self.build([k.shape for k in student], [k.shape for k in teacher])
        pairs = zip(student, teacher, self.links, strict=True)
        added = [self._added(tf.cast(s, tf.float32), tf.cast(t, tf.float32), link) for s, t, link in pairs]
        scale = weight * self.scale
        return [tf.cast(s, tf.float32) + scale * a for s, a in zip(student, added, strict=True)]

    def _added(self, student: tf.Tensor, teacher: tf.Tensor, link: dict[str, keras.Variable]) -> tf.Tensor:
        keys = tf.matmul(filters(student), link["keys"]) + link["keys_bias"]
        queries = tf.matmul(filters(tf.stop_gradient(teacher)), link["queries"]) + link["queries_bias"]
        values = tf.matmul(queries, link["values"]) + link["values_bias"]
        added = attended(keys, queries, values, link["of_keys"], link["of_queries"])
        return tf.reshape(tf.transpose(added), student.shape)

    def _link(self, index: int, student: Sequence[int], teacher: Sequence[int]) -> dict[str, keras.Variable]:
        """The own weights of one pair of convolutions."""
        of_student, of_teacher = math.prod(student[:-1]), math.prod(teacher[:-1])
        shapes = {
            "keys": (of_student, self.units),
            "queries": (of_teacher, self.units),
            "values": (self.units, of_student),
            "of_keys": (self.units, 1),
            "of_queries": (self.units, 1),
        }
        link = {name: self._weight(f"{name}_{index}", s, "glorot_normal") for name, s in shapes.items()}
        for name in ("keys", "queries", "values"):
            link[f"{name}_bias"] = self._weight(f"{name}_bias_{index}", shapes[name][1:], "zeros")
        return link

    def _weight(self, name: str, shape: tuple[int, ...], initializer: str) -> keras.Variable:
        return self.add_weight(shape=shape, initializer=initializer, name=name)


def _check_numbers(student: Sequence, teacher: Sequence) -> None:
    if len(student) != len(teacher):
        raise UsageError(
            "FAD pairs kernels one to one; hand it as many of each. "
            f"Received: {len(student)} of the student, {len(teacher)} of the teacher"
        )
