"""Several plans for one budget, as many as the time allows; the best one on the holdout is cut."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Literal

import keras

from secateur.pruning import Plan, make_plan
from secateur.pruning.planning import ALLOCATIONS
from secateur.pruning.score.registry import get_criterion
from secateur.pruning.search.ekg import check_reachable
from secateur.pruning.search.settings import SearchSettings
from secateur.recipes.engine.config import RunOptions
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.files import ending_seconds
from secateur.recipes.engine.options import option
from secateur.recipes.engine.step import Start, State, step
from secateur.recipes.steps.narrowing import Narrowing, scoring, timed
from secateur.recipes.steps.trials import Make, Search, Trials, adapted, searched
from secateur.runs import UsageError

SEARCHES: dict[str, Search] = {"netadapt": adapted, "ekg": searched}
KNOWN = {"keep_macs": tuple(SEARCHES), "keep_bytes": ("netadapt",), "keep_ms": ("netadapt",)}  # by searches


@step("auto")
class Auto(Narrowing):
    """Removes channels by the plan that keeps most accuracy, BN's averages estimated again.

    A plan of each criterion and allocation is tried, and a plan of each search that its part of the time is
    long enough for. Where milliseconds are the budget there is one plan for each criterion, which keeps
    most of the scores, and that of NetAdapt.
    """

    keep_macs: float = option(0.5, "ratio of the dense network's MACs, without --keep_macs", gt=0, lt=1)
    keep_ms: float = option(
        0.0, "ratio of its milliseconds for one image on LiteRT, in place of MACs; 0: MACs", ge=0, lt=1
    )
    keep_bytes: float = option(
        0.0, "ratio of the bytes of its weights in float32, in place of MACs; 0: MACs", ge=0, lt=1
    )
    criteria: list[str] = option(["l1", "fpgm", "taylor"], "of plans at once")
    allocations: list[Literal[ALLOCATIONS[:3]]] = option(
        ["uniform", "isomorphic", "global"], "of those plans"
    )
    searches: list[Literal[tuple(SEARCHES)]] = option([*SEARCHES], "for plans, in this order")
    time_for_plans: float = option(0.25, "share of the minutes before the report", gt=0, lt=1)
    max_drop: float = option(0.9, "largest ratio of its channels that a group loses", gt=0, le=1)

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        for criterion in self.criteria:
            get_criterion(criterion)

    def check(self, start: Start) -> None:
        """The budget must be within reach."""
        given = {"keep_macs": start.config.keep_macs, "keep_ms": self.keep_ms, "keep_bytes": self.keep_bytes}
        if len(several := [f"{name}={ratio:g}" for name, ratio in given.items() if ratio]) > 1:
            raise UsageError(f"Give one budget. Received: {', '.join(several)}")
        name, keep = self.budget(start.config)
        at_once = self.criteria and (self.allocations or self.keep_ms)
        if not at_once and not {*self.searches} & {*KNOWN[name]}:
            raise UsageError(
                f"No plan can be tried. Received: criteria={self.criteria}, allocations={self.allocations}, "
                f"searches={self.searches}\ngive criteria with allocations, or searches; {name} knows "
                f"{', '.join(KNOWN[name])}"
            )
        if name == "keep_macs":
            check_reachable(start.network(), SearchSettings(target=keep, convention="mac"))
        elif name == "keep_bytes":
            make_plan(start.network(), max_drop=self.max_drop, keep_bytes=keep)

    def budget(self, config: RunOptions) -> tuple[str, float]:
        """What must be met, as `make_plan` calls it, and the ratio."""
        given = {"keep_ms": self.keep_ms, "keep_bytes": self.keep_bytes}
        macs = config.keep_macs or self.keep_macs
        return next(((name, ratio) for name, ratio in given.items() if ratio), ("keep_macs", macs))

    def plan(self, context: RunContext, state: State, model: keras.Model) -> Plan:
        """The plan of the best trial; those that a killed run has made are not made again."""
        trials = Trials(context, state.name, model)
        seconds = self.seconds(context, state, trials)
        for name, make in self.candidates(context, state, model):
            trials.add(name, make, seconds - trials.spent)
        return trials.best.plan

    def seconds(self, context: RunContext, state: State, trials: Trials) -> float:
        """How long all trials together may take, those before a kill among them."""
        if (clock := context.clock) is None:
            return float("inf")
        return self.time_for_plans * (clock.left(ending_seconds(context, state)) + trials.spent)

    def candidates(self, context: RunContext, state: State, model: keras.Model) -> Iterator[tuple[str, Make]]:
        """Names and makers of plans: a quick one, the searches, then as many others as there is time for.

        Criteria that look at images come last. EKG's search knows neither bytes nor milliseconds.
        """
        name, ratio = self.budget(context.config)
        ordered = sorted(self.criteria, key=lambda name: get_criterion(name).needs_data)
        spread = [None] if self.keep_ms else self.allocations
        hows = [{"criterion": criterion, "allocation": one} for criterion in ordered for one in spread]
        made = [partial(self._at_once, context, state, model, how) for how in hows]
        at_once = [*zip([", ".join(filter(None, how.values())) for how in hows], made, strict=True)]
        yield from at_once[:1]
        for search in self.searches:
            if search in KNOWN[name]:
                yield search, partial(SEARCHES[search], context, model, name, ratio)
        yield from at_once[1:]

    def _at_once(
        self, context: RunContext, state: State, model: keras.Model, how: Mapping[str, Any], seconds: float
    ) -> Plan:
        how = {**how, "max_drop": self.max_drop, **scoring(context, how["criterion"])}
        name, ratio = self.budget(context.config)
        if name == "keep_macs":
            return self.budgeted(context, state, model, ratio, **how)
        return make_plan(model, **{name: ratio}, **how)

    def facts(
        self, context: RunContext, state: State, model: keras.Model, plan: Plan, small: keras.Model
    ) -> dict:
        """What was tried, and which of it was chosen; of milliseconds how many there were and are."""
        trials = Trials(context, state.name, model)
        found = {"tried": [one.to_json() for one in trials.all], "chosen": trials.best.name}
        if self.keep_ms:
            found["ms"] = timed(state.name, model, small, self.keep_ms)
        return found
