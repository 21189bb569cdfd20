"""Training that draws weights towards sparse copies of themselves: ADMM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import keras

from pruning.admm import UNITS
from pruning.splitting import FORMS, RHO, Splitting, admm, updating
from recipes.context import RunContext
from recipes.options import option
from recipes.steps.state import State
from recipes.steps.step import step
from recipes.steps.train import Train


@step("admm_train")
@dataclass(frozen=True, kw_only=True)
class AdmmTrain(Train):
    """Alternating directions (Zhang et al. 2018); a step that prunes by L1 cuts afterwards."""

    widens: ClassVar[bool] = False

    sparsity: float = option(
        0.5, "ratio of the units of each kernel that the sparse copy lacks", above=0, below=1
    )
    unit: str = option("filters", "what goes", choices=UNITS)
    rho: float = option(RHO, "strength of the pull", above=0)
    form: str = option("textbook", "of the penalty; nni takes the root of the distance", choices=FORMS)
    every: int = option(1, "epochs between two renewals of the copies", at_least=1)

    def hooks(self, context: RunContext, state: State, model: keras.Model, trained: keras.Model) -> dict:
        """What the loop does to gradients and after epochs, and what its checkpoints hold besides."""
        with context.strategy.scope():
            splitting = Splitting.of(model)
        return {
            "adjust": admm(trained, splitting, self.rho, self.form),
            "after_epoch": updating(splitting, self.sparsity, self.unit, self.every),
            "kept": splitting.kept,
        }
