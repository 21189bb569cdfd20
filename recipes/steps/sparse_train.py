"""Training with a penalty that makes channels small, which a step that prunes removes afterwards."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import keras

from secateur.pruning.constrain.channel_penalty import ALPHA, Growing, group_sparse
from secateur.pruning.constrain.gradients import slimming
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.options import option
from secateur.recipes.engine.step import State, step
from secateur.recipes.steps.narrowing import final_sparsity
from secateur.recipes.steps.train import Train
from secateur.runs import UsageError

OF_GROWING = ("growth", "ceiling", "sparsity")


@step("sparse_train")
class SparseTrain(Train):
    """Presses BN's scales towards zero while it trains, or all weights of channels.

    "scales" is network slimming (Liu et al. 2017, equation 1), "groups" group-norm sparse learning (Fang et
    al. 2023), "growing" growing regularisation (Wang et al. 2021).
    """

    widens: ClassVar[bool] = False

    penalty: Literal["scales", "groups", "growing"] = option(
        "scales", "|γ| of BN; all weights of channels, small channels more; the same, more each epoch"
    )
    strength: float = option(
        1e-4, "of the penalty: of scales 1e-4 for VGG-19, 1e-5 for ResNet-164; of growing: at first", ge=0
    )
    alpha: float = option(ALPHA, "of groups: the smallest channel is pressed 2^alpha times as hard", ge=0)
    growth: float = option(
        4e-3, "of growing: added after each epoch (published: 1e-4 after 10 steps, 4e-3 in 400)", ge=0
    )
    ceiling: float = option(1.0, "of growing: largest strength", ge=0)
    sparsity: float | None = option(
        None, "of growing: ratio of each group that is pressed (default: all, by their smallness)", gt=0, lt=1
    )

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        others = {"scales": ("alpha", *OF_GROWING), "groups": OF_GROWING, "growing": ("alpha",)}[self.penalty]
        fields = type(self).model_fields
        if other := next((name for name in others if getattr(self, name) != fields[name].default), None):
            raise UsageError(
                f"This penalty has no {other}. Received: {self.label}.penalty={self.penalty!r}, "
                f"{other}={getattr(self, other)}\nleave {other} out, or choose another penalty"
            )

    def hooks(self, context: RunContext, state: State, model: keras.Model, trained: keras.Model) -> dict:
        if self.penalty != "growing":
            press = (
                slimming(model, self.strength, trained)
                if self.penalty == "scales"
                else group_sparse(model, self.strength, self.alpha, trained)
            )
            return {"adjust": self.held(state, model, trained, press)}
        sparsity = self.sparsity and final_sparsity(context, state, self.sparsity)
        growing = Growing.of(model, self.strength, sparsity)
        return {
            "adjust": self.held(state, model, trained, growing.adjust(trained)),
            "after_epoch": growing.grow(self.growth, self.ceiling),
            "kept": growing.strengths,
        }
