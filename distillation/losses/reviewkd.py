"""Knowledge review: a shallow stage of the teacher is learnt from all deeper ones (Chen et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import tensorflow as tf

from secateur.distillation.loss import Loss, OwnBatchNorm, register
from secateur.distillation.maps import adaptive_pool, repeat_to
from secateur.runs.errors import UsageError

LEVELS = (4, 2, 1)  # sides of HCL's pooled maps


def hierarchical_context(teacher: tf.Tensor, student: tf.Tensor) -> tf.Tensor:
    """HCL: mean over scales of the mean squared difference; maps of one shape (b, h, w, c) → scalar.

    Weights: 1 for the maps themselves, then 1/2, 1/4, … for maps pooled to each of `LEVELS` below h.
    """
    scales = [(teacher, student)]
    for side in LEVELS:
        if side < student.shape[1]:
            scales.append((adaptive_pool(teacher, side, side), adaptive_pool(student, side, side)))
    weights = [0.5**i for i in range(len(scales))]
    gaps = [w * tf.reduce_mean(tf.square(t - s)) for w, (t, s) in zip(weights, scales, strict=True)]
    return tf.add_n(gaps) / sum(weights)


class Fusion(keras.layers.Layer):
    """ABF: a stage of the student, fused with what came from the deeper ones, in the teacher's shape.

    Args:
        middle: channels of what is handed on to the next shallower stage.
        target: (…, h, w, c) of the teacher's stage.
    """

    def __init__(self, middle: int, target: Sequence[int], **kwargs: Any) -> None:
        super().__init__(dtype="float32", **kwargs)
        self.middle, self.target = middle, tuple(target[-3:])

    def build(self, shape: Sequence[int], deeper: Sequence[int] | None = None) -> None:
        """From the shapes of the student's stage and of what comes from the deeper ones."""
        self.narrow, self.narrow_norm = self._conv("narrow", self.middle, 1, shape[-1])
        if deeper is not None:
            self.gate, _ = self._conv("gate", 2, 1, 2 * self.middle, bias=True)
        self.widen, self.widen_norm = self._conv("widen", self.target[-1], 3, self.middle)

    def call(
        self, maps: tf.Tensor, deeper: tf.Tensor | None = None, training: bool = True
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """(b, h, w, c) → maps as the teacher's, and what the next stage is fused with (b, …, middle)."""
        fused = self.narrow_norm(self.narrow(maps), training=training)
        if deeper is not None:
            deeper = repeat_to(deeper, *maps.shape[1:3])
            gates = tf.sigmoid(self.gate(tf.concat([fused, deeper], -1)))
            fused = fused * gates[..., :1] + deeper * gates[..., 1:]
        fused = repeat_to(fused, *self.target[:2])
        return self.widen_norm(self.widen(fused), training=training), fused

    def _conv(self, name: str, filters: int, side: int, inputs: int, bias: bool = False) -> tuple:
        """A built convolution, and a built batch norm where it has no bias."""
        options = {"padding": "same", "use_bias": bias, "kernel_initializer": "lecun_uniform"}
        conv = keras.layers.Conv2D(filters, side, name=name, dtype="float32", **options)
        conv.build((None, None, None, inputs))
        if bias:
            return conv, None
        norm = OwnBatchNorm(name=f"{name}_norm", dtype="float32")
        norm.build((None, None, None, filters))
        return conv, norm


def with_pooled(stages: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """The stages, and the mean of the deepest as a map of one cell (b, 1, 1, c)."""
    return [*stages, tf.reduce_mean(stages[-1], [1, 2], keepdims=True)]


@register
class ReviewKD(Loss):
    """Σ over stages, and the pooled vector, of HCL(teacher's, ABF of the student's and all deeper ones).

    Stages are read behind their last ReLU, on both sides. The authors' CIFAR program reads the student there
    too, but the teacher's before the ReLU; `layers` of `Live` may name those. Its loop raises the weight from
    0 over the first 20 epochs.

    Args:
        most_channels: of what is handed from stage to stage, at most; published: 512.
    """

    key: ClassVar[str] = "reviewkd"
    reads: ClassVar[str] = "stages"
    beta: ClassVar[float] = 0.6  # the program, ResNet-56 to ResNet-20 on CIFAR-100; 1 to 8 for other pairs

    def __init__(self, most_channels: int = 512) -> None:
        super().__init__()
        if most_channels < 1:
            raise UsageError(f"ReviewKD hands on at least one channel. Received: {most_channels=}")
        self.most_channels = most_channels

    def prepare(self, teacher: Sequence[Any], student: Sequence[Any]) -> None:
        """From the shapes of the stages of both. Raises `UsageError` for unequal numbers."""
        if len(teacher) != len(student):
            raise UsageError(
                "ReviewKD compares stage by stage; name as many of each. "
                f"Received: {len(teacher)} of the teacher, {len(student)} of the student"
            )
        middle = min(self.most_channels, student[-1][-1])
        shapes, self.fusions, deeper = zip(_with_cell(student), _with_cell(teacher), strict=True), [], None
        for index, (shape, target) in enumerate(reversed(list(shapes))):
            fusion = Fusion(middle, target, name=f"fusion_{index}")
            fusion.build(shape, deeper)
            self.fusions.append(fusion)
            deeper = (*target[:-1], middle)

    def compare(self, teacher: Sequence[tf.Tensor], student: Sequence[tf.Tensor]) -> tf.Tensor:
        """Stages (b, h, w, c) of both, deepest last → scalar."""
        deeper, gaps = None, []
        sides = zip(with_pooled(teacher), with_pooled(student), strict=True)
        for fusion, (target, maps) in zip(self.fusions, reversed(list(sides)), strict=True):
            found, deeper = fusion(maps, deeper)
            gaps.append(hierarchical_context(target, found))
        return tf.add_n(gaps)


def _with_cell(shapes: Sequence[Any]) -> list[tuple]:
    return [*(tuple(s) for s in shapes), (shapes[-1][0], 1, 1, shapes[-1][-1])]
