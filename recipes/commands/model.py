"""What `python -m pruning` works on: the model, its images, and what became of it."""

from __future__ import annotations

import os
import zipfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import keras

from secateur.exports import Parity
from secateur.exports.timing import Setup
from secateur.pruning.choose.sensitivity import Sensitivity
from secateur.pruning.count.counting import unsized
from secateur.pruning.groups.analysis import Analysis
from secateur.pruning.layers import find_installed
from secateur.recipes.commands.images import ImageData
from secateur.recipes.commands.options import TIMED, PruneOptions
from secateur.runs import RunFolderError, SnapshotError, UsageError
from secateur.runs.errors import first_line
from secateur.runs.files import check_place

SUFFIXES = {"output": ".keras", "report": ".html", "save_plan": ".json"}


@dataclass
class Subject:
    """The model under the shears: what is known of it and of what became of it."""

    options: PruneOptions
    model: keras.Model
    analysis: Analysis
    data: ImageData | None
    setup: Setup  # what milliseconds are measured with
    sensitivity: Sensitivity | None = None
    rows: list[dict] = field(default_factory=list)
    parities: dict[str, Parity] = field(default_factory=dict)

    @property
    def sized(self) -> bool:
        """Whether the sizes of all inputs are fixed, so that operations can be counted."""
        return unsized(self.analysis) is None


def check_sizes(options: PruneOptions, model: keras.Model, analysis: Analysis) -> None:
    """Raises `UsageError` for a budget that depends on sizes that are open."""
    name, value = options.target
    if name in ("keep_macs", *TIMED) and unsized(analysis):
        shapes = ", ".join(str(tensor.shape) for tensor in model.inputs)
        raise UsageError(
            f"--{name} needs inputs of fixed size. Received: {name}={value}, inputs {shapes}\n"
            "give --keep, --keep_params or --keep_bytes, or save the model with an Input of fixed size"
        )


def check_places(options: PruneOptions) -> None:
    """Before any work: raises `SnapshotError` for a missing model, `RunFolderError` for a bad place."""
    if not Path(options.model).is_file():
        raise SnapshotError(f"There is no such file. Received: model={options.model}")
    for name, suffix in SUFFIXES.items():
        path = getattr(options, name)
        if path is None or (options.dry_run and name == "output"):
            continue
        check_place(path, suffix, name)
    _check_apart(options)


def _check_apart(options: PruneOptions) -> None:
    """Raises `RunFolderError` where a file would take the place of one that is read, or of another one."""
    taken = {os.path.realpath(options.model): "This is the model itself"}
    if options.plan:
        taken[os.path.realpath(options.plan)] = "This is the plan that is applied"
    written = [("output", None if options.dry_run else options.output), ("report", options.report)]
    if options.report:
        written.append(("numbers of the report", str(Path(options.report).with_suffix(".json"))))
    for name, path in (*written, ("save_plan", options.save_plan)):
        if path is None:
            continue
        if place := taken.get(os.path.realpath(path)):
            raise RunFolderError(f"{place}; choose another file. Received: {name}={path}")
        taken[os.path.realpath(path)] = f"This file takes the {name}"


def load(path: str) -> keras.Model:
    """A saved model. Raises `SnapshotError` for a file that Keras cannot read."""
    if Path(path).suffix == ".keras" and not zipfile.is_zipfile(path):
        raise SnapshotError(f"This is no Keras file, or a damaged one. Received: model={path}")
    find_installed()
    try:
        return keras.models.load_model(path, compile=False)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise SnapshotError(
            f"This Keras file is damaged ({error}). Received: model={path}\ncopy or save it again"
        ) from error
    except (ValueError, TypeError, OSError, KeyError, ImportError, AttributeError) as error:
        own = "register_keras_serializable" in str(error)  # what Keras says of classes that it does not find
        hint = "\ngive --import FILE.py with its layers, and secateur.register_layer for each" if own else ""
        raise SnapshotError(
            f"Keras cannot read this model ({first_line(error)}). Received: model={path}{hint}"
        ) from error
