"""Simulated annealing chooses the ratio of every group, as NNI's pruner does."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from tqdm import tqdm

from secateur.pruning import Plan
from secateur.pruning.search.annealing import Annealer, AnnealingSettings, AnnealingState
from secateur.pruning.search.space import Space
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.options import option
from secateur.recipes.engine.step import step
from secateur.recipes.steps.searching import Searching, SearchProblem, scorer


@step("anneal")
class Anneal(Searching):
    """Random ratios, shaken less the colder it is; the best network that was seen stays."""

    start: float = option(100.0, "temperature at the beginning", gt=0)
    stop: float = option(20.0, "temperature at the end", gt=0)
    cool: float = option(0.9, "factor after a network has been taken", gt=0, lt=1)
    spread: float = option(0.35, "largest change of a ratio at the beginning", gt=0, le=1)
    tries: int = option(1000, "networks that are tried at most", ge=1)

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self._settings()

    def _settings(self) -> AnnealingSettings:
        return AnnealingSettings(self.start, self.stop, self.cool, self.spread, self.tries)

    def search(self, context: RunContext, name: str, problem: SearchProblem) -> Plan:
        """The best plan; after a kill the search goes on behind its last try."""
        settings = self._settings()
        accuracy = scorer(context, problem.model, context.splits.search)
        space = Space.of(problem.analysis, problem.ranking, problem.target)
        annealer = Annealer(space, accuracy, settings)
        folder = context.folder
        saved = folder.load_checkpoint(name)
        if saved:
            search = AnnealingState.from_json(saved.facts)
        else:
            search = annealer.start(np.random.default_rng(context.config.seed))
        taken = round(math.log(search.temperature / self.start, self.cool))
        with tqdm(total=settings.moves, initial=taken, desc=self.label, unit="move") as bar:
            for tried in annealer.run(search):
                search = tried
                folder.save_checkpoint(name, {}, search.to_json())
                bar.set_postfix(best=f"{search.best.accuracy:.4f}", refresh=False)
                bar.update(search.last.accepted)
        return search.best.plan
