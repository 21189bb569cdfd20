"""The dense network that everything begins with: the given one, or trained here."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from secateur import nets
from secateur.nets import NetSpec
from secateur.recipes.baseline import build
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.options import option
from secateur.recipes.engine.state import State
from secateur.recipes.engine.step import step
from secateur.recipes.steps.train import Train
from secateur.runs import UsageError


@step("dense")
class Dense(Train):
    """`--trained_param`, or a network that is trained from random weights: the steps `reset` knows both."""

    keep_epoch: int | None = option(
        None, "also keep the weights after this epoch, for `reset` to = epoch", ge=1
    )

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        if self.keep_epoch and self.keep_epoch > self.epochs:
            raise UsageError(
                f"It has {self.epochs} epochs. Received: {self.label}.keep_epoch={self.keep_epoch}"
            )

    def run(self, context: RunContext, state: State) -> State:
        """snap_<name>.pkl, and of a network that is trained here snap_init.pkl, before any training."""
        if given := context.config.trained_param:
            dense = context.step(
                state.name,
                f"snap_{state.name}.pkl",
                lambda path: context.save(path, context.load(Path(given))),
            )
            return State(network=dense, dense=dense, starts={"dense": dense})
        first = context.step("init", "snap_init.pkl", lambda path: context.save(path, random_net(context)))
        starts = {"init": first}
        if self.keep_epoch:
            starts["epoch"] = self._kept(context)
        dense = super().run(context, replace(state, network=first)).network
        return State(network=dense, dense=dense, starts={**starts, "dense": dense})

    def hooks(self, context: RunContext, state: State, model: keras.Model, trained: keras.Model) -> dict:
        """After `keep_epoch` its weights are kept."""

        def keep(done: int) -> None:
            if done == self.keep_epoch:
                context.save(self._kept(context), model)

        return super().hooks(context, state, model, trained) | {"after_epoch": keep}

    def _kept(self, context: RunContext) -> Path:
        return context.folder.path(f"snap_epoch{self.keep_epoch}.pkl")


def random_net(context: RunContext, spec: NetSpec | None = None, more: int = 0) -> keras.Model:
    """Random weights for a spec, or the run's architecture, from the run's seed or one `more` above it."""
    with context.strategy.scope():
        keras.utils.set_random_seed(context.config.seed + more)
        return nets.build(spec) if spec else build(context.config, context.splits.facts)
