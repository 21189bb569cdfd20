"""Attention-based feature distillation: the loss learns which blocks to link (Ji et al. 2021)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import keras
import tensorflow as tf

from secateur.distillation.loss import Loss, OwnBatchNorm, register
from secateur.distillation.maps import adaptive_pool, energy, flat, mean_squares, unit
from secateur.runs.errors import UsageError


def project(pooled: Sequence[tf.Tensor], kernels: Sequence[tf.Tensor]) -> tf.Tensor:
    """Each block's vector times its own matrix: n times (b, c), kernels (run, c, d) → (b, n, d).

    A kernel holds the matrices of a run of blocks of equal width, multiplied as one batch.
    """
    left = list(pooled)
    parts = []
    for kernel in kernels:
        run, left = left[: kernel.shape[0]], left[kernel.shape[0] :]
        parts.append(tf.matmul(tf.stack(run), kernel))
    return tf.transpose(tf.concat(parts, 0), [1, 0, 2])


def values(energies: Sequence[tf.Tensor], height: int, width: int) -> tf.Tensor:
    """Energies, n times (b, h, w), pooled to one size, as unit rows: (b, n, height·width).

    Neighbours of one resolution are pooled together, as channels.
    """
    runs = [list(run) for _, run in itertools.groupby(energies, key=lambda e: tuple(e.shape[1:]))]
    pooled = tf.concat([adaptive_pool(tf.stack(run, -1), height, width) for run in runs], -1)
    rows = tf.reshape(pooled, [-1, height * width, len(energies)])
    return unit(tf.transpose(rows, [0, 2, 1]))


def value_gaps(teacher: Sequence[tf.Tensor], student: Sequence[tf.Tensor]) -> tf.Tensor:
    """mean over positions of (v_s − v_t)², per sample, v the unit energy: blocks of both → (b, t, s)."""
    of_student, known, gaps = [energy(maps) for maps in student], {}, []
    for size, run in itertools.groupby(teacher, key=lambda maps: tuple(maps.shape[1:3])):
        if size not in known:
            known[size] = values(of_student, *size)
        gaps.append(mean_squares(known[size], values([energy(maps) for maps in run], *size)))
    return tf.linalg.matrix_transpose(tf.concat(gaps, -1))


@register
class AFD(Loss):
    """Σ_t mean_b Σ_s α_bts · mean over positions of (v_s − v_t)², α a learnt attention over s.

    Query of a teacher's block: BN(W·pooled). Key of a student's block: ReLU(BN(W·pooled)), then one
    BN(W) for all of them to a key for each teacher. α = softmax_s((⟨key, query⟩ + ⟨p_t, p_s⟩) / √units), with
    learnt positions p. Biases before BN are left out: it removes them. Ji et al., "Show, Attend and Distill",
    eq. 1 to 5, and their program.

    Args:
        units: length of keys and queries; published: 128.
    """

    key: ClassVar[str] = "afd"
    reads: ClassVar[str] = "blocks"
    beta: ClassVar[float] = 200.0  # the paper's and HAP's

    def __init__(self, units: int = 128) -> None:
        super().__init__()
        if units < 1:
            raise UsageError(f"AFD needs keys of at least one number. Received: units={units}")
        self.units = units

    def prepare(self, teacher: Sequence[Any], student: Sequence[Any]) -> None:
        """From the shapes of the blocks of both; only their widths and numbers matter."""
        self.query_kernels = self._kernels("query", teacher)
        self.key_kernels = self._kernels("key", student)
        self.links = self._uniform("links", (self.units, len(teacher) * self.units), self.units)
        self.teacher_places = self._places("teacher_places", len(teacher))
        self.student_places = self._places("student_places", len(student))
        self.query_norm = self._norm("query_norm", len(teacher))
        self.key_norm = self._norm("key_norm", len(student))
        self.link_norm = self._norm("link_norm", len(teacher))

    def compare(self, teacher: Sequence[tf.Tensor], student: Sequence[tf.Tensor]) -> tf.Tensor:
        """Blocks (b, h, w, c) of both, deepest last, as many as at first → scalar."""
        attention = tf.nn.softmax(self.scores(teacher, student), -1)
        linked = tf.reduce_sum(attention * value_gaps(teacher, student), -1)
        return tf.reduce_sum(tf.reduce_mean(linked, 0))

    def scores(self, teacher: Sequence[tf.Tensor], student: Sequence[tf.Tensor]) -> tf.Tensor:
        """Logits of the attention: blocks of both → (b, t, s)."""
        queries, keys = self._projected(teacher, "query"), tf.nn.relu(self._projected(student, "key"))
        links = self.link_norm(tf.matmul(tf.reshape(keys, [-1, self.units]), self.links))
        links = tf.reshape(links, [-1, len(student), len(teacher), self.units])
        match = tf.einsum("bstd,btd->bts", links, queries)
        places = tf.matmul(self.teacher_places, self.student_places, transpose_b=True)
        return (match + places) / math.sqrt(self.units)

    def _projected(self, blocks: Sequence[tf.Tensor], role: str) -> tf.Tensor:
        """BN(W·pooled) of each block: (b, n, units)."""
        rows = project([tf.reduce_mean(maps, [1, 2]) for maps in blocks], getattr(self, f"{role}_kernels"))
        normalised = getattr(self, f"{role}_norm")(flat(rows))
        return tf.reshape(normalised, [-1, len(blocks), self.units])

    def _kernels(self, role: str, shapes: Sequence[Any]) -> list[keras.Variable]:
        runs = [(width, len(list(run))) for width, run in itertools.groupby(s[-1] for s in shapes)]
        shaped = [((count, width, self.units), width) for width, count in runs]
        return [self._uniform(f"{role}_{i}", shape, width) for i, (shape, width) in enumerate(shaped)]

    def _uniform(self, name: str, shape: tuple[int, ...], inputs: int) -> keras.Variable:
        bound = 1 / math.sqrt(inputs)  # what the published program's linear layers start from
        initializer = keras.initializers.RandomUniform(-bound, bound)
        return self.add_weight(shape=shape, initializer=initializer, name=name)

    def _places(self, name: str, count: int) -> keras.Variable:
        return self.add_weight(shape=(count, self.units), initializer="glorot_normal", name=name)

    def _norm(self, name: str, blocks: int) -> OwnBatchNorm:
        norm = OwnBatchNorm(name=name, dtype="float32")
        norm.build((None, blocks * self.units))
        return norm
