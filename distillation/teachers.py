"""Who teaches. A teacher is a callable: what a step reads, and the student's logits → logits and features.

    teacher(inputs, student=None) -> {"logits": (b, classes) or (b, classes, teachers), "stages": […], …}

Of other tasks than classes the axes between are those of the student's logits, such as (b, h, w, classes).
`inputs["images"]` is what networks read, `inputs["bank"]` (b, classes, teachers) are stored logits. Only
filters look at the student. A loss cannot tell one teacher from another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import keras
import tensorflow as tf

from secateur import nets
from secateur.distillation.features import view
from secateur.distillation.pairing import convolutions
from secateur.runs.errors import UsageError
from secateur.runs.snapshot import Snapshot

Outputs = Mapping[str, Any]


class Teacher(Protocol):
    """What every teacher has.

    Attributes:
        variables: Keras variables that it reads; nothing ever writes them.
        symbols: its outputs as symbolic tensors, so that losses can make their own weights beforehand.
        convolutions: its layers of that kind, see `distillation.pairing`; [] without a network at hand.
        several: whether the last axis of its logits is that of teachers.
    """

    several: bool
    variables: list[keras.Variable]
    symbols: Outputs
    convolutions: list[keras.layers.Layer]

    def __call__(self, inputs: Mapping[str, tf.Tensor], student: tf.Tensor | None = None) -> Outputs:
        """Outputs for a batch."""


def checked(teacher: Any) -> Teacher:
    """The teacher. Raises `UsageError` for one that lacks an attribute of `Teacher`."""
    if missing := [name for name in Teacher.__annotations__ if not hasattr(teacher, name)]:
        raise UsageError(
            f"A teacher has the attributes {', '.join(Teacher.__annotations__)}. "
            f"Received: {type(teacher).__name__} without {', '.join(missing)}"
        )
    return teacher


def check_inputs(teacher: Teacher, inputs: Mapping[str, Any]) -> None:
    """Raises `UsageError` where stored logits are read that `inputs` do not have."""
    if isinstance(teacher, Banked) and "bank" not in inputs:
        raise UsageError(f"The stored logits are missing. Received: inputs={sorted(inputs)}\nAdd 'bank'")
    for one in (*getattr(teacher, "members", ()), getattr(teacher, "teacher", None)):
        if one is not None:
            check_inputs(one, inputs)


class Live:
    """A network that runs on the same images as the student, with its moving averages.

    Args:
        model: see `view`; its weights are shared, not copied.
        reads, layers, more, kind: see `view`.
    """

    several = False

    def __init__(
        self,
        model: keras.Model,
        reads: Iterable[str] = ("logits",),
        layers: Mapping[str, Sequence[str]] | None = None,
        more: Iterable[str] = (),
        kind: str = "classes",
    ) -> None:
        self.view = view(model, reads, layers, more, kind)
        self.variables, self.symbols = self.view.variables, self.view.output
        self.convolutions = convolutions(self.view)

    def __call__(self, inputs: Mapping[str, tf.Tensor], student: tf.Tensor | None = None) -> Outputs:
        """Logits float32 (b, classes), and features in the type that the network computes in."""
        outputs = self.view(inputs["images"], training=False)
        logits = keras.tree.map_structure(lambda z: tf.cast(z, tf.float32), outputs["logits"])
        return {**outputs, "logits": logits}


class Ensemble:
    """Several teachers side by side: logits (b, classes, teachers), features and kernels of the first.

    Raises `UsageError` for none, for what is no `Teacher`, and for outputs of different sizes.
    """

    several = True

    def __init__(self, members: Sequence[Teacher]) -> None:
        if not members:
            raise UsageError("An ensemble needs a member. Received: members=[]")
        shapes = [
            tuple(one.symbols["logits"].shape[1:-1] if one.several else one.symbols["logits"].shape[1:])
            for one in map(checked, members)
        ]
        ranks, axes = {len(shape) for shape in shapes}, list(zip(*shapes, strict=False))
        if len(ranks) > 1 or any(len({*sizes} - {None}) > 1 for sizes in axes):
            raise UsageError(f"Teachers of one ensemble need the same outputs. Received: {shapes}")
        shape = [next((size for size in sizes if size), None) for sizes in axes]
        self.members = list(members)
        self.variables = [variable for member in members for variable in member.variables]
        count = None if any(member.several for member in members) else len(members)
        logits = keras.KerasTensor((None, *shape, count))
        self.symbols: Outputs = {**members[0].symbols, "logits": logits}
        self.convolutions = members[0].convolutions

    def __call__(self, inputs: Mapping[str, tf.Tensor], student: tf.Tensor | None = None) -> Outputs:
        """Logits (b, classes, teachers); members of several teachers stand one after the other."""
        outputs = [member(inputs, student) for member in self.members]
        pairs = zip(self.members, outputs, strict=True)
        logits = [o["logits"] if member.several else o["logits"][..., None] for member, o in pairs]
        return {**outputs[0], "logits": tf.concat(logits, -1)}


class Banked:
    """Logits that were stored beforehand, from `inputs["bank"]` (b, classes, teachers).

    Args:
        shape: of one teacher's logits of one image.
    """

    several = True

    def __init__(self, shape: Sequence[int | None] = (None,)) -> None:
        self.variables: list[keras.Variable] = []
        self.convolutions: list[keras.layers.Layer] = []
        self.symbols: Outputs = {"logits": keras.KerasTensor((None, *shape, None))}

    def __call__(self, inputs: Mapping[str, tf.Tensor], student: tf.Tensor | None = None) -> Outputs:
        """Logits float32 (b, classes, teachers)."""
        check_inputs(self, inputs)
        return {"logits": tf.cast(inputs["bank"], tf.float32)}


def ensemble(members: Sequence[str | Path | Snapshot | keras.Model | Teacher], **options: Any) -> Teacher:
    """Teachers side by side from snapshots (paths too), models, or teachers.

    Args:
        members: at least one.
        options: see `Live`; for those that are not teachers yet.

    Errors are those of `nets.load_params`, `view` and `Ensemble`.
    """
    return Ensemble([_teacher(member, options) for member in members])


def _teacher(member: Any, options: Mapping[str, Any]) -> Teacher:
    if isinstance(member, (str, Path, Snapshot)):
        member = nets.load_params(None, member)
    return Live(member, **options) if isinstance(member, keras.Model) else member
