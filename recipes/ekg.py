"""EKG from a checkpoint to a small plain Keras model (Lee & Song 2022), one function and one file per step.

baseline → warm-up → search → memory bank → slim → fine-tune → compact → report. A step whose file is complete
is not done again; search and training go on from their last committed candidate or epoch.
"""

from __future__ import annotations

import datetime
import io
import time
from pathlib import Path

import keras
import numpy as np
from tqdm import tqdm

import dataloader
import nets
from dataloader import Facts
from dataloader.augment import augment, two_views
from distillation import MemoryBank, choose_teachers, labels_only, two_view_knowledge
from op_utils import make_forward, make_strategy, reestimate_batch_norm
from pruning import Plan, complexity, make_plan, mask, narrow
from pruning.search import FAST_WIDTH, Interim, Searcher, SearchState
from recipes import export
from recipes.config import VOLATILE, Config
from recipes.report import finish
from recipes.schedules import step_decay
from recipes.testing import check_names, load_fitting, normalisation_of
from recipes.training import Course, Lab, evaluate, fit
from runs import (
    DataError,
    MetricsLog,
    RunFolder,
    Snapshot,
    UsageError,
    append_jsonl,
    load_snapshot,
    save_snapshot,
    to_json,
)

# the recipe of KESI and others
BASELINE = {"rate": 0.1, "weight_decay": 1e-4, "points": (0.5, 0.75), "decay": 0.1}
WARM_UP = {"rate": 1e-3, "weight_decay": 5e-4}
WARM_UP_SCALE = 2.0  # EKG divides the sum over a batch of 256 by 128


def run(config: Config) -> dict:
    """Runs or continues the whole chain in `config.train_path`; returns what report.json holds."""
    # The folder is claimed last: a run that cannot start must not leave its options there.
    check_names(config.arch, config.dataset)
    source = load_snapshot(config.trained_param) if config.trained_param else None
    strategy = make_strategy(config.gpu_id, config.tpu)
    given = source and load_fitting(config.trained_param, source, config.arch, config.dataset, strategy)
    splits = dataloader.load(config.dataset, config.data_path, normalisation_of(config.normalisation, source))
    _check_batch(config, len(splits.train), strategy.num_replicas_in_sync)
    with RunFolder(config.train_path, config.to_json(), VOLATILE) as folder, MetricsLog(folder) as log:
        lab = Lab(config, folder, log, splits, strategy)
        baseline = _baseline(lab, given)
        if config.criterion == "ekg":
            warm = _warm_up(lab, baseline)
            history = _search(lab, warm)
            bank = _bank(lab, warm, history) if config.with_knowledge else None
            plan = history[-1].plan
        else:
            warm, history, bank, plan = baseline, (), None, _uniform_plan(lab, baseline)
        slim = _slim(lab, warm, plan)
        if config.searching:
            return finish(lab, {"baseline": baseline, "slimmed": slim}, plan, history)
        tuned = _fine_tune(lab, warm, plan, bank)
        export.save_compact(folder, lab.strategy, tuned)
        return finish(lab, {"baseline": baseline, "slimmed": slim, "fine-tuned": tuned}, plan, history)


def _check_batch(config: Config, images: int, replicas: int) -> None:
    """What would otherwise be found out hours later, when the fine-tuning begins."""
    if config.batch_size > images:
        raise DataError(
            f"--batch_size must not exceed the {images} training images of {config.dataset}. "
            f"Received: batch_size={config.batch_size}"
        )
    if config.batch_size % (replicas * config.accum):
        raise UsageError(
            f"--batch_size must divide evenly over {replicas} devices × --accum {config.accum}. "
            f"Received: batch_size={config.batch_size}"
        )


# --- steps --------------------------------------------------------------------------------------------------


def _baseline(lab: Lab, given: keras.Model | None) -> Path:
    """The dense network: the given one, or trained by §4.4's recipe."""

    def make(path: Path) -> dict:
        return _save(lab, path, given or _train_baseline(lab))

    path = lab.folder.step("baseline", "snap_baseline.pkl", make)
    lab.folder.drop_checkpoints("baseline")
    return path


def _train_baseline(lab: Lab) -> keras.Model:
    config, facts = lab.config, lab.splits.facts
    with lab.strategy.scope():
        keras.utils.set_random_seed(config.seed)
        model = nets.build(
            config.arch, num_classes=facts.num_classes, input_shape=facts.shape, shortcut=config.shortcut
        )
    _announce(lab, model)
    fit(
        lab,
        model,
        Course(
            name="baseline",
            images=lab.splits.train,
            epochs=config.baseline_epoch,
            rates=lambda n: step_decay(BASELINE["rate"], n, BASELINE["points"], BASELINE["decay"]),
            objective=labels_only,
            preprocess=_augmented(lab),
            weight_decay=BASELINE["weight_decay"],
            seed=config.seed,
            batch_size=config.batch_size,
            accum=config.accum,
        ),
    )
    return model


