"""A memory bank: the logits of teachers on all training images, asked once and stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from secateur.distillation import bank_into, choose_teachers
from secateur.distillation.bank import DTYPES
from secateur.op_utils import make_forward
from secateur.pruning.search.ekg import history_of
from secateur.pruning.search.settings import SearchSettings
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.options import option
from secateur.recipes.engine.step import Start, State, Step, step
from secateur.recipes.steps.searching import ekg_search
from secateur.recipes.training.learning import BANKS
from secateur.recipes.training.lessons import snapshots_of
from secateur.runs import UsageError, load_snapshot

Forward = Callable[[np.ndarray], np.ndarray]


@step("bank")
class Bank(Step):
    """Logits on un-augmented images, for a `train` with teacher = "bank" or a filter over the data set.

    A bank that no later step asks is not made.
    """

    teachers: Literal[BANKS] = option(
        "interim",
        "interim networks of search_ekg, the last one left out; the dense network; it and all snapshots of "
        "trainings; or the snapshots of --teacher",
    )
    count: int = option(5, "how many of the interim networks, their losses spread evenly", ge=1)
    dtype: Literal[DTYPES] = option("float32", "of the stored logits")

    def check(self, start: Start) -> None:
        """Files must be given."""
        if self.teachers == "files" and not start.config.teacher and start.subject.original is None:
            raise UsageError(
                f"Who teaches? Give --teacher FILE.pkl …. Received: {self.label}.teachers='files'"
            )

    def run(self, context: RunContext, state: State) -> State:
        """<name>.npy; teachers stand in it with the best one first."""

        def make(path: Path) -> dict:
            train = context.splits.train
            forwards, facts = (
                self._interim(context, state) if self.teachers == "interim" else self._whole(context, state)
            )
            own = context.subject.original
            rank = len(own.outputs[0].shape) if own is not None else 2
            size = context.config.val_batch_size
            with context.folder.part_file(state.name, path) as file:
                bank_into(file, forwards, train.images, train.ids, self.dtype, rank, size)
            return facts

        path = context.step(state.name, f"{state.name}.npy", make)
        return replace(state, bank=path, bank_of=self.teachers)

    def _whole(self, context: RunContext, state: State) -> tuple[list[Forward], dict]:
        """Whole networks, with their moving averages."""
        config, paths = context.config, snapshots_of(context, state, self.teachers)
        networks = [
            make_forward(context.teacher(path), context.inputs, compile_=config.compile) for path in paths
        ]
        forwards = [partial(network, batch_size=config.val_batch_size) for network in networks]
        return forwards, {"teachers": len(paths), "images": len(context.splits.train)}

    def _interim(self, context: RunContext, state: State) -> tuple[list[Forward], dict]:
        """Networks that the search went through, with the BN statistics of batches, as it saw them."""
        if state.search is None:
            raise UsageError(f"No search has been before. Received: {self.label}.teachers='interim'")
        facts = load_snapshot(state.search).facts
        history = history_of(facts)
        interim = history[:-1] or history
        chosen = choose_teachers([one.loss for one in interim], self.count)
        settings = SearchSettings(**facts["settings"])
        if context.config.dtype == "mixed_bfloat16":  # a search knows no float16
            settings = replace(settings, dtype="bfloat16")
        searcher = ekg_search(context, context.load(state.searched), settings)
        size = context.config.val_batch_size
        forwards = [
            partial(searcher.logits_of, interim[i].plan, inputs=context.inputs, batch_size=size)
            for i in chosen
        ]
        return forwards, {"teachers": chosen, "losses": [interim[i].loss for i in chosen]}
