"""Single weights go: the smallest of all convolutions together (Han et al. 2015; KESI's MWP), or of each."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from secateur.pruning.constrain.single_weights import level, percents, zero_weights
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.options import option
from secateur.recipes.engine.step import NetworkStep, State, step


@step("prune_weights")
class PruneWeights(NetworkStep):
    """Sets the smallest convolution weights to zero; later trainings hold them there."""

    percents: list[Annotated[float, Field(gt=0, lt=1)]] = option(
        [], "of all convolution weights that are zero after each round (default: KESI's)"
    )

    scope: Literal["all", "layer"] = option("all", "rank the weights of all layers together, or of each")

    def run(self, context: RunContext, state: State) -> State:
        """snap_<name>.pkl: the network with exact zeros."""
        ladder = self.percents or percents(context.config.arch)
        percent = ladder[min(state.turn, len(ladder)) - 1]

        def make(path: Path) -> dict:
            model = context.load(state.network)
            facts = {"holdout_before": context.accuracy(model, context.splits.holdout)}
            zeroed = (zero_weights if self.scope == "all" else level)(model, percent)
            facts["holdout_after"] = context.accuracy(model, context.splits.holdout)
            return context.save(path, model, state.plan) | facts | {"zeros": zeroed.zeros}

        return state.after(context.step(state.name, self.result(state), make), self.shown, sparse=True)
