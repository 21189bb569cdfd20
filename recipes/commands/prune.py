"""`python -m pruning`: a saved Keras model in, a smaller plain one out, everything measured on the way.

With images it is a run of the steps `dense`, `prune` and `train`, or with --minutes of the recipe auto;
without, a plan and its network.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras

from secateur.exports import FORMATS, Parity, check_replaceable, compare, export, require
from secateur.exports.signature import outputs, sample_inputs
from secateur.exports.timing import Setup
from secateur.pruning import Plan, compact, mask
from secateur.pruning.choose.ranking import check_prunable
from secateur.pruning.count.counting import unsized
from secateur.pruning.count.tables import summary
from secateur.pruning.groups.analysis import Analysis, analyse
from secateur.pruning.score.registry import get_criterion
from secateur.recipes.commands.options import NO_IMAGES, PruneOptions
from secateur.recipes.commands.report import costs_table, measure, widths_table, write_report
from secateur.recipes.commands.running import compact_of, plan_of, ran, training
from secateur.recipes.engine import command
from secateur.recipes.engine.cutting import TIMED_BUDGETS, PlanOptions
from secateur.recipes.engine.recipe import find_recipe
from secateur.recipes.engine.subject import load_model
from secateur.recipes.engine.timing import setup_for
from secateur.recipes.steps.planning import Evidence, choose_plan
from secateur.reports.words import percent
from secateur.runs import SnapshotError, UsageError, warn, write_json
from secateur.runs.files import check_place, write_atomic

SAME = 1e-4  # of an output's largest number: masked and compact model in float32
SAMPLES = 4
SUFFIXES = {"output": ".keras", "report": ".html", "save_plan": ".json"}


@dataclass(frozen=True)
class Pruned:
    """The channels that stay, the network of them, and what was measured on images."""

    plan: Plan
    small: keras.Model
    report: Mapping[str, Any] = field(default_factory=dict)
    int8: bytes | None = None


def run(options: PruneOptions) -> None:
    """Everything that the options ask for."""
    require(options.export)
    check_places(options)
    check_criterion(options)
    model = load_model(options.model)
    analysis = analyse(model, options.channel_statistics)
    check_prunable(analysis, model.name)
    check_sizes(options, model, analysis)
    print(summary(model, options.convention, analysis=analysis), end="\n\n")
    with contextlib.closing(setup_for(options.backend, options.threads, options.ms_batch)) as setup:
        done = _on_images(options, model) if options.data else _by_weights(options, model, analysis, setup)
        _show_and_write(options, model, done, setup)


def _by_weights(options: PruneOptions, model: keras.Model, analysis: Analysis, setup: Setup) -> Pruned:
    known = Evidence({"seed": options.seed}, analysis=analysis)
    plan, _ = choose_plan(model, options, options.target, setup, known)
    return Pruned(plan, compact(model, plan, options.preserve_norm))


def _on_images(options: PruneOptions, model: keras.Model) -> Pruned:
    name, value = options.target
    if options.minutes:
        recipe = find_recipe(command.TIMED_RECIPE)
        whole = recipe.flags["int8"].settings(options.int8 or name == "keep_bytes")
        settings = [f"{key}={str(value).lower()}" for key, value in whole.items()]
        _, auto, *after = recipe.changed(settings)  # `ran` has its own dense network
        cut = auto | {name: value}
    else:
        cut = {name: getattr(options, name) for name in PlanOptions.model_fields} | {"kind": "prune"}
        after = [] if options.dry_run else training(options)
    steps = [cut | {"shown": True}, *after]
    with ran(options, f"{cut['kind']}, {name} {value}", options.model, model, steps) as (folder, report):
        for row in [] if options.minutes else report["epochs"]:
            print(f"epoch {row['step']}: loss {row['loss']:.4f}, hold-out {percent(row['holdout_accuracy'])}")
        file = folder / "int8.tflite"
        rounded = file.read_bytes() if file.exists() else None
        return Pruned(plan_of(folder, cut["kind"], model), compact_of(folder), report, rounded)


def _show_and_write(options: PruneOptions, model: keras.Model, done: Pruned, setup: Setup) -> None:
    if options.save_plan:
        write_json(options.save_plan, done.plan.to_json())
    print(widths_table(done.plan), end="\n\n")
    costs = measure(options, {"before": model, "after": done.small}, setup)
    print(costs_table(costs, options.convention), end="\n\n")
    parities = {}
    if not options.dry_run:
        parities = {"masked model": compare_masked(options, model, done)}
        parities |= write(options, done.small)
    if done.int8:
        path = Path(options.output)
        path = path.with_name(f"{path.stem}_int8.tflite")
        write_atomic(path, done.int8)
        print(f"{path}: {len(done.int8):,} bytes, in whole numbers")
    if options.report:
        write_report(options, model, done.plan, done.report, costs, parities, setup)


def compare_masked(options: PruneOptions, model: keras.Model, done: Pruned) -> Parity:
    """How far the smaller model, untrained, is from the one with its channels zeroed; warns above `SAME`."""
    inputs, how = sample_inputs(model, SAMPLES), (model, done.plan, options.preserve_norm)
    small = compact(*how) if done.report else done.small
    same = compare(outputs(mask(*how), inputs), outputs(small, inputs))
    print(f"masked and compact model: {same}")
    if not same.relative <= SAME:
        warn(f"the compact model should equal the masked one. Received: a difference of {same.relative:.1e}")
    return same


def write(options: PruneOptions, small: keras.Model) -> dict[str, Parity]:
    """Writes the model first, since an export may fail. Format → its distance from the model."""
    parities = {}
    for name in dict.fromkeys(("keras", *options.export)):
        path = Path(options.output).with_suffix(FORMATS[name].suffix)
        parities[name] = export(small, path, name)
        print(f"{path}: {parities[name]}")
    return parities


# --- what is refused before any work ------------------------------------------------------------------------


def check_criterion(options: PruneOptions) -> None:
    """Raises `UsageError` for a criterion that does not exist, and for one that lacks its images."""
    if get_criterion(options.criterion).needs_data and not options.data:
        raise UsageError(f"This criterion {NO_IMAGES}, criterion={options.criterion}")


def check_sizes(options: PruneOptions, model: keras.Model, analysis: Analysis) -> None:
    """Raises `UsageError` for a budget that depends on sizes that are open."""
    name, value = options.target
    if name in ("keep_macs", *TIMED_BUDGETS) and unsized(analysis):
        shapes = ", ".join(str(tensor.shape) for tensor in model.inputs)
        raise UsageError(
            f"--{name} needs inputs of fixed size. Received: {name}={value}, inputs {shapes}\n"
            "give --keep, --keep_params or --keep_bytes, or save the model with an Input of fixed size"
        )


def check_places(options: PruneOptions) -> None:
    """Before any work: raises `SnapshotError` for a missing model, `RunFolderError` for a bad place.

    `UsageError` is for a file that would take the place of one that is read, or of another one that is
    written.
    """
    if not os.path.isfile(options.model):
        raise SnapshotError(f"There is no such file. Received: model={options.model}")
    output = None if options.dry_run else options.output
    written = {"output": output, "report": options.report, "save_plan": options.save_plan}
    for name, path in written.items():
        if path is not None:
            check_place(path, SUFFIXES[name], name)
    for name in options.export if output else ():
        check_replaceable(Path(output).with_suffix(FORMATS[name].suffix), name)
    if options.report:
        written["numbers of the report"] = str(Path(options.report).with_suffix(".json"))
    taken = {os.path.realpath(options.model): "This is the model itself"}
    if options.plan:
        taken[os.path.realpath(options.plan)] = "This is the plan that is applied"
    for name in ("output", "report", "numbers of the report", "save_plan"):
        if (path := written.get(name)) is None:
            continue
        if place := taken.get(os.path.realpath(path)):
            raise UsageError(f"{place}; choose another file. Received: {name}={path}")
        taken[os.path.realpath(path)] = f"This file takes the {name}"
