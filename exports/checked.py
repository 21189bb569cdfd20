"""Exports that are read back and compared: a file that computes something else is never left behind."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import keras

from secateur.exports.formats import FORMATS
from secateur.exports.parity import TOLERANCE, Parity, compare
from secateur.exports.signature import fixed_batch, outputs, sample_inputs
from secateur.runs.errors import RunFolderError, SnapshotError, UsageError, disk_errors, warn
from secateur.runs.files import make_atomic, temporary

SAMPLES = 4
SAVED_MODEL = {"saved_model.pb", "fingerprint.pb", "variables", "assets", "assets.extra"}


def require(names: Iterable[str]) -> None:
    """Raises `UsageError` for an unknown format or one whose packages are missing: ask before the work."""
    for name in names:
        entry = FORMATS.find(name)
        if missing := [package for package in entry.packages if importlib.util.find_spec(package) is None]:
            raise UsageError(
                f"The format {name!r} needs {' and '.join(missing)}. Received: export={name!r}\n"
                f"pip install {' '.join(missing)}, or install this project as secateur[{name}]"
            )


def export(model: keras.Model, path: str | os.PathLike, name: str) -> Parity:
    """Writes a model in a format and compares what the written file computes with the model.

    Args:
        model: functional or Sequential model.
        path: file, or for savedmodel a folder; a file or SavedModel that is there is replaced.
        name: "keras", "savedmodel", "litert" or "onnx".

    Raises:
        UsageError: unknown format, missing package, an operation that the format lacks.
        SnapshotError: the outputs differ by more than the tolerance; nothing is left behind.
        RunFolderError: the disk is full, the folder is missing or cannot be written, or `path` is a folder of
            something else.
    """
    require([name])
    check_replaceable(path, name)
    found: list[Parity] = []
    replace = make_folder if FORMATS[name].folder else make_atomic
    replace(path, lambda temp: found.append(_written(model, temp, name, path)))
    return found[0]


def check_replaceable(path: str | os.PathLike, name: str) -> None:
    """Raises `RunFolderError` for a folder where an export goes, unless a SavedModel replaces another."""
    if not os.path.isdir(path):
        return
    with disk_errors(path):
        inside = os.listdir(path)
    if not FORMATS[name].folder or not SAVED_MODEL.issuperset(inside):
        raise RunFolderError(
            f"This folder holds something else and is not replaced. Received: path={path}\n"
            "choose another place, or move the folder"
        )


def _written(model: keras.Model, temp: Path, name: str, path: str | os.PathLike) -> Parity:
    entry, count = FORMATS[name], fixed_batch(model) or SAMPLES
    inputs, given, model = sample_inputs(model, count), model, entry.form(model)
    if name == "litert" and model is not given:
        warn(f"{path} computes in float32 what {given.name!r} computes in mixed precision")
    entry.write(model, temp)
    found = entry.read(temp, count, model)(*inputs)
    parity = compare(outputs(model, inputs), found if isinstance(found, list) else [found])
    if not parity.relative <= TOLERANCE:
        raise SnapshotError(
            f"The {name} file computes something else than the model and is not kept. Received: a difference "
            f"of {parity.relative:.1e} of an output's largest number, path={path}"
        )
    return parity


def make_folder(path: str | os.PathLike, make: Callable[[Path], None]) -> None:
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
