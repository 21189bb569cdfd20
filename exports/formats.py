"""The formats: how each is written, and what a file computes that is read back."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from secateur.exports.frozen import in_float32
from secateur.exports.litert import litert_runner, to_litert
from secateur.exports.parity import compare
from secateur.exports.signature import Runner, alone, outputs, sample_inputs
from secateur.nets.graph import functional_of
from secateur.runs.errors import SnapshotError
from secateur.runs.registry import Registry
from secateur.runs.start import quiet_stderr


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        suffix: of the file or folder.
        write: (model, path) → the file or folder.
        read: (path, number of samples, model) → what it computes.
        packages: what it needs beyond this project's requirements; the extra of the format's name has them.
        folder: whether it is one.
        form: model → what is written of it, and compared: the same at inference.
    """

    suffix: str
    write: Callable[[keras.Model, Path], None]
    read: Callable[[Path, int, keras.Model], Runner]
    packages: tuple[str, ...] = ()
    folder: bool = False
    form: Callable[[keras.Model], keras.Model] = lambda model: model


def at_rest(model: keras.Model) -> keras.Model:
    """A model around this one that calls it for inference. Keras exports the mode that calls recorded.

    It records a layer's default as if the user had said it: True for augmentation.
    """
    inputs = keras.tree.map_structure(
        lambda x: keras.Input(batch_shape=x.shape, dtype=x.dtype, name=x.name),
        functional_of(model)._inputs_struct,
    )
    return keras.Model(inputs, model(inputs, training=False), name=model.name)


def _write_litert(model: keras.Model, path: Path) -> None:
    path.write_bytes(to_litert(model))


def _read_litert(path: Path, count: int, model: keras.Model) -> Runner:
    return litert_runner(path.read_bytes(), count)


def _read_keras(path: Path, count: int, model: keras.Model) -> Runner:
    # Weights to the bit; outputs only nearly: two runs may add in another order.
    again = keras.models.load_model(path, compile=False)
    saved, loaded = ([v.numpy() for v in m.weights] for m in (model, again))  # not: states of Dropout
    if not compare(saved, loaded).exact:
        raise SnapshotError(f"Keras reads other weights from the file than it wrote. Received: path={path}")
    return lambda *inputs: outputs(again, inputs)


def _write_savedmodel(model: keras.Model, path: Path) -> None:
    with quiet_stderr():
        model.export(path, format="tf_saved_model", verbose=False)


def _read_savedmodel(path: Path, count: int, model: keras.Model) -> Runner:
    loaded = tf.saved_model.load(path)
    structure = functional_of(model)._inputs_struct
    return lambda *inputs: alone(
        [x.numpy() for x in keras.tree.flatten(loaded.serve(keras.tree.pack_sequence_as(structure, inputs)))]
    )


def _write_onnx(model: keras.Model, path: Path) -> None:
    outputs(model, sample_inputs(model, 1))  # Keras refuses a model that has never been called
    with quiet_stderr():
        model.export(path, format="onnx", verbose=False)


def _read_onnx(path: Path, count: int, model: keras.Model) -> Runner:
    # By name: the package is optional.
    runtime = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(*inputs: np.ndarray) -> Any:
        return alone(session.run(None, dict(zip(names, inputs, strict=True))))

    return run


FORMATS: Registry[Format] = Registry(
    "format",
    "formats",
    {
        "keras": Format(".keras", lambda model, path: model.save(path), _read_keras),
        "savedmodel": Format(".savedmodel", _write_savedmodel, _read_savedmodel, folder=True, form=at_rest),
        "litert": Format(".tflite", _write_litert, _read_litert, form=in_float32),
        "onnx": Format(".onnx", _write_onnx, _read_onnx, ("tf2onnx", "onnxruntime"), form=at_rest),
    },
    option="export",
)
