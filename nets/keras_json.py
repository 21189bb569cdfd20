"""The graph of a Keras model as JSON, and back: only layers of Keras itself, and none that runs code.

A user's own classes are allowed where the caller says so and where they were registered in this process
(`keras.saving.register_keras_serializable`): a file names them, it never brings their code.
"""

from __future__ import annotations

import contextlib
import copy
import importlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state

from secateur.runs.errors import UsageError, first_line
from secateur.runs.recursion import deep
from secateur.runs.stubs import Refused

# Where classes may come from, and what they have to be. Their names are looked up, never imported.
ROOMS = {
    "keras.layers": (keras.layers, keras.Layer),
    "keras.initializers": (keras.initializers, keras.initializers.Initializer),
    "keras.regularizers": (keras.regularizers, keras.Regularizer),
    "keras.constraints": (keras.constraints, keras.constraints.Constraint),
}
EXACT = {
    ("keras", "DTypePolicy"),
    ("keras", "Functional"),
    ("keras", "Sequential"),
    ("keras.src.models.functional", "Functional"),
    ("keras.src.models.sequential", "Sequential"),
    (None, "__ellipsis__"),
    (None, "__keras_tensor__"),
    (None, "__slice__"),
}
CORE = (
    "Cast", "ConvertToTensor", "SaturateCast", "Scatter", "ScatterUpdate", "Slice", "SliceUpdate",
    "StopGradient", "Unstack",
)  # fmt: skip
"""Operations that take no function, unlike their neighbours."""
EXACT |= {("keras.src.ops.core", name) for name in CORE}
CONSTANT = ("__numpy__", "__tensor__")  # as the mask of attention in windows
NUMBERS = {"bool", "int8", "int16", "int32", "int64", "uint8", "float16", "bfloat16", "float32", "float64"}
OPERATIONS = (
    "keras.src.activations.activations",
    *(f"keras.src.ops.{room}" for room in ("numpy", "nn", "math", "image", "linalg")),
)
"""x + y, keras.ops.relu(x), … between layers."""
RUNNING_CODE = {"Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer"}
CONSTANTS = 2**20  # bytes that a graph may spread beside its weights
UNINITIALISED = "uninitialized_variables"  # where Keras lists variables that wait for a value
NOT_KEPT = ("compile_config",)  # optimizer, loss, metrics: no part of what a model computes


def config_of(model: keras.Model, own: bool = False) -> dict:
    """The graph as JSON, without how it was trained.

    `own` allows registered classes of the user. Raises `UsageError` for a model without a graph and for
    layers that are not allowed.
    """
    if not getattr(model, "inputs", None):
        raise UsageError(
            "Only functional models, and Sequential ones with an Input, can be stored. "
            f"Received: {model.name!r} without inputs"
        )
    for layer in _layers(model):
        if hasattr(layer, "save_assets"):
            raise UsageError(
                f"Layer {layer.name!r} keeps more than weights. Received: {type(layer).__name__}"
            )
    config = _without(keras.saving.serialize_keras_object(model))
    try:
        check(config, own)
    except Refused as error:
        raise UsageError(f"{model.name!r} cannot be stored: {error}") from None
    return config


def weight_names(model: keras.Model) -> list[str]:
    """A name for each of `model.weights`: its path, with a number where nested models have one twice."""
    seen: Counter[str] = Counter()
    names = []
    for variable in model.weights:
        seen[variable.path] += 1
        number = seen[variable.path]
        names.append(variable.path if number == 1 else f"{variable.path} #{number}")
    return names


def _layers(model: keras.Model) -> Iterator[keras.Layer]:
    return (layer for layer in model._flatten_layers() if layer is not model)


def _without(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without(inner) for key, inner in value.items() if key not in NOT_KEPT}
    return [_without(inner) for inner in value] if isinstance(value, list | tuple) else value


def check(config: Any, own: bool = False) -> None:
    """Raises `Refused` for a graph with anything but Keras' own layers, or with one that runs code.

    `own` allows classes of the user that this process has registered.
    """
    waiting = [config]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            if "class_name" in value and not (_known(value) or (own and _registered(value))):
                room, name = (str(value.get(key))[:60] for key in ("module", "class_name"))
                more = (
                    ", and classes that are registered (--import FILE.py, custom_object_scope)" if own else ""
                )
                raise Refused(
                    f"only Keras' own layers are allowed{more}, none that runs code. Received: {room}.{name}"
                )
            calls = value.get("inbound_nodes", [])
            if not isinstance(calls, list) or not all(map(_reads, calls)):
                raise Refused("its graph has a call that reads no tensor")  # Keras would compute it at once
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)


