"""Trials of plans: each is made, measured on the holdout and kept, so that a killed run makes none again."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import keras

from secateur.dataloader.splits import equidistant
from secateur.pruning import Plan
from secateur.pruning.choose.ranking import Ranking
from secateur.pruning.choose.targets import Target
from secateur.pruning.count.counting import Counter
from secateur.pruning.groups.analysis import analyse
from secateur.pruning.score.scores import score_groups
from secateur.pruning.search.netadapt import Adapted, AdaptedWidths
from secateur.pruning.search.settings import SearchSettings
from secateur.pruning.search.space import CAPPED
from secateur.pruning.search.trial import PlanScorer
from secateur.recipes.engine.context import RunContext
from secateur.recipes.steps.narrowing import scoring
from secateur.recipes.steps.searching import ekg_search, scorer
from secateur.runs import UsageError
from secateur.runs.errors import first_line

COARSEST, FINEST = 0.1, 0.02  # share of the whole cost that one step of NetAdapt may save
PART = 0.6  # of the time that is left for plans, for NetAdapt
SHOWN = 1024  # holdout images that compare plans
ORDER = "taylor"  # in which NetAdapt's channels go; of ResNet-20 at 72 % of its MACs 91.2 % after 88.6 by l1

Make = Callable[[float], Plan]  # of the seconds that it may take
Search = Callable[[RunContext, keras.Model, str, float, float], Plan]  # of a budget, its ratio, and seconds


@dataclass(frozen=True)
class Trial:
    """One plan.

    Attributes:
        name: criterion and allocation, or the search that found it.
        seconds: that making and measuring it took.
        plan: None where none could be made; `reason` says why.
        macs: that it leaves.
        holdout: accuracy of what it leaves on holdout images, BN's averages estimated again.
    """

    name: str
    seconds: float
    plan: Plan | None = None
    macs: int | None = None
    holdout: float | None = None
    reason: str = ""

    def __str__(self) -> str:
        """A line for the terminal."""
        if self.plan is None:
            return f"{self.name} left out: {self.reason}"
        return f"{self.name}, {self.macs:,} MACs, hold-out {100 * self.holdout:.2f} %, {self.seconds:.1f} s"

    def to_json(self) -> dict[str, Any]:
        """Plain types, for tables: all but the plan."""
        return {key: value for key, value in vars(self).items() if key != "plan"}

    def kept(self) -> dict[str, Any]:
        """Plain types; `from_json` gives an equal object."""
        return vars(self) | {"plan": self.plan and self.plan.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Inverse of `kept`."""
        return cls(**{**data, "plan": Plan.from_json(data["plan"]) if data["plan"] else None})


class TooLong(Exception):
    """A plan would need more than its part of the time."""


class Trials:
    """All trials of a step, in its checkpoint."""

    def __init__(self, context: RunContext, name: str, model: keras.Model) -> None:
        self._context, self._name, self._model = context, name, model
        self._one = 0.0  # seconds that measuring one plan takes, once it is compiled
        saved = context.folder.load_checkpoint(name)
        self.all = [Trial.from_json(one) for one in saved.facts["trials"]] if saved else []

    @property
    def best(self) -> Trial:
        """The most accurate one, of equal ones the cheapest. Raises `UsageError` where there is none."""
        made = [one for one in self.all if one.plan]
        if not made:
            raise UsageError(f"No plan meets the budget: {self.all[0].reason}")
        return max(made, key=lambda one: (one.holdout, -one.macs))

    @property
    def spent(self) -> float:
        """Seconds of all of them."""
        return sum(one.seconds for one in self.all)

    def add(self, name: str, make: Make, seconds: float) -> None:
        """Makes and measures a plan in so many seconds, unless that has been done.

        The first one is made however long it takes: a run needs one.
        """
        if name in [one.name for one in self.all]:
            return
        start = time.monotonic()
        try:
            self._check(seconds)
            found = self._measured(make(seconds))
        except (UsageError, TooLong) as error:
            found = {"reason": first_line(error)}
        trial = Trial(name, round(time.monotonic() - start, 3), **found)
        print(f"{self._name}: {trial}", flush=True)
        self.all.append(trial)
        self._context.checkpoint(self._name, {}, {"trials": [one.kept() for one in self.all]})

    def _check(self, seconds: float) -> None:
        if any(one.plan for one in self.all) and seconds <= self._one:
            raise TooLong("no time is left for it")

    def _measured(self, plan: Plan) -> dict[str, Any]:
        score = self._score  # compiled by now
        start = time.monotonic()
        found = {"plan": plan, "macs": self._counter.macs(plan.masks()), "holdout": score(plan)}
        self._one = time.monotonic() - start
        return found

    @cached_property
    def _counter(self) -> Counter:
        return Counter(self._model, "mac")

    @cached_property
    def _score(self) -> PlanScorer:
        holdout = self._context.splits.holdout
        some = holdout.take(equidistant(len(holdout), SHOWN))
        score = scorer(self._context, self._model, some)
        score(Plan.full(analyse(self._model).groups))
        return score