def _announce(lab: Lab, model: keras.Model) -> None:
    """Says how long the baseline will take, from one measured forward pass (a step costs about three)."""
    images = lab.splits.train.images[: lab.config.batch_size]
    forward = make_forward(model, lab.inputs, batch_statistics=True, compile_=lab.config.compile)
    forward(images, len(images))
    start = time.perf_counter()
    forward(images, len(images))
    steps = len(lab.splits.train) // lab.config.batch_size * lab.config.baseline_epoch
    expected = datetime.timedelta(seconds=round(3 * (time.perf_counter() - start) * steps))
    epochs = lab.config.baseline_epoch
    tqdm.write(f"no --trained_param: training the baseline for {epochs} epochs, about {expected} (h:mm:ss)")


def _warm_up(lab: Lab, baseline: Path) -> Path:
    """One epoch on up to 256 images a class, un-augmented (§8.2)."""
    config = lab.config

    def make(path: Path) -> dict:
        model = _load(lab, baseline)
        images = lab.splits.warmup
        fit(
            lab,
            model,
            Course(
                name="warm-up",
                images=images,
                epochs=1,
                rates=lambda n: np.full(n, WARM_UP["rate"], np.float32),
                objective=_doubled(labels_only),
                preprocess=lambda x, seed: lab.inputs(x),
                weight_decay=WARM_UP["weight_decay"],
                seed=config.search_seed,
                batch_size=min(config.search_batch_size, len(images)),
            ),
        )
        return _save(lab, path, model)

    path = lab.folder.step("warm-up", "snap_warm.pkl", make)
    lab.folder.drop_checkpoints("warm-up")
    return path


def _doubled(objective):
    def scaled(logits, batch):
        loss, accuracy = objective(logits, batch)
        return WARM_UP_SCALE * loss, accuracy

    return scaled


def _search(lab: Lab, warm: Path) -> tuple[Interim, ...]:
    """The search; every committed candidate is a line of search.jsonl and a checkpoint."""

    def make(path: Path) -> dict:
        searcher = _searcher(lab, _load(lab, warm))
        state = _load_search(lab, searcher.full) or searcher.start()
        known = "".join(to_json(_row(searcher, interim)) + "\n" for interim in state.history)
        lab.folder.write("search.jsonl", known.encode())
        lines = lab.folder.path("search.jsonl")
        ratio = state.history[-1].macs / searcher.dense_macs
        with tqdm(total=100, desc="search", unit="%", bar_format="{l_bar}{bar}| {elapsed}{postfix}") as bar:
            for step in searcher.run(state):
                state, last = step, step.history[-1]
                append_jsonl(lines, _row(searcher, last))
                _save_search(lab, state)
                ratio = last.macs / searcher.dense_macs
                bar.n = min(100, round(100 * (1 - ratio) / (1 - lab.config.search_target_rate)))
                bar.set_postfix(step=len(state.history) - 1, rate=f"{ratio:.3f}", loss=f"{last.loss:.4f}")
        facts = {"history": [_full_row(i) for i in state.history]}
        save_snapshot(path, Snapshot({"teacher": state.teacher}, facts=facts))
        return {"steps": len(state.history) - 1, "candidates": sum(i.candidates for i in state.history)}

    file = lab.folder.step("search", "search_state.pkl", make)
    history = _history(load_snapshot(file).facts)
    lab.folder.write_json("plan_ekg.json", history[-1].plan.to_json())
    lab.folder.drop_checkpoints("search")
    return history


def _searcher(lab: Lab, model: keras.Model) -> Searcher:
    images = lab.splits.search
    return Searcher(model, lab.inputs(images.images).numpy(), images.labels, lab.config.search_settings())


def _row(searcher: Searcher, interim: Interim) -> dict:
    row = _full_row(interim)
    del row["plan"]
    return row | {"rate": interim.macs / searcher.dense_macs}


def _full_row(interim: Interim) -> dict:
    return {**vars(interim), "plan": interim.plan.to_json()}


def _history(facts: dict) -> tuple[Interim, ...]:
    return tuple(Interim(**{**row, "plan": Plan.from_json(row["plan"])}) for row in facts["history"])


def _save_search(lab: Lab, state: SearchState) -> None:
    facts = {"rates": dict(state.rates), "history": [_full_row(i) for i in state.history]}
    lab.folder.save_checkpoint("search", {"teacher": state.teacher}, facts)


def _load_search(lab: Lab, full: Plan) -> SearchState | None:
    saved = lab.folder.load_checkpoint("search")
    if saved is None:
        return None
    return SearchState(saved.facts["rates"], np.array(saved.arrays["teacher"]), _history(saved.facts))


