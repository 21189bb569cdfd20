"""Weights become equal to few values in each kernel, and stay so: the first half of storing them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from coding.kernels import KINDS, MOST_BITS
from coding.sharing import share
from recipes.context import RunContext
from recipes.options import option
from recipes.steps.state import State
from recipes.steps.step import Step, step
from runs import UsageError


@step("share")
@dataclass(frozen=True, kw_only=True)
class Share(Step):
    """Gives each kernel at most 2^bits values beside 0 (Han et al. 2016; HAP); later trainings keep them."""

    bits: int | dict = option(
        5, f"1 to {MOST_BITS}; or a table from conv, dense, layers or patterns of layers to bits"
    )
    layers: str = option("conv", "whose kernels; all of both", choices=KINDS)
    linear: bool = option(
        False, "HAP's clustering, from values at equal distances, instead of the optimal one"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        own = self.bits.values() if isinstance(self.bits, dict) else [self.bits]
        if wrong := [n for n in own if not (type(n) is int and 1 <= n <= MOST_BITS)]:
            raise UsageError(f"Bits are 1 to {MOST_BITS}. Received: {self.label}.bits={wrong[0]}")

    def run(self, context: RunContext, state: State) -> State:
        """snap_<name>.pkl: the network with shared weights; the manifest has a row for each kernel."""
        which = {"bits": self.bits, "layers": self.layers}

        def make(path: Path) -> dict:
            model = context.load(state.network)
            facts = {"holdout_before": context.accuracy(model, context.splits.holdout)}
            shared = share(model, linear=self.linear, **which)
            facts["holdout_after"] = context.accuracy(model, context.splits.holdout)
            return context.save(path, model, state.plan) | facts | {"kernels": shared.facts()}

        path = context.step(state.name, f"snap_{state.name}.pkl", make)
        return replace(state.after(path), shared=which)
