"""EKG's search (Lee & Song 2022) as steps of a run: warm-up, search, memory bank of interim networks."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import keras
import numpy as np
from tqdm import tqdm

from secateur.distillation import MemoryBank, bank_bytes, choose_teachers, labels_only
from secateur.op_utils import Objective
from secateur.pruning import Plan
from secateur.pruning.search.ekg import Interim, Searcher, SearchState
from secateur.recipes.engine.context import RunContext
from secateur.recipes.training.loop import TrainingSpec, fit
from secateur.runs import Snapshot, append_jsonl, load_snapshot, save_snapshot, to_json


def warm_up(context: RunContext, baseline: Path) -> Path:
    """One epoch on up to 256 images a class, un-augmented: writes snap_warm.pkl."""

    def make(path: Path) -> dict:
        model = context.load(baseline)
        fit(context, model, _warm_up_spec(context))
        return context.save(path, model)

    return context.step("warm-up", "snap_warm.pkl", make)


def _warm_up_spec(context: RunContext) -> TrainingSpec:
    config, images = context.config, context.splits.warmup
    return TrainingSpec(
        name="warm-up",
        images=images,
        epochs=1,
        learning_rates=lambda n: np.full(n, 1e-3, np.float32),
        objective=scaled(labels_only, 2.0),  # EKG divides the sum over a batch of 256 by 128
        preprocess=context.plain,
        weight_decay=5e-4,
        seed=config.search_seed,
        batch_size=min(config.search_batch_size, len(images)),
        remedy="Its learning rate is small: check the network of --trained_param, and --normalisation",
    )


def scaled(objective: Objective, factor: float) -> Objective:
    """An objective whose loss is multiplied by `factor`."""

    def multiplied(logits, batch):
        loss, accuracy = objective(logits, batch)
        return factor * loss, accuracy

    return multiplied


# --- search -------------------------------------------------------------------------------------------------


def search(context: RunContext, warm: Path) -> tuple[Interim, ...]:
    """Writes search_state.pkl and plan_ekg.json; returns all interim networks, the dense one first.

    Every committed candidate is a line of search.jsonl and a checkpoint.
    """
    file = context.step("search", "search_state.pkl", lambda path: _search(context, warm, path))
    history = _history(load_snapshot(file).facts)
    context.folder.write_json("plan_ekg.json", history[-1].plan.to_json())
    return history


def _search(context: RunContext, warm: Path, path: Path) -> dict:
    searcher = _searcher(context, context.load(warm))
    state = _resume(context) or searcher.start()
    if done := len(state.history) - 1:
        tqdm.write(f"search: continuing after step {done}")
    known = "".join(to_json(_row(searcher, interim)) + "\n" for interim in state.history)
    context.folder.write("search.jsonl", known.encode())
    lines = context.folder.path("search.jsonl")
    look = {"unit": "%", "bar_format": "{l_bar}{bar}| {elapsed}{postfix}", "miniters": 0}
    with tqdm(total=100, desc="search", **look) as bar:
        _show(bar, searcher, state)
        for step in searcher.run(state):
            state = step
            append_jsonl(lines, _row(searcher, state.history[-1]))
            _checkpoint(context, state)
            _show(bar, searcher, state)
    save_snapshot(path, Snapshot({"teacher": state.teacher}, facts=_facts(state)))
    return {"steps": len(state.history) - 1, "candidates": sum(i.candidates for i in state.history)}


def _searcher(context: RunContext, model: keras.Model) -> Searcher:
    images = context.splits.search
    inputs = context.inputs(images.images).numpy()
    return Searcher(model, inputs, images.labels, context.config.search_settings())


def _show(bar: tqdm, searcher: Searcher, state: SearchState) -> None:
    """How far the operations have come from all to the target."""
    last = state.history[-1]
    rate = last.macs / searcher.dense_macs
    done = min(100, round(100 * (1 - rate) / (1 - searcher.settings.target)))
    bar.set_postfix(step=len(state.history) - 1, rate=f"{rate:.3f}", loss=f"{last.loss:.4f}", refresh=False)
    bar.update(done - bar.n)


def _row(searcher: Searcher, interim: Interim) -> dict:
    row = _full_row(interim)
    del row["plan"]
    return row | {"rate": interim.macs / searcher.dense_macs}


def _full_row(interim: Interim) -> dict:
    return {**vars(interim), "plan": interim.plan.to_json()}


def _facts(state: SearchState) -> dict:
    return {"history": [_full_row(interim) for interim in state.history]}


def _history(facts: dict) -> tuple[Interim, ...]:
    return tuple(Interim(**{**row, "plan": Plan.from_json(row["plan"])}) for row in facts["history"])


def _checkpoint(context: RunContext, state: SearchState) -> None:
    facts = {"rates": dict(state.rates), **_facts(state)}
    context.folder.save_checkpoint("search", {"teacher": state.teacher}, facts)


def _resume(context: RunContext) -> SearchState | None:
    saved = context.folder.load_checkpoint("search")
    if saved is None:
        return None
    return SearchState(saved.facts["rates"], np.array(saved.arrays["teacher"]), _history(saved.facts))


# --- memory bank --------------------------------------------------------------------------------------------


def bank(context: RunContext, warm: Path, history: tuple[Interim, ...]) -> MemoryBank:
    """Logits of interim networks, the final one left out, on the un-augmented training images: bank.npy."""
    path = context.step("bank", "bank.npy", lambda path: _fill_bank(context, warm, history, path))
    return MemoryBank.open(path, context.splits.train.ids)


def _fill_bank(context: RunContext, warm: Path, history: tuple[Interim, ...], path: Path) -> dict:
    config, train = context.config, context.splits.train
    interim = history[:-1] or history
    chosen = choose_teachers([i.loss for i in interim], config.num_teacher)
    searcher = _searcher(context, context.load(warm))
    forwards = [
        partial(searcher.logits_of, interim[i].plan, inputs=context.inputs, batch_size=config.val_batch_size)
        for i in chosen
    ]
    path.write_bytes(bank_bytes(forwards, train.images, train.ids))
    return {"teachers": chosen, "losses": [interim[i].loss for i in chosen]}
