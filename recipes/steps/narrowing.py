"""The base of steps that remove channels: slice, estimate BN's averages again, measure on the holdout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import keras

from secateur.exports.timing import Setup
from secateur.pruning import Plan, complexity, find_groups, make_plan, narrow
from secateur.pruning.count.costs import bytes_of
from secateur.pruning.plan import FAST_WIDTH
from secateur.pruning.score.registry import get_criterion
from secateur.pruning.shrink.fill import fill
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.cutting import CutOptions
from secateur.recipes.engine.options import option
from secateur.recipes.engine.step import NetworkStep, State
from secateur.reports.words import percent
from secateur.runs import load_snapshot


class Cutting(CutOptions, NetworkStep):
    """Removes channels; `planned` says which."""

    reestimate: bool = option(True, "estimate BN's averages again, which belong to the wider network")
    padded: bool = option(False, "estimate them in the widths that train, multiples of 8, as EKG does")

    own_criteria: ClassVar[tuple[str, ...]] = ()  # that are none of `pruning.score`

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        if self.criterion not in self.own_criteria:
            get_criterion(self.criterion)

    def planned(self, context: RunContext, state: State, model: keras.Model) -> tuple[Plan, dict]:
        """What stays of `model`, the network as it is; and what was measured for it, for the manifest."""
        raise NotImplementedError(type(self).__name__)

    def run(self, context: RunContext, state: State) -> State:
        """snap_<name>.pkl: the narrower network, with the channels of the dense one that it has left.

        plan_<criterion>.json has the same plan for other programs to read.
        """

        def make(path: Path) -> dict:
            model = context.load(state.network)
            facts = {"holdout_before": context.accuracy(model, context.splits.holdout)}
            plan, found = self.planned(context, state, model)
            facts |= found
            small, moved = self.cut(context, model, plan)
            facts["holdout_after"] = context.accuracy(small, context.splits.holdout)
            facts |= self.facts(context, state, model, plan, small)
            if not moved:  # slicing alone is all that was done
                facts.pop("holdout_stale_averages", None)
            print(f"{state.name}: hold-out {_stages(facts, moved)}", flush=True)
            return context.save(path, small, state.narrowed(plan)) | facts

        path = context.step(state.name, self.result(state), make)
        plan = Plan.from_json(load_snapshot(path).plan)
        context.folder.write_json(f"plan_{self.criterion}.json", plan.to_json())
        return state.after(path, self.shown, plan=plan)

    def cut(self, context: RunContext, model: keras.Model, plan: Plan) -> tuple[keras.Model, bool]:
        """The channels that stay, with averages of their own; whether there are any that moved."""
        if not (self.padded and hasattr(model, "spec")):
            small = narrow(model, plan, self.preserve_norm)
            return small, self._averages(context, small)
        wide, inner = padded(model, plan, self.preserve_norm)
        moved = self._averages(context, wide)
        return narrow(wide, inner), moved

    def facts(
        self, context: RunContext, state: State, model: keras.Model, plan: Plan, small: keras.Model
    ) -> dict:
        """More for the manifest."""
        return {}

    def ratio(
        self, context: RunContext, state: State, model: keras.Model, budget: str, keep: float, **how: Any
    ) -> float:
        """What `model` is to keep of a budget's cost, for `keep` of what the dense network has.

        `budget` is a name as `make_plan` has it, `how` as `costs_of` takes it. In a loop each round takes an
        equal part of the way. 1 and more: the budget is met already.
        """
        keep **= state.turn / state.turns
        if state.network == state.dense:
            return keep
        costs = costs_of({"now": model, "dense": context.load(state.dense)}, budget, **how)
        return keep * costs["dense"] / costs["now"]

    def scoring(self, context: RunContext) -> dict:
        """See `scoring`."""
        return scoring(context, self.criterion)

    def _averages(self, context: RunContext, model: keras.Model) -> bool:
        return self.reestimate and context.reestimate(model)


class Narrowing(Cutting):
    """Removes channels; `plan` says which."""

    def plan(self, context: RunContext, state: State, model: keras.Model) -> Plan:
        """What stays of `model`, the network as it is."""
        raise NotImplementedError(type(self).__name__)

    def planned(self, context: RunContext, state: State, model: keras.Model) -> tuple[Plan, dict]:
        return self.plan(context, state, model), {}

    def budgeted(
        self, context: RunContext, state: State, model: keras.Model, keep_macs: float, **how: Any
    ) -> Plan:
        """The plan for a ratio of the dense network's MACs; in a loop each round takes an equal part of it.

        `how` are further options of `make_plan`. All channels stay where the budget is met already.
        """
        ratio = self.ratio(context, state, model, "keep_macs", keep_macs)
        if ratio >= 1:
            return Plan.full(find_groups(model))
        return make_plan(model, how.pop("criterion", self.criterion), keep_macs=ratio, **how)


def timed(name: str, before: keras.Model, after: keras.Model, asked: float) -> dict[str, float]:
    """Milliseconds of both networks, measured and said; `asked` is the ratio that was to stay."""
    ms = costs_of({"before": before, "after": after}, "keep_ms")
    share = ms["after"] / ms["before"]
    wanted = f"({share:.2f}, asked for {asked:.2f})"
    line = f"{ms['after']:.3g} of {ms['before']:.3g} ms {wanted}, one image on one thread of LiteRT"
    print(f"{name}: {line}", flush=True)
    return ms


def costs_of(
    models: Mapping[str, keras.Model], budget: str, convention: str = "mac", setup: Setup | None = None
) -> dict[str, float]:
    """Name → what a model costs, in the unit of a budget; `setup` measures milliseconds."""
    if budget == "keep_ms":
        return (setup or Setup()).milliseconds(models, seconds=2.0)
    if budget == "keep_bytes":
        return {name: bytes_of(model) for name, model in models.items()}
    part = budget.removeprefix("keep_")
    return {name: getattr(complexity(model, convention), part) for name, model in models.items()}


def scoring(context: RunContext, criterion: str) -> dict[str, Any]:
    """Images, loss and seed for a criterion: options of `make_plan` and `score_groups`."""
    data = context.sample() if get_criterion(criterion).needs_data else None
    task = context.subject.task
    return {"data": data, "seed": context.config.seed, "loss": task.losses if task else None}


def _stages(facts: Mapping[str, Any], moved: bool) -> str:
    """Accuracy before and behind a cut, in words."""
    names = {
        "holdout_before": "before",
        "holdout_stale_averages": "pruned",
        "holdout_after": "averages of BN re-estimated" if moved else "pruned",
    }
    return ", ".join(f"{name} {percent(facts[key])}" for key, name in names.items() if key in facts)


def final_plan(context: RunContext, state: State, fill: bool) -> Plan | None:
    """Of the widths that --keep_macs leaves in the end, one share of all groups; None without it.

    `fill` widens single groups as far as the budget has room.
    """
    if (keep_macs := context.config.keep_macs) is None:
        return None
    return make_plan(context.load(state.dense), "random", keep_macs=keep_macs, fill=fill, seed=0)


def final_sparsity(context: RunContext, state: State, own: float) -> float:
    """The ratio of the channels of each group that go in the end: a step's own, or what --keep_macs needs."""
    if (plan := final_plan(context, state, fill=False)) is None:
        return own
    least = min(width / plan.sizes[name] for name, width in plan.widths().items())
    return 1 - least + 1e-9  # no group keeps more than in that plan, for all that is rounded


# --- widths that train fast: a network of 15 channels a layer takes longer than one of 16 -------------------


def padded(model: keras.Model, plan: Plan, preserve_norm: bool) -> tuple[keras.Model, Plan]:
    """What a plan keeps, with surplus channels that are masked; and the plan that cuts them off again.

    The surplus are channels of `model`, as many as make widths multiples of 8.
    """
    outer = plan.padded(FAST_WIDTH)
    return narrow(model, outer, preserve_norm, alive=plan), plan.within(outer)


def widened(context: RunContext, state: State) -> tuple[keras.Model, Plan | None]:
    """The network as it is, with a surplus from the dense network; None where there is nothing to add.

    Plain layers have no masks that would hold a surplus at zero.
    """
    small = context.load(state.network)
    if state.plan is None or not hasattr(small, "spec") or state.plan.padded(FAST_WIDTH) == state.plan:
        return small, None
    model, inner = padded(context.load(state.dense), state.plan, preserve_norm=False)
    fill(model, inner, small)
    return model, inner
