"""Runs a recipe that is a file: its steps one after the other, then the report."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from secateur.dataloader.pipelines import normalisations_of
from secateur.op_utils import make_strategy
from secateur.recipes.engine.config import VOLATILE
from secateur.recipes.engine.config_program import ProgramOptions
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.export import save_compact
from secateur.recipes.engine.inputs import (
    check_batch,
    check_names,
    load_fitting,
    load_splits,
    normalisation_of,
)
from secateur.recipes.engine.options import option
from secateur.recipes.engine.recipe import check_steps, find_recipe, name_of, tables_of
from secateur.recipes.engine.report import finish
from secateur.recipes.engine.state import State
from secateur.recipes.engine.step import Step, make_step
from secateur.runs import MetricsLog, RunFolder, Snapshot, UsageError, load_snapshot, read_json, sha256

MAY_DIFFER = (*VOLATILE, "set", "program", "time_seconds", "bn")
ENDING = ("compact", "litert", "report")
RESERVED = (*ENDING, "init", "model")
MOST = 8  # trained networks in a report: each is converted and timed


class Program(ProgramOptions):
    """Options together with the steps as they will be done, `--set` included: what a folder belongs to."""

    program: list[dict] = option([], "its steps")

    def to_json(self) -> dict:
        """Plain types, for config.json; with the digest of the start, which must not change either."""
        digest = {"sha256": sha256(self.trained_param)} if self.trained_param else {}
        return super().to_json() | digest


def run(config: ProgramOptions) -> dict:
    """Runs or continues a recipe in `config.train_path`; returns what report.json holds."""
    check_names(config.arch, config.dataset)
    tables = find_recipe(config.recipe).changed(config.set)
    check_steps(tables, reserved=RESERVED)
    steps = [make_step(table) for table in tables]
    check_order(steps)
    source = load_snapshot(config.trained_param) if config.trained_param else None
    strategy = make_strategy(config.gpu_id, config.tpu)
    if source:
        load_fitting(config.trained_param, source, config.arch, config.dataset, strategy, config.data_path)
    splits = load_splits(config, _normalisation(config, source))
    sizes = len(splits.train), strategy.num_replicas_in_sync
    check_batch(config, *sizes)
    for step in steps:
        step.check(config, *sizes)
    config = Program(**vars(config), program=[step.to_json() for step in steps])
    with RunFolder(config.train_path, config.to_json(), MAY_DIFFER) as folder, MetricsLog(folder) as log:
        forget_changed(folder, log, config)
        return _walk(RunContext(config, folder, log, splits, strategy), steps)


def check_order(steps: Sequence[Step]) -> None:
    """Raises `UsageError` where a network goes on changing after its files were written."""
    for before, after in itertools.pairwise(steps):
        if before.writes and not after.writes:
            raise UsageError(
                f"{before.label} writes the network, which {after.label} then changes. Received: "
                f"{before.label} before {after.label}\nput it behind the other steps"
            )


def _normalisation(config: ProgramOptions, source: Snapshot | None) -> str:
    """What the weights to start from need; else the system's own constants, if it has some for this set."""
    own = config.images.normalisation
    if source or config.normalisation != "auto" or own not in normalisations_of(config.dataset):
        return normalisation_of(config.normalisation, source)
    return own


def _walk(context: RunContext, steps: Sequence[Step]) -> dict:
    state = State()
    for step in steps:
        state = step.run(context, replace(state, name=step.label))
    save_compact(context, state.network)
    last = (*state.trained[-MOST:], state.network)
    rows = {"dense": state.dense, **{_row(path): path for path in last}}
    members = [name for name, path in rows.items() if path in (state.dense, *state.members)]
    return finish(context, rows, state.plan, ensemble=members if len(members) > 2 else (), files=state.files)


def _row(path: Path) -> str:
    """snap_train-2.pkl → train-2."""
    return path.stem.removeprefix("snap_")


def forget_changed(folder: RunFolder, log: MetricsLog, config: Program) -> None:
    """Forgets the steps that this recipe now does otherwise, says so in one line, and stores the options.

    Files stay until they are made again. The options are stored last: after a kill it begins anew.
    """
    stored, wanted = read_json(folder.path("config.json")), config.to_json()
    if all(stored.get(key) == wanted[key] for key in ("program", "time_seconds", "bn")):
        return
    done = dict.fromkeys([*folder.steps(), *folder.begun(), *(row["phase"] for row in log.rows())])
    again = outdated(stored.get("program", []), wanted["program"], done)
    folder.forget(again)
    for step in again:
        log.truncate(step, -1)
    folder.write_json("config.json", wanted)
    if again:
        steps = ", ".join(again)
        print(f"{config.train_path}: the recipe has changed; to be done again: {steps}", flush=True)


def outdated(stored: Sequence[Mapping], wanted: Sequence[Mapping], done: Iterable[str]) -> list[str]:
    """Those of the steps `done` that come after the last step that two versions of a recipe share."""
    alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(stored, wanted, strict=False))
    kept = {name_of(table) for pair in alike for table in tables_of([pair[1]])}
    kept |= {"init"} if wanted and name_of(wanted[0]) in kept else set()
    kept |= set(ENDING[:-1]) if stored == wanted else set()
    return [name for name in done if name.partition("-")[0] not in kept]
