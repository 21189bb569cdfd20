"""EKG from a checkpoint to a small plain Keras model (Lee & Song 2022), one function and one file per step.

baseline → warm-up → search → memory bank → slim → fine-tune → compact → report. A step whose file is complete is
not done again; search and training go on from their last committed candidate or epoch.
"""

from __future__ import annotations

import datetime
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
from pruning import Plan, complexity, make_plan, narrow
from pruning.search import Interim, Searcher, SearchState
from recipes import export
from recipes.config import VOLATILE, Config
from recipes.report import finish
from recipes.schedules import step_decay
from recipes.testing import check_fits, normalisation_of
from recipes.training import Course, Lab, evaluate, fit
from runs import MetricsLog, RunFolder, Snapshot, append_jsonl, load_snapshot, save_snapshot

BASELINE = {"rate": 0.1, "weight_decay": 1e-4, "points": (0.5, 0.75), "decay": 0.1}  # the recipe of KESI and others
WARM_UP = {"rate": 1e-3, "weight_decay": 5e-4}
WARM_UP_SCALE = 2.0  # EKG divides the sum over a batch of 256 by 128


def run(config: Config) -> dict:
    """Runs or continues the whole chain in `config.train_path`; returns what report.json holds."""
    strategy = make_strategy(config.gpu_id, config.tpu)
    source = load_snapshot(config.trained_param) if config.trained_param else None
    with RunFolder(config.train_path, config.to_json(), VOLATILE) as folder, MetricsLog(folder) as log:
        splits = dataloader.load(config.dataset, config.data_path, normalisation_of(config.normalisation, source))
        lab = Lab(config, folder, log, splits, strategy)
        baseline = _baseline(lab, source)
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
        tuned = _fine_tune(lab, slim, bank)
        export.save_compact(folder, lab.strategy, tuned)
        return finish(lab, {"baseline": baseline, "slimmed": slim, "fine-tuned": tuned}, plan, history)


# --- steps -----------------------------------------------------------------------------------------------------


def _baseline(lab: Lab, source: Snapshot | None) -> Path:
    """The dense network: the given snapshot, or trained by §4.4's recipe."""

    def make(path: Path) -> dict:
        if source is not None:
            with lab.strategy.scope():
                model = nets.load_params(None, source, lab.config.trained_param)
            check_fits(lab.config.trained_param, model.spec, lab.config.arch, lab.splits.facts)
        else:
            model = _train_baseline(lab)
        return _save(lab, path, model)

    return lab.folder.step("baseline", "snap_baseline.pkl", make)


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

    return lab.folder.step("warm-up", "snap_warm.pkl", make)


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
        lines = lab.folder.path("search.jsonl")
        lines.unlink(missing_ok=True)
        for interim in state.history:
            append_jsonl(lines, _row(searcher, interim))
        ratio = state.history[-1].macs / searcher.dense_macs
        with tqdm(total=100, desc="search", unit="%", bar_format="{l_bar}{bar}| {elapsed}{postfix}") as bar:
            for state in searcher.run(state):
                last = state.history[-1]
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
    """Logits of interim networks on the un-augmented training images (§8.3); the final network is left out."""
    images = lab.splits.train.images

    def make(path: Path) -> dict:
        interim = history[:-1] or history
        chosen = choose_teachers([i.loss for i in interim], lab.config.num_teacher)
        searcher = _searcher(lab, _load(lab, warm))
        logits = np.empty((len(images), lab.splits.facts.num_classes, len(chosen)), np.float32)
        for k, index in enumerate(tqdm(chosen, desc="memory bank", unit="teacher")):
            logits[:, :, k] = searcher.logits_of(interim[index].plan, images, lab.inputs, lab.config.val_batch_size)
        with path.open("wb") as file:
            np.save(file, logits)
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
    config = lab.config

    def make(path: Path) -> dict:
        model = narrow(_load(lab, warm), plan, preserve_norm=True)
        holdout = lab.splits.holdout
        after_search = evaluate(make_forward(model, lab.inputs, True), holdout, config.val_batch_size)
        stale = evaluate(make_forward(model, lab.inputs), holdout, config.val_batch_size)
        reestimate_batch_norm(model, lab.inputs, lab.splits.warmup.images, config.val_batch_size)
        renewed = evaluate(make_forward(model, lab.inputs), holdout, config.val_batch_size)
        facts = {
            "holdout_batch_statistics": after_search.accuracy,
            "holdout_stale_averages": stale.accuracy,
            "holdout_reestimated": renewed.accuracy,
        }
        return _save(lab, path, model, plan) | facts

    return lab.folder.step("slim", "slimmed_param.pkl", make)


def _fine_tune(lab: Lab, slim: Path, bank: MemoryBank | None) -> Path:
    """§8.4, with the bank's teachers and two views, or with labels alone."""
    config = lab.config

    def make(path: Path) -> dict:
        model = _load(lab, slim)
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
        return _save(lab, path, model, Plan.from_json(load_snapshot(slim).plan))

    path = lab.folder.step("fine-tune", "trained_param.pkl", make)
    lab.folder.drop_checkpoints("fine-tune")
    return path


# --- helpers ---------------------------------------------------------------------------------------------------


def _augmented(lab: Lab):
    return lambda x, seed: lab.inputs(augment(x, seed, per_batch_crop=lab.config.per_batch_crop))


def _two_views(lab: Lab):
    return lambda x, seed: lab.inputs(two_views(x, seed, per_batch_crop=lab.config.per_batch_crop))


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
