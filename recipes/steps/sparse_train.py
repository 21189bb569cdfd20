"""Training with a penalty on BN's scales: the first half of network slimming."""

from __future__ import annotations

from typing import ClassVar

import keras

from secateur.pruning.constrain.gradients import slimming
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.options import option
from secateur.recipes.engine.step import State, step
from secateur.recipes.steps.train import Train


@step("sparse_train")
class SparseTrain(Train):
    """Presses |γ| towards zero while it trains (Liu et al. 2017, equation 1)."""

    widens: ClassVar[bool] = False

    strength: float = option(1e-4, "of the penalty: 1e-4 for VGG-19, 1e-5 for ResNet-164", ge=0)

    def hooks(self, context: RunContext, state: State, model: keras.Model, trained: keras.Model) -> dict:
        return {"adjust": self.held(state, model, trained, slimming(model, self.strength, trained))}
