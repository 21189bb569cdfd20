"""Runs a recipe: its steps one after the other, then the report."""

from __future__ import annotations

import itertools
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from secateur.dataloader import Splits
from secateur.dataloader.pipelines import normalisations_of
from secateur.op_utils import Workers, make_strategy
from secateur.recipes.engine.clock import Clock
from secateur.recipes.engine.config import VOLATILE, RunOptions
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.files import save_compact
from secateur.recipes.engine.flags import as_typed, in_flags, name_of, tables_of
from secateur.recipes.engine.inputs import (
    check_batch,
    check_names,
    load_fitting,
    load_splits,
    normalisation_of,
)
from secateur.recipes.engine.reading import read_rightly
from secateur.recipes.engine.recipe import RecipeFile, are_steps, check_steps, find_recipe
from secateur.recipes.engine.report import finish
from secateur.recipes.engine.step import NetworkStep, Start, State, Step, make_step
from secateur.recipes.engine.subject import Subject
from secateur.runs import (
    DataError,
    MetricsLog,
    RunFolder,
    RunFolderError,
    Snapshot,
    SnapshotError,
    UsageError,
    load_snapshot,
    read_json,
    sha256,
)
from secateur.runs.folder import damaged
from secateur.runs.followed import FollowedFolder, FollowedLog
from secateur.runs.start import quiet_tensorflow
from secateur.runs.suggest import nearest

ENDING = ("compact", "litert", "report")
RESERVED = (*ENDING, "model")
MOST = 9  # networks in a report: each is converted and timed
REPORTED = ("until", "time_seconds", "bn")  # options that change what is reported
MAY_DIFFER = (*VOLATILE, *REPORTED, "set", "flags", "program")
FOLLOWED = (*VOLATILE, "set", "flags")  # options in which a worker may differ from config.json
ALIKE = (
    "nan",
    "compile",
    "stream",
    "skip_bad",
)  # but not from the first worker: they decide who is waited for
# What a folder was run with that has no such option yet.
DEFAULTS = {name: field.default for name, field in RunOptions.model_fields.items() if not field.is_required()}
ENDED = -1.0  # what the chief of several workers says when all is done
ENGINE = 2  # folders of another engine cannot be continued


@dataclass(frozen=True)
class Program:
    """What a run folder belongs to: the options, and the steps as they will be done, `--set` included.

    Attributes:
        options: of the run.
        steps: those that will be done.
        whole: whether they are all of the recipe, to its end.
        flags: of the recipe, with their values.
        system: what reports call the method: the recipe, and flags that put other parts into it.
        recipe: that the steps are of.
    """

    options: RunOptions
    steps: Sequence[Step]
    whole: bool
    flags: Mapping[str, Any]
    system: str
    recipe: RecipeFile

    def to_json(self) -> dict:
        """Plain types, for config.json; with the digests of the snapshots, which must not change either."""
        given = [*_sources(self.options), *filter(None, [self.options.model])]
        digests = {path: sha256(path) for path in given}
        steps = [step.to_json() for step in self.steps]
        given = self.options.model_dump() | {"flags": self.flags}
        return {"engine": ENGINE, **given, "program": steps, "sha256": digests}


def run(options: RunOptions, recipe: RecipeFile | None = None, subject: Subject | None = None) -> dict:
    """Runs or continues a recipe in `options.train_path`; returns what report.json holds.

    `recipe` and `subject` are those that the options name, unless the caller has them.
    """
    check_names(None if options.model else options.arch, options.dataset)
    strategy = make_strategy(options.devices, options.tpu, cluster=True)  # before anything is computed
    program = program_of(options, recipe)
    sources = {path: load_snapshot(path) for path in _sources(options)}
    begins = program.steps[0].given(options)
    with Workers(strategy).own_scope():  # everything that a run makes lives on its devices
        subject = subject or Subject.of(options, sources.get(begins))
        for path, source in sources.items():
            arch = options.arch if path == begins else None
            load_fitting(path, source, arch, options.dataset, options.data_path, options.images.crop)
        splits = load_splits(options, _normalisation(options, sources), subject.shape)
        if not subject.classifies:
            splits = splits.unlabelled()
        if splits.facts.labelled:
            subject.check_classes(splits.facts.num_classes, options.dataset)
        report = _carry_out(program, subject, splits, strategy)
    if recipe is None and not Workers(strategy).follows:
        print(f"run folder: {options.train_path}  (report.html, report.json)")
    return report


def run_on(options: RunOptions, subject: Subject, splits: Splits) -> dict:
    """The same with a network and images that are in memory."""
    strategy = make_strategy(options.devices, options.tpu, cluster=True)
    program = program_of(options)
    with quiet_tensorflow(), Workers(strategy).own_scope():
        return _carry_out(program, subject, splits, strategy)


