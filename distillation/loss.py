"""A loss between teacher and student, with the interface of `keras.distillation`; all losses by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import keras
import tensorflow as tf

from secateur.nets.layers import FusedBatchNorm
from secateur.runs.errors import UsageError
from secateur.runs.registry import Registry
from secateur.runs.suggest import nearest

READS = ("logits", "stages", "blocks", "pooled")
"""What a loss may look at: logits (b, classes), or (b, classes, teachers) of several teachers; the maps
(b, h, w, c) at the end of each stage; those of each block; the pooled vector (b, c)."""


class Loss(keras.layers.Layer, keras.distillation.DistillationLoss):
    """Base of all losses. A subclass sets `key`, `reads` and `beta`, and writes `compare`.

    It is a layer so that a loss may own weights: they train with the student wherever Keras tracks it.

    Attributes:
        key: what `build` and `--distill` call it.
        reads: the one of `READS` that it compares; "all" hands it everything, by name.
        beta: its published weight beside the cross-entropy, and where that is from.
        several: `compare` takes logits of several teachers (b, classes, teachers). Any other loss is handed
            the mean of their logits (b, classes), also where there is one teacher.
        kinds: of tasks (`nets.task.Task`) whose outputs it compares, where it reads logits or labels.
        moves_kernels: it compares nothing. A `Lesson` computes with what its `adapt(student's kernels,
            teacher's kernels, weight)` makes of the student's; see `distillation.moving`.
    """

    key: ClassVar[str] = ""
    reads: ClassVar[str] = "logits"
    beta: ClassVar[float] = 1.0
    several: ClassVar[bool] = False
    kinds: ClassVar[tuple[str, ...]] = ("classes",)
    moves_kernels: ClassVar[bool] = False

    def __init__(self, teacher_layer_name: str | None = None, student_layer_name: str | None = None) -> None:
        super().__init__(name=self.key or None, dtype="float32")
        self.teacher_layer_name, self.student_layer_name = teacher_layer_name, student_layer_name

    def compare(self, teacher: Any, student: Any) -> tf.Tensor:
        """The loss, a scalar, from what is read on both sides (float32).

        It is also handed `labels`, `images` or `kind`, see `compute_loss`, where it has a parameter of that
        name.
        """
        raise NotImplementedError(type(self).__name__)

    def prepare(self, teacher: Any, student: Any) -> None:
        """Makes own weights; called once with the shapes of what is read on both sides."""

    def compute_loss(
        self,
        teacher_outputs: Any,
        student_outputs: Any,
        labels: Any = None,
        images: Any = None,
        kind: str = "classes",
        **_: Any,
    ) -> tf.Tensor:
        """A scalar float32.

        Args:
            teacher_outputs, student_outputs: {name of `READS`: tensor or list of tensors}, or what this
                loss reads alone. The teacher's logits may be of several, see `several`.
            labels: (b,) integers, for losses that need them.
            kind: of the task: what logits are, see `distillation.view`; "labels" are any that decide by
                themselves, such as one for two classes.
            images: number of different images n where rows i, i + n, … are views of one; None: all differ.

        No gradient reaches the teacher. Raises `UsageError` for a side that lacks what the loss reads.
        """
        teacher, student = (
            self._select(outputs, side, kind)
            for outputs, side in ((teacher_outputs, "teacher"), (student_outputs, "student"))
        )
        teacher, student = keras.tree.map_structure(lambda x: tf.cast(x, tf.float32), (teacher, student))
        if not self.built:
            self.build_for(
                *(keras.tree.map_structure(lambda x: x.shape, side) for side in (teacher, student))
            )
        more = {"labels": self._needed(labels)} if _wants(type(self), "labels") else {}
        given = {"images": images, "kind": kind}
        more |= {name: value for name, value in given.items() if _wants(type(self), name)}
        return self.compare(keras.tree.map_structure(tf.stop_gradient, teacher), student, **more)

    @property
    def of_outputs(self) -> bool:
        """Whether it compares logits or reads labels, and not features alone."""
        compared = self.reads in ("logits", "all") or _wants(type(self), "labels")
        return compared and not self.moves_kernels

    def build_for(self, teacher: Any, student: Any) -> None:
        """`prepare`, and remembers that it is done. Shapes are those of what the loss reads."""
        with keras.name_scope(self.key):
            self.prepare(teacher, student)
        self.built = True

    def build_from(self, teacher_outputs: Any, student_outputs: Any, kind: str = "classes") -> None:
        """`build_for` from outputs as `compute_loss` takes them, symbolic or not, unless it is done."""
        if not self.built:
            sides = zip((teacher_outputs, student_outputs), ("teacher", "student"), strict=True)
            read = [self._select(outputs, who, kind) for outputs, who in sides]
            self.build_for(*keras.tree.map_structure(lambda x: x.shape, read))

    def _select(self, outputs: Any, side: str, kind: str) -> Any:
        if self.reads == "all" and not isinstance(outputs, Mapping):
            raise UsageError(
                f"Loss {self.key!r} reads outputs by name. Received: {side} gives a {type(outputs).__name__}"
            )
        if isinstance(outputs, Mapping) and self.reads != "all":
            if self.reads not in outputs:
                raise UsageError(f"Loss {self.key!r} reads {self.reads}. Received: {side} gives {[*outputs]}")
            outputs = outputs[self.reads]
        if self.reads in ("stages", "blocks") and not isinstance(outputs, (list, tuple)):
            outputs = [outputs]
        one_voice = side == "teacher" and kind == "classes" and not self.several
        return self._one_voice(outputs) if one_voice else outputs

    def _one_voice(self, outputs: Any) -> Any:
        """The same, with the mean of the teachers' logits in place of (b, classes, teachers)."""
        if self.reads == "all":
            logits = {"logits": _mean_logits(outputs["logits"])} if "logits" in outputs else {}
            return {**outputs, **logits}
        return _mean_logits(outputs) if self.reads == "logits" else outputs

    def _needed(self, labels: Any) -> Any:
        if labels is None:
            raise UsageError(f"Loss {self.key!r} needs the labels. Received: labels=None")
        return labels

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Loss:
        """A loss with the options of `get_config`; a layer's further entries are the same for every loss."""
        return cls(**{name: config[name] for name in cls.option_names() if name in config})

    @classmethod
    def option_names(cls) -> list[str]:
        """What `__init__` takes, in its order."""
        parameters = inspect.signature(cls.__init__).parameters  # of the class itself some Pythons say *args
        return [name for name in parameters if name != "self"]

    # --- keras.distillation.Distiller asks these -----------------------------------------------------------

    def validate_outputs(self, teacher_outputs: Any, student_outputs: Any) -> None:
        """Both sides may differ in shape and number: each loss says itself what it cannot compare."""

    def validate_model_compatibility(self, teacher: keras.Model, student: keras.Model) -> None:
        """Makes own weights before the optimizer looks for them."""
        names = (self.teacher_layer_name, self.student_layer_name)
        self.build_from(*(_output(m, name) for m, name in zip((teacher, student), names, strict=True)))


