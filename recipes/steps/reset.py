"""Going back: other weights for the network that is left."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import keras
import numpy as np

from secateur.pruning import narrow
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.options import option
from secateur.recipes.engine.step import NetworkStep, Start, State, step
from secateur.recipes.steps.dense import random_net
from secateur.runs import UsageError

WEIGHTS = ("init", "epoch", "dense", "random", "none")


@step("reset")
class Reset(NetworkStep):
    """Survivors get the weights that they had before: lottery tickets (Frankle & Carbin 2019), NNI's rounds.

    "random" draws new ones: the control, Scratch-E (Liu et al. 2019). With "none" they stay, and only the
    schedule of the training that follows begins again (Renda et al. 2020). What was pruned stays zero. The
    first weights of a model of one's own are those that it came with.
    """

    to: Literal[WEIGHTS] = option(
        "dense", "the first weights, those after an epoch, the dense network's, new ones, or as they are"
    )

    def check(self, start: Start) -> None:
        """With a given network only its own weights are known."""
        if start.config.trained_param and self.to in ("init", "epoch"):
            raise UsageError(
                "With --trained_param only the dense weights are known: take dense, random or none. "
                f"Received: {self.label}.to={self.to!r}"
            )

    def run(self, context: RunContext, state: State) -> State:
        if self.to == "none":
            return state
        given = context.subject.original is not None and not context.config.from_scratch
        to = "dense" if given and self.to in ("init", "epoch") else self.to  # it came with no others
        if to not in ("init", "random", *state.starts):
            raise UsageError(
                f"No epoch was kept: set dense.keep_epoch. Received: {self.label}.to={self.to!r}"
            )

        def make(path: Path) -> dict:
            if to == "random":
                model = random_net(context, context.load(state.network), more=1)
            else:
                source = random_net(context) if to == "init" else context.load(state.starts[to])
                model = narrow(source, state.plan) if state.plan else source
            keep_zeros(model, context.load(state.network))
            return context.save(path, model, state.plan)

        return state.after(context.step(state.name, self.result(state), make), self.shown, shared=None)


def keep_zeros(model: keras.Model, pruned: keras.Model) -> None:
    """Sets weights of convolutions to zero where those of an equal network are, in place."""
    for new, old in zip(model.trainable_variables, pruned.trainable_variables, strict=True):
        if len(new.shape) == 4:
            new.assign(np.where(old.numpy() == 0, 0, new.numpy()))