def _carry_out(program: Program, subject: Subject, splits: Splits, strategy: tf.distribute.Strategy) -> dict:
    """The folder is claimed last: a run that cannot start must not leave its options there."""
    options = _fitting(program.options, subject, len(splits.train))
    program = replace(program, options=options)
    splits = read_rightly(subject, splits, options)
    check(program, splits, subject, strategy.num_replicas_in_sync)
    workers, config = Workers(strategy), program.to_json()
    Folder, Log = (FollowedFolder, FollowedLog) if workers.follows else (RunFolder, MetricsLog)
    if workers.several and options.auto_accum:
        raise UsageError(
            "Memory may run out on one worker alone: give --accum N to all. Received: auto_accum=True, "
            f"{workers.count} workers"
        )
    if not workers.follows:
        _refuse_old(Path(options.train_path))
    may_differ = FOLLOWED if workers.follows else MAY_DIFFER
    with Folder(options.train_path, config, may_differ, DEFAULTS) as folder, Log(folder) as log:
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
        said = ", ".join(f"{name}={value!r}" for name, value in own.items())
        raise RunFolderError(f"The first worker has other options: give all the same. Received: {said}")


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


def program_of(options: RunOptions, recipe: RecipeFile | None = None) -> Program:
    """The steps of a recipe with its settings. Raises `UsageError`, in the words of the recipe's flags."""
    recipe = recipe or find_recipe(options.recipe)
    tables = recipe.changed(options.set)
    check_steps(tables, reserved=RESERVED)
    try:
        steps = [make_step(table) for table in tables]
        for step in steps:
            step.check_options(options)
    except UsageError as error:
        raise in_flags(error, recipe.flags) from None
    check_order([step for step in steps if not step.idle])
    if options.minutes and not any(getattr(step, "time_share", None) for step in steps):
        raise UsageError(
            "--minutes needs a recipe whose trainings have a time_share, as auto's have. "
            f"Received: minutes={options.minutes:g}, recipe={options.recipe}"
        )
    end = _end(steps, options.until)
    used = [step for i, step in enumerate(steps[:end], 1) if _is_used(step, steps[i:])]
    flags = {name: flag.standing(tables, vars(options)) for name, flag in recipe.flags.items()}
    system = " ".join([recipe.name, *_switched(recipe, flags)])
    return Program(options, used, end == len(steps), flags, system, recipe)


def _end(steps: Sequence[Step], until: str | None) -> int:
    """How many of the steps there are up to the one of this name."""
    names = [step.label for step in steps]
    if until and until not in names:
        raise UsageError(f"Unknown step. Received: until={until}. {nearest(until, names)}")
    return names.index(until) + 1 if until else len(steps)


def _switched(recipe: RecipeFile, flags: Mapping[str, Any]) -> list[str]:
    """Flags that put other parts into a recipe than its file does: `--criterion l1`, `--no-Knowledge`."""
    usual = {
        name: flag.standing(recipe.steps, recipe.options)
        for name, flag in recipe.flags.items()
        if flag.values
    }
    return [as_typed(name, flags[name]) for name, value in usual.items() if flags[name] != value]


def check(program: Program, splits: Splits, subject: Subject, replicas: int) -> None:
    """Raises for what would fail only hours later, when it is a step's turn."""
    options = program.options
    check_batch(options, len(splits.train), replicas)
    try:
        for step in program.steps:
            if step.needs_labels(options) and not splits.facts.labelled:
                raise DataError(
                    f"The step {step.label} needs labels that its outputs can be compared with: a sub-folder "
                    f"of images for each class, or secateur.compress. Received: data={options.data}"
                )
            step.check(Start(options, subject, splits, replicas))
    except UsageError as error:
        raise in_flags(error, program.recipe.flags) from None


def check_order(steps: Sequence[Step]) -> None:
    """Raises `UsageError` where a network changes after its files were written, or a bank is missing.

    Also where two steps write the same snapshot.
    """
    snapshots = [one.file or f"snap_{one.label}.pkl" for one in steps if isinstance(one, NetworkStep)]
    if twice := [file for file, count in Counter(snapshots).items() if count > 1]:
        raise UsageError(f"Each step writes a file of its own. Received: file={twice[0]!r} of two steps")
    for before, after in itertools.pairwise(steps):
        if before.writes and not after.writes:
            raise UsageError(
                f"{before.label} writes the network, which {after.label} then changes. Received: "
                f"{before.label} before {after.label}\nput it behind the other steps"
            )
    banks: list[str] = []
    for step in steps:
        if step.needs_bank and not (banks and banks[-1] in step.asks_bank):
            raise UsageError(
                f"It needs a step bank before it, with teachers = {' or '.join(step.asks_bank)}. "
                f"Received: {step.label} behind {f'one of {banks[-1]}' if banks else 'none'}"
            )
        banks += [step.teachers] if step.kind == "bank" else []


