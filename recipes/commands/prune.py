"""`python -m pruning`: a saved Keras model in, a smaller plain one out, everything measured on the way."""

from __future__ import annotations

import contextlib
from pathlib import Path

import keras

from secateur.exports import FORMATS, Parity, compare, export, require
from secateur.exports.signature import outputs, sample_inputs
from secateur.pruning import Plan, compact, mask
from secateur.pruning.count.tables import summary
from secateur.pruning.score.registry import get_criterion
from secateur.recipes.commands.model import Subject, check_places
from secateur.recipes.commands.options import PruneOptions
from secateur.recipes.commands.plan import choose
from secateur.recipes.commands.report import costs_table, measure, widths_table, write_report
from secateur.recipes.commands.training import accuracy, fine_tune, reestimate, warn_at_chance
from secateur.runs import UsageError, warn, write_json
from secateur.runs.text import table

SAME = 1e-4  # of an output's largest number: masked and compact model in float32
SAMPLES = 4


def run(options: PruneOptions) -> None:
    """Everything that the options ask for."""
    require(options.export)
    check_places(options)
    check_criterion(options)
    subject = Subject.of(options)
    with contextlib.closing(subject.setup):
        _prune(subject)


def check_criterion(options: PruneOptions) -> None:
    """Raises `UsageError` for a criterion that does not exist, and for one that lacks its images."""
    if get_criterion(options.criterion).needs_data and not options.data:
        raise UsageError(
            "This criterion needs images: give --data FOLDER or tfds:NAME. Received: "
            f"criterion={options.criterion}, data=None"
        )


def _prune(subject: Subject) -> None:
    options = subject.options
    print(summary(subject.model, options.convention), end="\n\n")
    plan, curves = choose(subject)
    if options.save_plan:
        write_json(options.save_plan, plan.to_json())
    print(widths_table(plan), end="\n\n")
    small = compact(subject.model, plan, options.preserve_norm)
    rows = measure(subject, small)
    print(costs_table(rows, options.convention), end="\n\n")
    parities = {}
    if not options.dry_run:
        parities["masked model"] = compare_masked(subject, plan, small)
        if subject.data:
            for row, right in zip(rows, recover(subject, small), strict=True):
                row["holdout_accuracy"] = right
        parities |= write(options, small)
    if options.report:
        write_report(subject, plan, curves, rows, parities)


def compare_masked(subject: Subject, plan: Plan, small: keras.Model) -> Parity:
    """How far the smaller model is from the model with its channels zeroed; warns above `SAME`."""
    inputs = sample_inputs(subject.model, SAMPLES)
    masked = mask(subject.model, plan, subject.options.preserve_norm)
    same = compare(outputs(masked, inputs), outputs(small, inputs))
    print(f"masked and compact model: {same}")
    if not same.relative <= SAME:
        warn(f"the compact model should equal the masked one. Received: a difference of {same.relative:.1e}")
    return same


def recover(subject: Subject, small: keras.Model) -> tuple[float, float]:
    """Averages of BN and fine-tuning, in place; prints the accuracy on the holdout after each.

    Returns that of the model, and that of the smaller one at the end.
    """
    options, data = subject.options, subject.data
    size = options.batch_size
    stages = {"before": accuracy(subject.model, data, size), "pruned": accuracy(small, data, size)}
    warn_at_chance(stages["before"], data.classes)
    if reestimate(small, data, size):
        stages["averages of BN re-estimated"] = accuracy(small, data, size)
    if options.finetune_epochs:
        fine_tune(small, data, options)
        reestimate(small, data, size)  # Keras' momentum of 0.99 keeps old averages for hundreds of steps
        stages["fine-tuned"] = accuracy(small, data, size)
    rows = [(name, f"{100 * value:.2f}") for name, value in stages.items()]
    print(table((f"accuracy on {len(data.holdout[1])} images held out", "%"), rows), end="\n\n")
    return stages["before"], [*stages.values()][-1]


def write(options: PruneOptions, small: keras.Model) -> dict[str, Parity]:
    """Writes the model first, since an export may fail. Format → its distance from the model."""
    parities = {}
    for name in dict.fromkeys(("keras", *options.export)):
        path = Path(options.output).with_suffix(FORMATS[name].suffix)
        parities[name] = export(small, path, name)
        print(f"{path}: {parities[name]}")
    return parities
