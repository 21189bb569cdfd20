"""Which loss a user means: a name of Keras, an object, a function, or what a model was compiled with."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from secateur.runs.errors import UsageError
from secateur.runs.suggest import nearest

LossFunction = Callable[[Any, Any], Any]
"""(labels, outputs) → losses (n,), or their mean."""
Loss = str | LossFunction
"""What a user may say: also a name of Keras, or one of its objects."""
FAMILIES = {
    "sparse_categorical_crossentropy": "categorical",
    "categorical_crossentropy": "categorical",
    "categorical_focal_crossentropy": "categorical",
    "binary_crossentropy": "binary",
    "binary_focal_crossentropy": "binary",
    **dict.fromkeys(
        (
            "mean_squared_error", "mean_absolute_error", "mean_absolute_percentage_error",
            "mean_squared_logarithmic_error", "huber", "log_cosh",
        ),
        "numbers",
    ),
}  # fmt: skip
"""Function of `keras.losses` → what outputs it is of; all others are of a user's own."""
CROSS_ENTROPY = "cross-entropy"
"""Name of the loss that is taken where none is given."""
FOCAL = (keras.losses.categorical_focal_crossentropy, keras.losses.binary_focal_crossentropy)
NO_LOSSES = {"Loss", "get", "serialize", "deserialize"}


@dataclass(frozen=True)
class LossSpec:
    """A loss as it was given.

    Attributes:
        family: "categorical", "binary", "numbers" or "own", see `FAMILIES`.
        name: what messages call it.
        function: it; None where a name or function of Keras says which cross-entropy, but not of what: it is
            then that of logits or of shares, as the model's outputs are.
        sparse: whether it reads integers (True), one-hot labels (False), or either (None).
        ignored: label of what does not count, of SparseCategoricalCrossentropy(ignore_class=…).
    """

    family: str
    name: str
    function: LossFunction | None = None
    sparse: bool | None = None
    ignored: int | None = None

    @classmethod
    def of(cls, loss: Loss, compiled: bool = False) -> LossSpec:
        """What a name, an object or a function of `keras.losses` is, or a function of a user's own.

        Args:
            loss: also a subclass of `keras.losses.Loss`, of which `call` is used.
            compiled: whether Keras would call it, which makes labels float32, and of as many axes as the
                outputs.

        Raises `UsageError` with the nearest name for one that Keras does not know.
        """
        found = _by_name(loss) if isinstance(loss, str) else loss
        if not callable(found):
            raise UsageError(
                "A loss is a name of keras.losses, one of its objects, or a function of labels and outputs. "
                f"Received: loss={loss!r}"
            )
        name = name_of(found)
        family = FAMILIES.get(name, "own") if _of_keras(found) else "own"
        is_object = isinstance(found, keras.losses.Loss)
        as_it_ends = family in ("categorical", "binary") and found not in FOCAL
        function = found.call if is_object else None if as_it_ends else found
        if family == "own" and (compiled or is_object or _of_keras(found)):
            function = _as_keras_calls(function)
        sparse = name.startswith("sparse") if family == "categorical" else None
        return cls(family, name, function, sparse, getattr(found, "ignore_class", None))

    def of_logits(self) -> LossSpec | None:
        """The same loss of what stands before the softmax or sigmoid; None where it knows no logits."""
        owner = getattr(self.function, "__self__", None)
        config = owner.get_config() if isinstance(owner, keras.losses.Loss) else {}
        if "from_logits" in config:
            return replace(self, function=type(owner).from_config(config | {"from_logits": True}).call)
        if self.function in FOCAL:
            return replace(self, function=partial(self.function, from_logits=True))
        return self if self.function is None else None

    def of_classes(self, classes: int, one_hot: bool | None) -> LossSpec | None:
        """A user's loss as one of so many classes, whose labels are one-hot or integers.

        `one_hot` None tries both on numbers; the result is None where it reads neither.
        """
        if one_hot is None:
            rows = classes + 2  # a loss of as many rows as columns would take one for the other
            shares, labels = tf.fill((rows, classes), 1 / classes), tf.zeros(rows, tf.int32)
            forms = {False: labels, True: tf.one_hot(labels, classes)}
            one_hot = next((form for form, y in forms.items() if _reads(self.function, y, shares)), None)
        return None if one_hot is None else replace(self, sparse=not one_hot)

    def of_integers(self, classes: int) -> LossSpec:
        """The same loss where it reads one-hot labels, of integers."""
        if self.sparse is not False:
            return self
        function = None if self.function is None else partial(_one_hot_first, self.function, classes)
        return replace(self, function=function, sparse=None)


