"""Training that draws weights towards sparse copies of themselves: ADMM."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import keras

from secateur.pruning.choose.ladders import LADDERS, find_ladder, relative
from secateur.pruning.constrain.admm import UNITS
from secateur.pruning.constrain.splitting import FORMS, RHO, Splitting, admm, updating
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.options import NameIn, option
from secateur.recipes.engine.step import State, step
from secateur.recipes.steps.narrowing import final_sparsity
from secateur.recipes.steps.train import Train


@step("admm_train")
class AdmmTrain(Train):
    """Alternating directions (Zhang et al. 2018); a step that prunes by L1 cuts afterwards."""

    widens: ClassVar[bool] = False

    sparsity: float = option(0.5, "ratio of the units of each kernel that the sparse copy lacks", gt=0, lt=1)
    ladder: Annotated[str, NameIn(LADDERS)] | None = option(
        None, "in a loop: how it grows to the sparsity of the last round"
    )
    unit: Literal[UNITS] = option("filters", "what goes")
    rho: float = option(RHO, "strength of the pull", gt=0)
    form: Literal[FORMS] = option("textbook", "of the penalty; nni takes the root of the distance")
    every: int = option(1, "epochs between two renewals of the copies", ge=1)

    def hooks(self, context: RunContext, state: State, model: keras.Model, trained: keras.Model) -> dict:
        """What the loop does to gradients and after epochs, and what its checkpoints hold besides."""
        splitting = Splitting.of(model)
        return {
            "adjust": self.held(state, model, trained, admm(trained, splitting, self.rho, self.form)),
            "after_epoch": updating(splitting, self._now(context, state), self.unit, self.every),
            "kept": splitting.kept,
        }

    def _now(self, context: RunContext, state: State) -> float:
        """What this round's cut takes of what the round before has left."""
        sparsity = final_sparsity(context, state, self.sparsity)
        if self.ladder is None:
            return sparsity
        gone = [0.0, *find_ladder(self.ladder)(sparsity, state.turns)]
        return relative(gone[state.turn], gone[state.turn - 1])
