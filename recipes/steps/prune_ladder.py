"""Filters go round by round towards a sparsity, as lottery tickets and gradual pruning have it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import keras

from secateur.nets.kernels import convolution_kernels
from secateur.pruning import Plan, coupled_plan, find_groups, find_ladder, plan_of_widths
from secateur.pruning.choose.coupling import COUPLINGS
from secateur.pruning.choose.ladders import LADDERS, relative
from secateur.pruning.rounding import removed
from secateur.recipes.engine.config import RunOptions
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.options import NameIn, option
from secateur.recipes.engine.step import State, step
from secateur.recipes.steps.narrowing import Narrowing, final_plan, final_sparsity
from secateur.runs import UsageError

GROUP = "group"


@step("prune_ladder")
class PruneLadder(Narrowing):
    """In round t of n: S_t of what the dense network had has gone."""

    sparsity: float = option(0.75, "goal of the last round, of channels or of weights", gt=0, lt=1)
    ladder: Annotated[str, NameIn(LADDERS)] = option("lottery", "how it grows over the rounds")
    coupling: Literal[GROUP, *COUPLINGS] = option(
        GROUP,
        "layers of a group share scores; or NNI's ways: the union of what each layer keeps by itself, "
        "or the sum of their scores; then the sparsity is that of each layer's weights",
    )

    def check_options(self, config: RunOptions) -> None:
        """NNI's couplings have a sparsity of weights and no budget."""
        if config.keep_macs and self.coupling != GROUP:
            raise UsageError(
                f"A ratio of the weights goes here ({self.label}.coupling={self.coupling!r}), none of the "
                f"operations. Received: keep_macs={config.keep_macs}\ngive --set {self.label}.coupling=group "
                f"with it, or in its place --set {self.label}.sparsity=0.4, which goes in the end"
            )

    def plan(self, context: RunContext, state: State, model: keras.Model) -> Plan:
        sparsity = final_sparsity(context, state, self.sparsity)
        goal = find_ladder(self.ladder)(sparsity, state.turns)[state.turn - 1]
        if self.coupling == GROUP:
            end = final_plan(context, state, fill=True)
            widths = _widths(state, model, goal, end.widths() if end else {})
            return plan_of_widths(model, widths, self.criterion, **self.scoring(context))
        dense, now = (_sizes(net) for net in (context.load(state.dense), model))
        keep = {layer: 1 - relative(goal, 1 - size / dense[layer]) for layer, size in now.items()}
        return coupled_plan(model, self.criterion, keep=keep, coupling=self.coupling, **self.scoring(context))


def _widths(state: State, model: keras.Model, goal: float, least: Mapping[str, int]) -> dict[str, int]:
    """n − floor(goal · n) of the n channels that each group had at first, or what is left if that is less.

    Not fewer than the `least` widths, where a budget has some.
    """
    now = {group.name: group.size for group in find_groups(model)}
    before = state.plan.sizes if state.plan else now
    wanted = {name: n - removed(n, goal, "floor") for name, n in before.items()}
    return {name: min(size, max(wanted[name], least.get(name, 1))) for name, size in now.items()}


def _sizes(model: keras.Model) -> dict[str, int]:
    """Layer → weights of its kernel, of convolutions whose channels may go; depthwise ones pass them on."""
    members = [member for group in find_groups(model) for member in group.members]
    makers = {member.layer for member in members if member.role == "producer"}
    kernels = [kernel for kernel in convolution_kernels(model) if len(kernel.filters) == 1]
    sizes = {kernel.name.partition("/")[0]: kernel.value.size for kernel in kernels}
    return {layer: size for layer, size in sizes.items() if layer in makers}