def compiled_losses(model: keras.Model) -> Any:
    """The loss that a model was compiled with, or a structure of them; None without any."""
    losses = getattr(model, "loss", None) if getattr(model, "compiled", False) else None
    found = [loss for loss in keras.tree.flatten(losses) if loss is not None]
    return (found[0] if len(model.outputs) == 1 else losses) if found else None


def per_output(structure: Any, model: keras.Model) -> list[Any]:
    """One of each output, from a list or a dictionary by names or keys of outputs; one goes for all."""
    if isinstance(structure, Mapping) and structure.keys() <= set(model.output_names):
        return [structure.get(name) for name in model.output_names]
    if isinstance(structure, Mapping):
        return [structure[key] for key in sorted(structure)]  # in the order of `model.outputs`
    many = isinstance(structure, (list, tuple))
    return list(structure) if many else [structure] * len(model.outputs)


def means(losses: Any) -> tf.Tensor:
    """Losses of every image and position (n, …) → (n,) float32; a mean stays one."""
    losses = tf.cast(losses, tf.float32)
    axes = list(range(1, len(losses.shape)))
    return tf.reduce_mean(losses, axes) if axes else losses


def name_of(loss: Any) -> str:
    """What messages call a loss: "MeanSquaredError" is "mean_squared_error"."""
    if isinstance(loss, keras.losses.Loss):
        return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(loss).__name__).lower()
    return getattr(loss, "__name__", type(loss).__name__)


def _by_name(name: str) -> Any:
    known = [n for n in vars(keras.losses) if not n.startswith("_") and n not in NO_LOSSES]
    try:
        return keras.losses.get(name)
    except ValueError as error:
        functions = [n for n in known if n.islower()]
        raise UsageError(f"Unknown loss. Received: loss={name!r}. {nearest(name, functions, 8)}") from error


def _of_keras(loss: Any) -> bool:
    made = type(loss) if isinstance(loss, keras.losses.Loss) else loss
    return any(made is known for known in vars(keras.losses).values())


def _reads(function: LossFunction, labels: tf.Tensor, outputs: tf.Tensor) -> bool:
    """Whether a loss can be computed of such labels: one number, or one of each image."""
    try:
        return tuple(function(labels, outputs).shape) in ((), (len(outputs),))
    except Exception:  # whatever a function of a user's raises of labels that it does not know
        return False


def _one_hot_first(function: LossFunction, classes: int, labels: Any, outputs: Any) -> Any:
    one_hot = len(labels.shape) == len(outputs.shape)
    return function(labels if one_hot else tf.one_hot(labels, classes), outputs)


def _as_keras_calls(function: LossFunction) -> LossFunction:
    """With float32 labels; those of shape (n,) become (n, 1) where the outputs are."""

    def call(labels: Any, outputs: Any) -> Any:
        labels = keras.tree.map_structure(lambda y: tf.cast(y, tf.float32), labels)
        if keras.tree.is_nested(labels) or keras.tree.is_nested(outputs):
            return function(labels, outputs)
        if len(labels.shape) == 1 and len(outputs.shape) == 2 and outputs.shape[-1] == 1:
            labels = labels[:, None]
        return function(labels, outputs)

    return call
