"""A model of one's own: read from its file, with its images; and where the program may write."""

from __future__ import annotations

import os
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import keras

from secateur.exports.timing import Setup
from secateur.pruning.choose.ranking import check_prunable
from secateur.pruning.count.counting import unsized
from secateur.pruning.groups.analysis import Analysis, analyse
from secateur.pruning.layers import find_installed
from secateur.recipes.commands.images import ImageData, load_images
from secateur.recipes.commands.options import TIMED, PruneOptions
from secateur.recipes.commands.timing import setup_for
from secateur.runs import RunFolderError, SnapshotError, UsageError
from secateur.runs.errors import first_line
from secateur.runs.files import check_place

SUFFIXES = {"output": ".keras", "report": ".html", "save_plan": ".json"}


@dataclass(frozen=True)
class Subject:
    """What `python -m pruning` works on, and what it measures milliseconds with."""

    options: PruneOptions
    model: keras.Model
    analysis: Analysis
    data: ImageData | None
    setup: Setup

    @classmethod
    def of(cls, options: PruneOptions) -> Subject:
        """Reads model and images. Raises `UsageError` where they or the budget do not fit together."""
        model = load(options.model)
        analysis = analyse(model)
        check_prunable(analysis, model.name)
        check_sizes(options, model, analysis)
        data = load_images(options, model) if options.data else None
        setup = setup_for(options.backend, options.threads, options.ms_batch)
        return cls(options, model, analysis, data, setup)

    @property
    def sized(self) -> bool:
        """Whether the sizes of all inputs are fixed, so that operations can be counted."""
        return unsized(self.analysis) is None


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
    """Before any work: raises `SnapshotError` for a missing model, `RunFolderError` for a bad place.

    That is a folder that takes no file, or a file that would take the place of one that is read, or of
    another one that is written.
    """
    if not Path(options.model).is_file():
        raise SnapshotError(f"There is no such file. Received: model={options.model}")
    output = None if options.dry_run else options.output
    written = {"output": output, "report": options.report, "save_plan": options.save_plan}
    for name, path in written.items():
        if path is not None:
            check_place(path, SUFFIXES[name], name)
    if options.report:
        written["numbers of the report"] = str(Path(options.report).with_suffix(".json"))
    taken = {os.path.realpath(options.model): "This is the model itself"}
    if options.plan:
        taken[os.path.realpath(options.plan)] = "This is the plan that is applied"
    for name in ("output", "report", "numbers of the report", "save_plan"):
        if (path := written.get(name)) is None:
            continue
        if place := taken.get(os.path.realpath(path)):
            raise RunFolderError(f"{place}; choose another file. Received: {name}={path}")
        taken[os.path.realpath(path)] = f"This file takes the {name}"