def _bank(lab: Lab, warm: Path, history: tuple[Interim, ...]) -> MemoryBank:
    """Logits of interim networks on the un-augmented training images (§8.3), the final one left out."""
    images = lab.splits.train.images

    def make(path: Path) -> dict:
        interim = history[:-1] or history
        chosen = choose_teachers([i.loss for i in interim], lab.config.num_teacher)
        searcher = _searcher(lab, _load(lab, warm))
        logits = np.empty((len(images), lab.splits.facts.num_classes, len(chosen)), np.float32)
        for k, index in enumerate(tqdm(chosen, desc="memory bank", unit="teacher")):
            logits[:, :, k] = searcher.logits_of(
                interim[index].plan, images, lab.inputs, lab.config.val_batch_size
            )
        buffer = io.BytesIO()  # straight to a file, NumPy hides that the disk is full
        np.save(buffer, logits)
        path.write_bytes(buffer.getbuffer())
        return {"teachers": chosen, "losses": [interim[i].loss for i in chosen]}

    path = lab.folder.step("bank", "bank.npy", make)
    return MemoryBank.open(path, lab.splits.train.ids)


def _uniform_plan(lab: Lab, baseline: Path) -> Plan:
    config = lab.config
    plan = make_plan(
        _load(lab, baseline),
        config.criterion,
        keep_macs=config.search_target_rate,
        round_to=config.round_to,
        convention="ekg",
        seed=config.search_seed,
    )
    lab.folder.write_json(f"plan_{config.criterion}.json", plan.to_json())
    return plan


def _slim(lab: Lab, warm: Path, plan: Plan) -> Path:
    """Slices the network and re-estimates the BN averages, which the wide network left behind."""

    def make(path: Path) -> dict:
        holdout = lab.splits.holdout
        stale = narrow(_load(lab, warm), plan, preserve_norm=True)
        model, inner = _trainable(lab, warm, plan)
        slim = narrow(model, inner)
        facts = {
            "holdout_batch_statistics": _accuracy(lab, slim, holdout, batch_statistics=True),
            "holdout_stale_averages": _accuracy(lab, stale, holdout),
            "holdout_reestimated": _accuracy(lab, slim, holdout),
        }
        return _save(lab, path, slim, plan) | facts

    return lab.folder.step("slim", "slimmed_param.pkl", make)


def _trainable(lab: Lab, warm: Path, plan: Plan) -> tuple[keras.Model, Plan]:
    """The sub-network in widths that train fast, surplus masked; and the plan that cuts the surplus off."""
    outer = plan.padded(FAST_WIDTH)
    with lab.strategy.scope():
        model = narrow(mask(_load(lab, warm), plan, preserve_norm=True), outer)
    reestimate_batch_norm(model, lab.inputs, lab.splits.warmup.images, lab.config.val_batch_size)
    return model, plan.within(outer)


def _fine_tune(lab: Lab, warm: Path, plan: Plan, bank: MemoryBank | None) -> Path:
    """§8.4, with the bank's teachers and two views, or with labels alone."""
    config = lab.config

    def make(path: Path) -> dict:
        model, inner = _trainable(lab, warm, plan)
        fit(
            lab,
            model,
            Course(
                name="fine-tune",
                images=lab.splits.train,
                epochs=config.train_epoch,
                rates=lambda n: step_decay(config.learning_rate, n, config.decay_points, config.decay_rate),
                objective=two_view_knowledge if bank else labels_only,
                preprocess=_two_views(lab) if bank else _augmented(lab),
                weight_decay=config.weight_decay,
                seed=config.seed,
                batch_size=config.batch_size,
                accum=config.accum,
                extra=(lambda ids: {"bank": bank(ids)}) if bank else None,
            ),
        )
        return _save(lab, path, narrow(model, inner), plan)

    path = lab.folder.step("fine-tune", "trained_param.pkl", make)
    lab.folder.drop_checkpoints("fine-tune")
    return path


# --- helpers ------------------------------------------------------------------------------------------------


def _augmented(lab: Lab):
    options = _augmentation(lab)
    return lambda x, seed: lab.inputs(augment(x, seed, **options))


def _two_views(lab: Lab):
    options = _augmentation(lab)
    return lambda x, seed: lab.inputs(two_views(x, seed, **options))


def _augmentation(lab: Lab) -> dict[str, bool]:
    return {"per_batch_crop": lab.config.per_batch_crop, "flip": lab.splits.facts.flip}


def _accuracy(lab: Lab, model: keras.Model, images, batch_statistics: bool = False) -> float:
    forward = make_forward(model, lab.inputs, batch_statistics, lab.config.compile)
    return evaluate(forward, images, lab.config.val_batch_size).accuracy


def _load(lab: Lab, path: Path) -> keras.Model:
    with lab.strategy.scope():
        return nets.load_params(None, path)


def _save(lab: Lab, path: Path, model: keras.Model, plan: Plan | None = None) -> dict:
    """Writes a snapshot; returns facts for the manifest."""
    facts = lab.splits.facts
    known = {"dataset": facts.name, "mean": facts.mean, "std": facts.std, "normalisation": _order(facts)}
    save_snapshot(path, nets.snapshot_of(model, known, plan.to_json() if plan else None))
    cost = complexity(model)
    return {"params": cost.params, "macs": cost.macs}


def _order(facts: Facts) -> str:
    """Name of the normalisation that the splits were loaded with."""
    known = dataloader.DATASETS[facts.name].normalisations
    return next(name for name, (mean, _) in known.items() if mean == facts.mean)
