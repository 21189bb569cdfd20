"""What `python -m pruning` refuses before any work: places, criteria, and budgets that do not fit."""

from __future__ import annotations

import os
from pathlib import Path

import keras

from secateur.pruning.count.counting import unsized
from secateur.pruning.groups.analysis import Analysis
from secateur.pruning.score.registry import get_criterion
from secateur.recipes.commands.options import NO_IMAGES, PruneOptions
from secateur.recipes.engine.cutting import TIMED
from secateur.runs import RunFolderError, SnapshotError, UsageError
from secateur.runs.files import check_place

SUFFIXES = {"output": ".keras", "report": ".html", "save_plan": ".json"}


def check_criterion(options: PruneOptions) -> None:
    """Raises `UsageError` for a criterion that does not exist, and for one that lacks its images."""
    if get_criterion(options.criterion).needs_data and not options.data:
        raise UsageError(f"This criterion {NO_IMAGES}, criterion={options.criterion}")


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
