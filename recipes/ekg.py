"""EKG from a checkpoint to a small plain Keras model (Lee & Song 2022), one function and one file per step.

baseline → warm-up → search → slim → memory bank → fine-tune → compact → report. A step whose file is complete
is not done again; search and training go on from their last committed candidate or epoch.
"""

from __future__ import annotations

from pathlib import Path

import keras

from secateur.dataloader.registry import facts_of
from secateur.op_utils import make_strategy
from secateur.pruning import Plan, make_plan
from secateur.pruning.search.ekg import check_reachable
from secateur.recipes.baseline import baseline, build
from secateur.recipes.engine.config import VOLATILE, Config
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.export import save_compact
from secateur.recipes.engine.inputs import (
    check_batch,
    check_names,
    load_fitting,
    load_splits,
    normalisation_of,
)
from secateur.recipes.engine.report import finish
from secateur.recipes.finetune import fine_tune, slim
from secateur.recipes.search import bank, search, warm_up
from secateur.recipes.stages import forget_outdated, stages
from secateur.runs import MetricsLog, RunFolder, load_snapshot


def run(config: Config) -> dict:
    """Runs or continues the whole chain in `config.train_path`; returns what report.json holds."""
    # The folder is claimed last: a run that cannot start must not leave its options there.
    check_names(config.arch, config.dataset)
    source = load_snapshot(config.trained_param) if config.trained_param else None
    strategy = make_strategy(config.gpu_id, config.tpu)
    given = source and load_fitting(
        config.trained_param, source, config.arch, config.dataset, strategy, config.data_path
    )
    _check_target(config, given)
    splits = load_splits(config, normalisation_of(config.normalisation, source))
    check_batch(config, len(splits.train), strategy.num_replicas_in_sync)
    may_differ = (*VOLATILE, *stages(Config))
    with RunFolder(config.train_path, config.to_json(), may_differ) as folder, MetricsLog(folder) as log:
        forget_outdated(folder, log, config)
        return _chain(RunContext(config, folder, log, splits, strategy), given)


def _chain(context: RunContext, given: keras.Model | None) -> dict:
    config = context.config
    dense = baseline(context, given)
    if config.criterion == "ekg":
        start = warm_up(context, dense)
        history = search(context, start)
        plan = history[-1].plan
    else:
        start, history, plan = dense, (), _uniform_plan(context, dense)
    snapshots = {"baseline": dense, "slimmed": slim(context, start, plan)}
    teachers = bank(context, start, history) if config.Knowledge else None
    if not config.searching:
        snapshots["fine-tuned"] = tuned = fine_tune(context, start, plan, teachers)
        save_compact(context, tuned)
    return finish(context, snapshots, plan, history)


def _uniform_plan(context: RunContext, dense: Path) -> Plan:
    config = context.config
    plan = make_plan(
        context.load(dense),
        config.criterion,
        keep_macs=config.search_target_rate,
        fill=False,
        round_to=config.round_to,
        convention="ekg",
        seed=config.search_seed,
    )
    context.folder.write_json(f"plan_{config.criterion}.json", plan.to_json())
    return plan


# --- what would otherwise be found out hours later ----------------------------------------------------------


def _check_target(config: Config, given: keras.Model | None) -> None:
    """The search finds out after the baseline whether its target can be reached."""
    check_reachable(
        given or build(config, facts_of(config.dataset, "rgb", config.data_path)), config.search_settings()
    )
