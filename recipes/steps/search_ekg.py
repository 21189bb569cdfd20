"""EKG's search for a sub-network (Lee & Song 2022), and the network that it ends with."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import keras
import numpy as np
from tqdm import tqdm

from secateur.pruning import Plan, make_plan, narrow
from secateur.pruning.search.ekg import Interim, Searcher, SearchState, check_reachable, history_of
from secateur.pruning.search.settings import SearchSettings
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.options import option
from secateur.recipes.engine.step import Start, State, step
from secateur.recipes.steps.narrowing import Narrowing
from secateur.recipes.steps.searching import ekg_search
from secateur.runs import Snapshot, load_snapshot, save_snapshot, to_json

CRITERIA = ("ekg", "l1", "l2", "random")


@step("search_ekg")
class SearchEkg(Narrowing):
    """Removes slices of channels one after the other, each the one that costs least, down to a target.

    With another criterion than EKG's it prunes all groups by one ratio to the same target.
    """

    own_criteria: ClassVar[tuple[str, ...]] = ("ekg",)

    criterion: Literal[CRITERIA] = option("ekg", "how to choose channels: ekg searches")
    preserve_norm: bool = option(True, "what stays of a kernel gets the norm of the whole")
    padded: bool = option(True, "estimate BN's averages in the widths that train, multiples of 8")
    target: float = option(0.45, "operations to keep, EKG's count")
    step: float = option(0.2, "ratio of channels that one step removes")
    batch_size: int = option(256, "images whose BN statistics are taken together")
    round_to: int = option(1, "widths are multiples of this")
    dtype: str = option("float32", "of candidates; bfloat16 is faster and may decide differently")
    seed: int = option(1, "of the criterion random", ge=0, lt=2**31)

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self.settings()

    def settings(self, keep_macs: float | None = None) -> SearchSettings:
        """The options of the search, --keep_macs among them; raises `UsageError` when one is out of range."""
        own = SearchSettings(self.target, self.step, self.batch_size, self.round_to, self.dtype)
        return replace(own, target=keep_macs, convention="mac") if keep_macs else own

    def check(self, start: Start) -> None:
        """The target must be within reach."""
        check_reachable(start.network(), self.settings(start.config.keep_macs))

    def run(self, context: RunContext, state: State) -> State:
        """search_state.pkl: all interim networks; then the narrower network.

        Every committed candidate is a line of search.jsonl and a checkpoint.
        """
        if self.criterion != "ekg":
            return super().run(context, state)
        make = context.together(partial(self._search, context, state))
        found = context.step(state.name, "search_state.pkl", make)
        searched = replace(state, search=found, searched=state.network)
        return super().run(context, replace(searched, name=f"{state.name}-cut"))

    def plan(self, context: RunContext, state: State, model: keras.Model) -> Plan:
        """The last of the search, or one ratio for all groups."""
        if state.search and self.criterion == "ekg":
            return history_of(load_snapshot(state.search).facts)[-1].plan
        settings = self.settings(context.config.keep_macs)
        return make_plan(
            model,
            self.criterion,
            keep_macs=settings.target,
            fill=False,
            round_to=self.round_to,
            convention=settings.convention,
            seed=self.seed,
        )

    def facts(
        self, context: RunContext, state: State, model: keras.Model, plan: Plan, small: keras.Model
    ) -> dict:
        """Accuracy with stale averages, and with none."""
        holdout = context.splits.holdout
        stale = narrow(model, plan, preserve_norm=self.preserve_norm)
        return {
            "holdout_batch_statistics": context.accuracy(small, holdout, batch_statistics=True),
            "holdout_stale_averages": context.accuracy(stale, holdout),
        }

    def _search(self, context: RunContext, state: State, path: Path) -> dict:
        model = context.load(state.network)
        settings = self.settings(context.config.keep_macs)
        searcher = ekg_search(context, model, settings, context.workers)
        reached = _resumed(context, state.name, model) or searcher.start()
        if done := len(reached.history) - 1:
            tqdm.write(f"search: continuing after step {done}")
        known = "".join(to_json(_line(searcher, interim)) + "\n" for interim in reached.history)
        context.folder.write("search.jsonl", known.encode())
        look = {"unit": "%", "bar_format": "{l_bar}{bar}| {elapsed}{postfix}", "miniters": 0}
        with tqdm(total=100, desc="search", **look) as bar:
            _show(bar, searcher, reached)
            for now in searcher.run(reached):
                reached = now
                context.folder.append("search.jsonl", _line(searcher, reached.history[-1]))
                facts = {"rates": dict(reached.rates), **_facts(reached)}
                context.folder.save_checkpoint(state.name, _arrays(reached), facts)
                _show(bar, searcher, reached)
        facts = _facts(reached) | {"settings": vars(searcher.settings)}
        save_snapshot(path, Snapshot(_arrays(reached), facts=facts))
        steps = reached.history
        return {"steps": len(steps) - 1, "candidates": sum(one.candidates for one in steps)}


def _show(bar: tqdm, searcher: Searcher, state: SearchState) -> None:
    """How far the operations have come from all to the target."""
    last = state.history[-1]
    rate = last.macs / searcher.dense_macs
    done = min(100, round(100 * (1 - rate) / (1 - searcher.settings.target)))
    bar.set_postfix(step=len(state.history) - 1, rate=f"{rate:.3f}", loss=f"{last.loss:.4f}", refresh=False)
    bar.update(done - bar.n)


def _line(searcher: Searcher, interim: Interim) -> dict:
    """Of search.jsonl: all but the plan."""
    row = interim.to_json()
    del row["plan"]
    return row | {"rate": interim.macs / searcher.dense_macs}


def _facts(state: SearchState) -> dict:
    return {"history": [interim.to_json() for interim in state.history]}


def _arrays(state: SearchState) -> dict[str, np.ndarray]:
    """The teacher's outputs; a name for each of several."""
    outputs = keras.tree.flatten(state.teacher)
    return dict(zip(_names(len(outputs)), outputs, strict=True))


def _names(outputs: int) -> list[str]:
    return [f"teacher.{i}" for i in range(outputs)] if outputs > 1 else ["teacher"]


def _resumed(context: RunContext, name: str, model: keras.Model) -> SearchState | None:
    saved = context.folder.load_checkpoint(name)
    if saved is None:
        return None
    outputs = [np.array(saved.arrays[key]) for key in _names(len(model.outputs))]
    teacher = keras.tree.pack_sequence_as(model.output, outputs)
    return SearchState(saved.facts["rates"], teacher, history_of(saved.facts))
