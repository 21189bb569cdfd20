"""`python -m pruning`: a saved Keras model in, a smaller plain one out, everything measured on the way."""

from __future__ import annotations

import contextlib
from pathlib import Path

import keras

from secateur.exports import FORMATS, compare, export, require
from secateur.exports.signature import outputs, sample_inputs
from secateur.pruning import Plan, compact, mask
from secateur.pruning.choose.ranking import check_prunable
from secateur.pruning.count.tables import summary
from secateur.pruning.groups.analysis import analyse
from secateur.pruning.score.registry import get_criterion
from secateur.recipes.commands.images import load_images
from secateur.recipes.commands.model import Subject, check_places, check_sizes, load
from secateur.recipes.commands.options import RANGES_OF_PIXELS, PruneOptions
from secateur.recipes.commands.plan import choose
from secateur.recipes.commands.report import costs_table, measure, widths_table, write_report
from secateur.recipes.commands.timing import setup_for
from secateur.recipes.commands.training import accuracy, fine_tune, reestimate
from secateur.runs import UsageError, warn, write_json
from secateur.runs.text import table

SAME = 1e-4  # of an output's largest number: masked and compact model in float32
SAMPLES = 4


def run(options: PruneOptions) -> None:
    """Everything that the options ask for."""
    require(options.export)
    check_places(options)
    check_criterion(options)
    subject = _subject(options)
    with contextlib.closing(subject.setup):
        _prune(options, subject)


def _prune(options: PruneOptions, subject: Subject) -> None:
    model = subject.model
    print(summary(model, options.convention), end="\n\n")
    plan = choose(subject)
    if options.save_plan:
        write_json(options.save_plan, plan.to_json())
    print(widths_table(plan), end="\n\n")
    small = compact(model, plan, options.preserve_norm)
    measure(subject, small)
    print(costs_table(subject.rows, options.convention), end="\n\n")
    if not options.dry_run:
        finish(subject, plan, small)
    if options.report:
        write_report(subject, plan)


def check_criterion(options: PruneOptions) -> None:
    """Raises `UsageError` for a criterion that does not exist, and for one that lacks its images."""
    if get_criterion(options.criterion).needs_data and not options.data:
        raise UsageError(
            "This criterion needs images: give --data FOLDER or tfds:NAME. Received: "
            f"criterion={options.criterion}, data=None"
        )


def _subject(options: PruneOptions) -> Subject:
    """The model and its images, as far as they can be used."""
    model = load(options.model)
    analysis = analyse(model)
    check_prunable(analysis, model.name)
    check_sizes(options, model, analysis)
    data = None
    if options.data:
        data = load_images(options.data, model, RANGES_OF_PIXELS[options.pixels], options.data_path)
    setup = setup_for(options.backend, options.threads, options.ms_batch)
    return Subject(options, model, analysis, data, setup)


def finish(subject: Subject, plan: Plan, small: keras.Model) -> None:
    """Compares, trains, writes; the model itself comes first, since an export may fail."""
    compare_masked(subject, plan, small)
    if subject.data:
        recover(subject, small)
    for name in dict.fromkeys(("keras", *subject.options.export)):
        path = Path(subject.options.output).with_suffix(FORMATS[name].suffix)
        subject.parities[name] = export(small, path, name)
        print(f"{path}: {subject.parities[name]}")


def compare_masked(subject: Subject, plan: Plan, small: keras.Model) -> None:
    """Prints how far the smaller model is from the model with its channels zeroed; warns above `SAME`."""
    inputs = sample_inputs(subject.model, SAMPLES)
    masked = mask(subject.model, plan, subject.options.preserve_norm)
    same = compare(outputs(masked, inputs), outputs(small, inputs))
    subject.parities["masked model"] = same
    print(f"masked and compact model: {same}")
    if not same.relative <= SAME:
        warn(f"the compact model should equal the masked one. Received: a difference of {same.relative:.1e}")


def recover(subject: Subject, small: keras.Model) -> None:
    """Averages of BN and fine-tuning, in place; prints the accuracy on the holdout after each."""
    options, data = subject.options, subject.data
    size = options.batch_size
    stages = {"before": accuracy(subject.model, data, size), "pruned": accuracy(small, data, size)}
    if reestimate(small, data, size):
        stages["averages of BN re-estimated"] = accuracy(small, data, size)
    if options.finetune_epochs:
        fine_tune(small, data, options)
        stages["fine-tuned"] = accuracy(small, data, size)
    rows = [(name, f"{100 * value:.2f}") for name, value in stages.items()]
    print(table((f"accuracy on {len(data.holdout[1])} images held out", "%"), rows), end="\n\n")
    for row, value in zip(subject.rows, (stages["before"], [*stages.values()][-1]), strict=True):
        row["holdout_accuracy"] = value