def _mean_logits(logits: Any) -> Any:
    """(b, classes) from (b, classes) or (b, classes, teachers), symbolic or not."""
    several = len(getattr(logits, "shape", ())) == 3
    return keras.ops.mean(keras.ops.cast(logits, "float32"), -1) if several else logits


def _output(model: keras.Model, layer: str | None) -> Any:
    if layer:
        return model.get_layer(layer).output
    return model.outputs[0] if isinstance(model, keras.Sequential) else model.output


def _wants(cls: type[Loss], name: str) -> bool:
    compare: Callable = cls.compare
    return name in inspect.signature(compare).parameters


# --- by name ------------------------------------------------------------------------------------------------

LOSSES: Registry[type[Loss]] = Registry("loss", "losses", folder="secateur.distillation.losses")


def register(cls: type[Loss]) -> type[Loss]:
    """Class decorator: makes a loss known by its `key`. Raises `UsageError` for one that is taken."""
    if not cls.key:
        raise UsageError(f"A loss needs a key. Received: key='' of {cls.__qualname__}")
    return LOSSES.register(cls, name=cls.key)


def get_loss(key: str) -> type[Loss]:
    """A registered loss. Raises `UsageError` with the nearest valid name."""
    return LOSSES.find(key)


def list_losses() -> list[str]:
    """Names that `build` accepts."""
    return sorted(LOSSES)


def build(key: str, **options: Any) -> Loss:
    """A loss by name: `build("kd", temperature=4)`. Raises `UsageError` for a name or an option unknown."""
    cls = LOSSES.find(key)
    valid = cls.option_names()
    if wrong := next((name for name in options if name not in valid), None):
        raise UsageError(
            f"Unknown option of loss {key!r}. Received: {wrong}={options[wrong]!r}. {nearest(wrong, valid)}"
        )
    return cls(**options)


# --- for losses with weights of their own -------------------------------------------------------------------


class OwnBatchNorm(FusedBatchNorm):
    """Batch normalisation over the last axis, of (b, c) or (b, h, w, c), inside a loss.

    A model's call around the loss decides whether the batch's statistics are used and averaged. A loss
    outside of any is training: in `keras.distillation.Distiller`, and in `stateless_call`, which runs a
    model's `call` without what Keras knows of calls around a layer.
    """

    def call(self, inputs: tf.Tensor, training: bool | None = True) -> tf.Tensor:
        """Normalised inputs, of their shape. The averages move in training."""
        return super().call(inputs, training)
