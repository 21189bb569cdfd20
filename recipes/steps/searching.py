"""What searches over widths share: the space, the accuracy of a plan, and how a killed search goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import keras

from secateur.op_utils import make_reestimator
from secateur.pruning.groups.analysis import analyse
from secateur.pruning.score.scores import score_groups
from secateur.pruning.search.space import COSTS, Space
from secateur.pruning.search.trial import PlanScorer
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.options import option
from secateur.recipes.engine.step import State
from secateur.recipes.steps.narrowing import Narrowing


class Searching(Narrowing):
    """Removes channels where a search finds that they cost least accuracy on training images."""

    keep: float = option(0.5, "ratio of the dense network's cost that stays", gt=0, lt=1)
    cost: Literal[COSTS] = option("macs", "what the search saves")

    def space(self, context: RunContext, state: State, model: keras.Model) -> Space:
        """Widths of `model`, with a bound that is a ratio of the dense network's cost."""
        analysis = analyse(model)
        scores = score_groups(model, self.criterion, analysis=analysis, **self.scoring(context))
        now, dense = context.cost(state.network), context.cost(state.dense)
        keep, cost = self.keep, self.cost
        if keep_macs := context.config.keep_macs:
            keep, cost = keep_macs, "macs"
        part = keep ** (state.turn / state.turns)  # of a loop's rounds each takes an equal part of the way
        ratio = min(1.0, part * getattr(dense, cost) / getattr(now, cost))
        return Space.of(analysis, scores, keep=ratio, cost=cost)

    def scorer(self, context: RunContext, model: keras.Model) -> PlanScorer:
        """Accuracy of plans on the images that score candidates, with BN's averages estimated anew."""
        search, warmup = context.splits.search, context.splits.warmup

        def prepare(copy: keras.Model) -> Callable[[], None]:
            again = make_reestimator(copy, context.inputs)
            return lambda: again(
                warmup.images[: 4 * context.config.val_batch_size], context.config.val_batch_size
            )

        data = context.arrays(search.images), search.labels
        return PlanScorer(model, data, prepare=prepare)