def _reads(node: Any) -> bool:
    """Whether a call reads a tensor of the graph."""
    waiting = [node]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            if value.get("class_name") == "__keras_tensor__":
                return True
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
    return False


def _known(value: Mapping) -> bool:
    room, name = value.get("module"), value["class_name"]
    if not isinstance(name, str) or not isinstance(room, str | None):
        return False
    if value.get("registered_name") not in (None, name) or "compile_config" in value:
        return False  # a registered name would be looked up among custom classes first
    if (room, name) in EXACT:
        return True
    if room is None and name in CONSTANT:  # text of a stated length would be larger than its file
        given = value.get("config")
        return isinstance(given, Mapping) and str(given.get("dtype")) in NUMBERS
    if room in OPERATIONS:
        found, kind = getattr(importlib.import_module(room), name, None), keras.Operation
    else:
        if room not in ROOMS:
            return False
        module, kind = ROOMS[room]
        found = getattr(module, name, None)
    if not isinstance(found, type) or not issubclass(found, kind):
        return False
    reads_files = hasattr(found, "save_assets")  # a vocabulary may be the name of one
    return name not in RUNNING_CODE and not reads_files


def _registered(value: Mapping) -> bool:
    """Whether this process has registered a class under that name; no code comes from the file."""
    name = value.get("registered_name")
    found = keras.saving.get_registered_object(name) if isinstance(name, str) else None
    return isinstance(found, type) and "compile_config" not in value


# --- and back ----------------------------------------------------------------------------------------------


def build(config: dict, arrays: Sequence[np.ndarray], own: bool = False) -> keras.Model:
    """A model from its graph and the values of `model.weights`, in order.

    The graph is first built of symbols: nothing in it is computed before the shapes of its weights and the
    sizes of its constants are those of the arrays. Built once, a hostile file of 2 KB takes 1.1 GB; and with
    Keras' random values, to be replaced, a model takes three times as long. Raises `Refused` where the graph
    is not allowed (see `check`, also for `own`), cannot be built, or has other weights.
    """
    check(config, own)
    stated = sum(array.nbytes for array in arrays)
    with tf.Graph().as_default(), _without_values():
        symbols = _made(config)
        wanted = [(tuple(v.shape), v.dtype) for v in symbols.weights]
        if _constants(symbols) > stated + CONSTANTS:
            raise Refused("its graph has larger constants than weights")
    found = [(array.shape, array.dtype.name) for array in arrays]
    if wanted != found:
        raise Refused(f"its graph has other weights than its arrays: {_first_difference(wanted, found)}")
    with _without_values() as waiting:
        model = _made(config)
    for variable, array in zip(model.weights, arrays, strict=True):
        variable._initialize(array)  # random values to begin with would cost more than all else
    for variable in waiting:
        if variable._value is None:  # states of random layers, which are no weights
            variable._deferred_initialize()
    for layer in _layers(model):
        if hasattr(layer, "finalize_state"):  # Normalization computes with copies of its weights
            layer.finalize_state()
    return model


def _constants(model: keras.Model) -> int:
    """Bytes of what layers spread over their inputs: the given averages of a Normalization."""
    spread = [layer for layer in _layers(model) if isinstance(layer, keras.layers.Normalization)]
    return sum(4 * int(np.prod(tensor.shape)) for layer in spread for tensor in (layer.mean, layer.variance))


@contextlib.contextmanager
def _without_values() -> Iterator[list]:
    """Variables made inside have no values and are listed; Keras forgets that it owes them some."""
    before = list(global_state.get_global_attribute(UNINITIALISED) or ())
    known = set(map(id, before))
    made: list = []
    try:
        with keras.StatelessScope(initialize_variables=False):
            yield made
    finally:
        made += [v for v in global_state.get_global_attribute(UNINITIALISED) or () if id(v) not in known]
        global_state.set_global_attribute(UNINITIALISED, before)


def _made(config: dict) -> keras.Model:
    try:
        own = copy.deepcopy(config)  # Keras empties what it is given
        with deep(len(own["config"]["layers"])):
            made = keras.saving.deserialize_keras_object(own, safe_mode=True)
    except Exception as error:  # whatever a graph that nobody wrote makes Keras or TensorFlow raise
        reason = first_line(error)
        raise Refused(f"its graph cannot be built ({reason})") from None
    if not isinstance(made, keras.Model):
        raise Refused("its graph is not that of a model")
    return made


def _first_difference(wanted: Sequence, found: Sequence) -> str:
    for place, (one, other) in enumerate(zip(wanted, found, strict=False)):
        if one != other:
            return f"{one} for {other} in place {place}"
    return f"{len(wanted)} for {len(found)}"
