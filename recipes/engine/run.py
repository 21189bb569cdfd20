"""Runs a recipe: its steps one after the other, then the report."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import tensorflow as tf

from secateur.dataloader import Splits
from secateur.dataloader.pipelines import Constants, normalisations_of
from secateur.op_utils import Workers, make_strategy
from secateur.recipes.engine.clock import Clock
from secateur.recipes.engine.config import VOLATILE, RunOptions
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.files import save_compact
from secateur.recipes.engine.inputs import (
    check_names,
    constants_of,
    load_fitting,
    load_splits,
    normalisation_of,
)
from secateur.recipes.engine.outdated import (
    DEFAULTS,
    IMAGES,
    MAY_DIFFER,
    forget_changed,
    images_of,
    refuse_old,
)
from secateur.recipes.engine.program import Program, check, program_of, sources_of, warn_of_batches
from secateur.recipes.engine.reading import resolve_pixels
from secateur.recipes.engine.recipe import RecipeFile
from secateur.recipes.engine.report import finish
from secateur.recipes.engine.step import State
from secateur.recipes.engine.subject import Subject
from secateur.runs import (
    MetricsLog,
    RunFolder,
    RunFolderError,
    Snapshot,
    SnapshotError,
    UsageError,
    load_snapshot,
    read_json,
)
from secateur.runs.followed import FollowedFolder, FollowedLog
from secateur.runs.start import quiet_tensorflow

Reading = tuple[str, Constants | None]  # name of a normalisation, and its numbers where the user gave them
MOST = 9  # networks in a report: each is converted and timed
FOLLOWED = (*VOLATILE, "set", "flags", IMAGES)  # options in which a worker may differ from config.json
# Options in which it may not from the first worker: they decide who is waited for.
ALIKE = ("nan", "compile", "stream", "skip_bad")
ENDED = -1.0  # what the chief of several workers says when all is done


def run(options: RunOptions, recipe: RecipeFile | None = None, subject: Subject | None = None) -> dict:
    """Runs or continues a recipe in `options.train_path`; returns what report.json holds.

    `recipe` and `subject` are those that the options name, unless the caller has them.
    """
    check_names(None if options.model else options.arch, options.dataset)
    strategy = make_strategy(options.devices, options.tpu, cluster=True)  # before anything is computed
    program = program_of(options, recipe)
    sources = {path: load_snapshot(path) for path in sources_of(options)}
    begins = program.steps[0].given(options)
    with Workers(strategy).own_scope():  # everything that a run makes lives on its devices
        subject = subject or Subject.of(options, sources.get(begins))
        for path, source in sources.items():
            arch, crop = options.arch if path == begins else None, subject.shown(options.images).crop
            load_fitting(path, source, arch, options.dataset, options.data_path, crop)
        if subject.original is not None and not options.model:
            options = options.model_copy(update={"arch": subject.original.name})
            program = replace(program, options=options)
        stated = any("normalisation" in source.facts for source in sources.values())
        shape = subject.loaded(options.images, options.dataset)
        splits = load_splits(options, *_reading(options, sources), shape)
        if splits.facts.labelled:
            subject = subject.classifying(splits.facts.num_classes)
        if not subject.classifies:
            splits = splits.unlabelled()
        if splits.facts.labelled:
            names = splits.facts.class_names or ()
            subject.check_classes(splits.facts.num_classes, options.data or options.dataset, names)
        splits = resolve_pixels(subject, splits, options, stated)
        report = _carry_out(program, subject, splits, strategy)
    if recipe is None and not Workers(strategy).follows:
        print(f"run folder: {options.train_path}  (report.html, report.json)")
    return report


def run_on(options: RunOptions, subject: Subject, splits: Splits, in_memory: Mapping[str, str]) -> dict:
    """The same with a network and images that are in memory; `in_memory` is as in `Program`."""
    strategy = make_strategy(options.devices, options.tpu, cluster=True)
    program = replace(program_of(options), in_memory=in_memory)
    with quiet_tensorflow(), Workers(strategy).own_scope():
        return _carry_out(program, subject, resolve_pixels(subject, splits, options), strategy)


def _carry_out(program: Program, subject: Subject, splits: Splits, strategy: tf.distribute.Strategy) -> dict:
    """The folder is claimed last: a run that cannot start must not leave its options there."""
    given, options = program, _fitting(program.options, subject, len(splits.train))
    program = replace(program, options=options)
    check(program, splits, subject, strategy.num_replicas_in_sync)
    warn_of_batches(given)
    workers, config = Workers(strategy), program.to_json() | {IMAGES: images_of(splits)}
    Folder, Log = (FollowedFolder, FollowedLog) if workers.follows else (RunFolder, MetricsLog)
    if workers.several and options.auto_accum:
        raise UsageError(
            "Memory may run out on one worker alone: give --accum N to all. Received: auto_accum=True, "
            f"{workers.count} workers"
        )
    if not workers.follows:
        refuse_old(Path(options.train_path))
    may_differ = FOLLOWED if workers.follows else MAY_DIFFER
    usual = DEFAULTS | {"in_memory": config.get("in_memory")}  # earlier versions kept no digests
    with Folder(options.train_path, config, may_differ, usual) as folder, Log(folder) as log:
        if not workers.follows:
            forget_changed(folder, log, config)
        check_alike(workers, options)
        if workers.follows:
            folder.read()
        clock = Clock.of(options, folder)
        if options.balanced and splits.facts.labelled:
            print(_balanced(splits.train.labels))
        return _walk(RunContext(options, folder, log, splits, strategy, subject, clock), program)


def check_alike(workers: Workers, options: RunOptions) -> None:
    """Raises `RunFolderError` on a worker that would not meet the others: it would wait for ever.

    config.json cannot say so: it has what a run began with, and these may change when it continues.
    """
    own = {name: getattr(options, name) for name in ALIKE}
    number = zlib.crc32(repr(own).encode())  # which float64, the type of what workers say, holds exactly
    if workers.agreed(number) != number:
        text = ", ".join(f"{name}={value!r}" for name, value in own.items())
        raise RunFolderError(f"The first worker has other options: give all the same. Received: {text}")


def _balanced(labels: np.ndarray) -> str:
    """How often the images of a class come in an epoch, in a line."""
    counts = np.unique(labels, return_counts=True)[1]
    return (
        f"balanced: each of {len(counts)} classes comes {len(labels) // len(counts):,} times an epoch; "
        f"they have {counts.min():,} to {counts.max():,} images"
    )


def _fitting(options: RunOptions, subject: Subject, images: int) -> RunOptions:
    """The options with a batch for four steps an epoch where one's own images are few and nobody said it."""
    given = subject.original is None or "batch_size" in options.model_fields_set
    if given or 4 * options.batch_size <= images:
        return options
    size = max(1, images // 4 // options.accum) * options.accum
    print(f"batch_size: {size}, for four steps an epoch of {images} training images")
    return options.model_copy(update={"batch_size": size})


def _reading(options: RunOptions, sources: Mapping[str, Snapshot]) -> Reading:
    """What given weights need, the same for all; else the system's own constants, if it has some here."""
    wanted = options.normalisation
    named = {path: normalisation_of(wanted, source) for path, source in sources.items()}
    found = {path: (name, constants_of(options, name, sources[path])) for path, name in named.items()}
    if len(set(found.values())) > 1:
        got = ", ".join(f"{path} {' '.join(map(str, filter(None, one)))}" for path, one in found.items())
        raise SnapshotError(
            f"Teachers and student must be normalised alike: --normalisation forces one. Received: {got}"
        )
    own = options.images.normalisation
    if found:
        return next(iter(found.values()))
    if options.model:
        name = "0..255" if wanted == "auto" else wanted
    elif wanted == "auto" and own in normalisations_of(options.dataset):
        name = own
    else:
        name = normalisation_of(wanted, None)
    return name, options.constants


def _walk(context: RunContext, program: Program) -> dict:
    state = State()
    if (done := context.folder.steps()) and "report" not in done:
        print(f"{context.config.train_path}: goes on behind step {done[-1]}")
    for step in program.steps:
        state = step.run(context, replace(state, name=step.label))
    if context.workers.follows:
        while context.workers.agreed() != ENDED:
            pass  # files that the chief makes behind the last step
        return read_json(context.folder.path("report.json"))
    lite = save_compact(context, state.network) if program.whole else None
    report = finish(context, program.system, _rows(context.config.teacher, state), state, lite)
    context.workers.agreed(ENDED)
    return report


def _rows(teachers: Sequence[str], state: State) -> dict[str, Path]:
    """Name → snapshot of what a report shows: teachers, the dense network, then the last ones."""
    taught = {f"teacher {i}" if len(teachers) > 1 else "teacher": Path(p) for i, p in enumerate(teachers, 1)}
    first, *others = dict.fromkeys((*state.shown, state.network))
    return taught | {_row(path): path for path in (first, *others[1 - MOST :])}


def _row(path: Path) -> str:
    """snap_train-2.pkl → train-2, slimmed_param.pkl → slimmed."""
    return path.stem.removeprefix("snap_").removesuffix("_param")