# --- searches -----------------------------------------------------------------------------------------------


def adapted(context: RunContext, model: keras.Model, budget: str, keep: float, seconds: float) -> Plan:
    """NetAdapt's plan, in steps as fine as its part of the seconds allows; channels go by `ORDER`.

    Raises `TooLong` where the coarsest steps would take longer than that, and as soon as the search is seen
    to take longer than all of the seconds.
    """
    begun = time.monotonic()
    accuracy = scorer(context, model, context.splits.search, batches=2)
    analysis = analyse(model)
    scores = score_groups(model, ORDER, analysis=analysis, **scoring(context, ORDER))
    ranking = Ranking.of(analysis, scores, CAPPED)
    whole = ranking.plan(ranking.sizes)
    accuracy(whole)  # traces
    start = time.monotonic()
    accuracy(whole)
    now = time.monotonic()
    left = PART * seconds - (now - begun)
    work = (now - start) * len(ranking.free()) * (1 - keep)
    if work / COARSEST > left:
        raise TooLong(f"about {work / COARSEST:.3g} s of {max(left, 0):.3g} s")
    target, pace = Target(budget, keep), Pace(left / PART)

    def each(done: Sequence[Adapted], most: float) -> None:
        whole, now = done[0].cost, done[-1].cost
        # Layers are timed when they are first asked for: how long that takes says nothing of what is to come.
        pace(1.0 if target.measured else (whole - now) / (whole - most))

    choose = AdaptedWidths(ranking, accuracy, min(COARSEST, max(FINEST, work / left)), each=each)
    return choose.plan(model, analysis, target)


def searched(context: RunContext, model: keras.Model, budget: str, keep: float, seconds: float) -> Plan:
    """EKG's plan for MACs. Raises `TooLong` as soon as it is seen to take more than its seconds."""
    search, pace = ekg_search(context, model, SearchSettings(target=keep, convention="mac")), Pace(seconds)
    for state in search.run():
        pace((1 - state.history[-1].macs / search.dense_macs) / (1 - keep))
    return state.plan


class Pace:
    """Stops a search that will not end in so many seconds. Called with the share that is done, in [0, 1].

    The first call, behind which everything is compiled, is no measure for those that follow. Raises `TooLong`
    as soon as what is left of the way would take longer than what is left of the seconds.
    """

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._seconds, self._now = seconds, now
        self._start, self._first = now(), None

    def __call__(self, share: float) -> None:
        spent = self._now() - self._start
        if self._first and share > self._first[0]:
            begun, before = self._first
            spent += (spent - before) * (1 - min(share, 1)) / (share - begun)
        if spent > self._seconds:
            raise TooLong(f"about {spent:.3g} s of {self._seconds:.3g} s")
        self._first = self._first or (share, spent)
