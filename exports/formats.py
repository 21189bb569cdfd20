"""The formats: write, read back, compare; a file that computes something else is never left behind."""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from exports.litert import litert_runner, to_litert
from exports.parity import TOLERANCE, Parity, compare
from exports.signature import Runner, alone, outputs, sample_inputs
from runs.errors import SnapshotError, UsageError, disk_errors
from runs.files import make_atomic, temporary
from runs.quiet import quiet_stderr
from runs.suggest import nearest

SAMPLES = 4


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        suffix: of the file or folder.
        write: (model, path) → the file or folder.
        read: (path, number of samples, model) → what it computes.
        packages: what it needs beyond this project's requirements; the extra of the format's name has them.
        folder: whether it is one.
    """

    suffix: str
    write: Callable[[keras.Model, Path], None]
    read: Callable[[Path, int, keras.Model], Runner]
    packages: tuple[str, ...] = ()
    folder: bool = False


def require(names: Iterable[str]) -> None:
    """Raises `UsageError` for an unknown format or one whose packages are missing: ask before the work."""
    for name in names:
        if name not in FORMATS:
            raise UsageError(f"Unknown format. Received: export={name!r}. {nearest(name, FORMATS)}")
        entry = FORMATS[name]
        if missing := [package for package in entry.packages if importlib.util.find_spec(package) is None]:
            raise UsageError(
                f"The format {name!r} needs {' and '.join(missing)}. Received: export={name!r}\n"
                f"pip install {' '.join(missing)}, or install this project as secateur[{name}]"
            )


def export(model: keras.Model, path: str | os.PathLike, name: str) -> Parity:
    """Writes a model in a format and compares what the written file computes with the model.

    Args:
        model: functional or Sequential model.
        path: file, or for savedmodel a folder; what is there is replaced.
        name: "keras", "savedmodel", "litert" or "onnx".

    Raises:
        UsageError: unknown format, missing package, an operation that the format lacks.
        SnapshotError: the outputs differ by more than the tolerance; nothing is left behind.
        RunFolderError: the disk is full, or the folder is missing or cannot be written.
    """
    require([name])
    found: list[Parity] = []
    replace = _make_folder if FORMATS[name].folder else make_atomic
    replace(path, lambda temp: found.append(_written(model, temp, name, path)))
    return found[0]


def _written(model: keras.Model, temp: Path, name: str, path: str | os.PathLike) -> Parity:
    entry, inputs = FORMATS[name], sample_inputs(model, SAMPLES)
    entry.write(model, temp)
    found = entry.read(temp, SAMPLES, model)(*inputs)
    parity = compare(outputs(model, inputs), found if isinstance(found, list) else [found])
    if not parity.relative <= TOLERANCE:
        raise SnapshotError(
            f"The {name} file computes something else than the model and is not kept. Received: a difference "
            f"of {parity.relative:.1e} of an output's largest number, path={path}"
        )
    return parity


def _make_folder(path: str | os.PathLike, make: Callable[[Path], None]) -> None:
    """`make_atomic` for a folder: what is there is moved aside, since renaming replaces no folder.

    When anything fails it is moved back.
    """
    target = Path(path)
    temp = temporary(target)
    old = temp.with_name(f"{temp.name}.old")
    with disk_errors(path):
        try:
            make(temp)
            if target.exists():
                os.replace(target, old)
            os.replace(temp, target)
        except BaseException:
            if old.exists() and not target.exists():
                os.replace(old, target)
            shutil.rmtree(temp, ignore_errors=True)
            raise
    _remove(old)


def _remove(path: Path) -> None:
    """A folder, or a file that stood in a folder's place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


# --- the formats --------------------------------------------------------------------------------------------


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
    structure = (getattr(model, "_functional", None) or model)._inputs_struct
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

    def run(*inputs: np.ndarray):
        return alone(session.run(None, dict(zip(names, inputs, strict=True))))

    return run


FORMATS: dict[str, Format] = {
    "keras": Format(".keras", lambda model, path: model.save(path), _read_keras),
    "savedmodel": Format(".savedmodel", _write_savedmodel, _read_savedmodel, folder=True),
    "litert": Format(".tflite", _write_litert, _read_litert),
    "onnx": Format(".onnx", _write_onnx, _read_onnx, packages=("tf2onnx", "onnxruntime")),
}