def _is_used(step: Step, later: Sequence[Step]) -> bool:
    """Not one that changes nothing, nor a bank that nobody asks."""
    return not step.idle and (step.kind != "bank" or any(step.teachers in one.asks_bank for one in later))


def _sources(options: RunOptions) -> list[str]:
    return [path for path in dict.fromkeys((*options.teacher, options.trained_param)) if path]


def _normalisation(options: RunOptions, sources: Mapping[str, Snapshot]) -> str:
    """What given weights need, the same for all; else the system's own constants, if it has some here."""
    wanted = options.normalisation
    found = {path: normalisation_of(wanted, source) for path, source in sources.items()}
    if len(set(found.values())) > 1:
        got = ", ".join(f"{path} {name}" for path, name in found.items())
        raise SnapshotError(
            f"Teachers and student must be normalised alike: --normalisation forces one. Received: {got}"
        )
    own = options.images.normalisation
    if options.model and not found:
        return "0..255" if wanted == "auto" else wanted
    if not found and wanted == "auto" and own in normalisations_of(options.dataset):
        return own
    return next(iter(found.values()), normalisation_of(wanted, None))


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


# --- going on with other steps ------------------------------------------------------------------------------


def _refuse_old(path: Path) -> None:
    config = path / "config.json"
    if os.path.isfile(config) and (found := _stored(config).get("engine")) != ENGINE:
        raise RunFolderError(
            f"{path} holds a run of another version, which cannot be continued: choose another --train_path. "
            f"Received: engine={found}"
        )


def _stored(config: Path) -> dict:
    """What config.json holds. Raises `RunFolderError` where no run has written that."""
    stored = read_json(config)
    sound = isinstance(stored, dict) and isinstance(stored.get("flags", {}), dict)
    if sound and are_steps(stored.get("program", [])):
        return stored
    raise damaged(config)


def forget_changed(folder: RunFolder, log: MetricsLog, wanted: Mapping) -> None:
    """Forgets the steps that this recipe now does otherwise, says so in one line, and stores the options.

    Files stay until they are made again. The options are stored last: after a kill it begins anew.
    """
    stored = _stored(folder.path("config.json"))
    stored["program"] = [_complete(table) for table in stored.get("program", [])]
    if all(stored.get(key) == wanted[key] for key in ("program", *REPORTED)):
        return
    done = dict.fromkeys([*folder.steps(), *folder.begun(), *(row["phase"] for row in log.rows())])
    again = outdated(stored["program"], wanted["program"], done)
    folder.forget(again)
    for step in again:
        log.truncate(step, -1)
    folder.write_json("config.json", wanted)
    changes = ", ".join(changed(stored, wanted)) or "the recipe has changed"
    print(f"{os.fspath(folder)}: {changes}" + (f"; to be done again: {', '.join(again)}" if again else ""))


def _complete(table: dict) -> dict:
    """A step of config.json with the options that came after it: it was run as with their defaults."""
    try:
        return make_step(table).to_json()
    except UsageError:  # of a kind, or with an option, that there is no more
        return table


def outdated(stored: Sequence[Mapping], wanted: Sequence[Mapping], done: Iterable[str]) -> list[str]:
    """Those of the steps `done` that come after the last step that two versions of a recipe share."""
    alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(stored, wanted, strict=False))
    kept = {name_of(table) for pair in alike for table in tables_of([pair[1]])}
    kept |= set(ENDING[:-1]) if stored == wanted else set()
    return [name for name in done if name.partition("-")[0] not in kept]


def changed(stored: Mapping, wanted: Mapping) -> list[str]:
    """In words, what two versions of a run have in common but with other values."""
    before, now = ({key: one.get(key) for key in REPORTED} | one.get("flags", {}) for one in (stored, wanted))
    found = [f"{key}={before.get(key)} is now {now[key]}" for key in now if before.get(key) != now[key]]
    if found:
        return found
    before = {name_of(table): table for table in tables_of(stored.get("program", []))}
    for table in tables_of(wanted["program"]):
        old = before.get(name := name_of(table), table)
        found += [
            f"{name}.{key}={old.get(key)} is now {value}"
            for key, value in table.items()
            if key != "steps" and old.get(key) != value
        ]
    return found
