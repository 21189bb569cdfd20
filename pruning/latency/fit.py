"""From a budget in milliseconds to a plan whose network takes them: predict, measure, correct."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import keras
import numpy as np

from secateur.exports.timing import Setup
from secateur.pruning.choose.ranking import Ranking, Widths
from secateur.pruning.choose.targets import Target
from secateur.pruning.groups.analysis import Analysis
from secateur.pruning.latency.greedy import widths_for
from secateur.pruning.latency.predict import Predictor
from secateur.pruning.latency.table import Table
from secateur.pruning.plan import Plan
from secateur.pruning.shrink.surgery import compact
from secateur.runs.errors import UsageError, warn

CLOSE = 0.05  # of the budget
AIM = 0.98  # of the budget: a little below it, for the noise of the next measurement
ROUNDS = 8
SECONDS = 1.0  # for the calls of a network, every time

Choose = Callable[[Predictor, float], Widths]  # predicted milliseconds at most → widths


@dataclass(frozen=True)
class Attempt:
    """A plan, the milliseconds that its layers add up to, and those that its network takes."""

    plan: Plan
    predicted: float
    measured: float


@dataclass(frozen=True)
class Fitted:
    """The attempt nearest the budget (`best`), and all: the whole network, the smallest, then the search."""

    best: Attempt
    attempts: tuple[Attempt, ...]

    @property
    def before(self) -> float:
        """Milliseconds of the whole network."""
        return self.attempts[0].measured


def fit(
    model: keras.Model,
    analysis: Analysis,
    ranking: Ranking,
    *,
    keep_ms: float | None = None,
    max_ms: float | None = None,
    setup: Setup | None = None,
    cache: str | os.PathLike | None = None,
    choose: Choose | None = None,
) -> Fitted:
    """The plan that keeps most of the scores in a given time.

    Args:
        model: functional model with fixed sizes.
        analysis: its groups.
        ranking: their channels, best first, and how few of them may stay.
        keep_ms: ratio of the milliseconds of the model, in (0, 1); or
        max_ms: milliseconds of one call on the setup's number of images.
        setup: what is measured with; None is LiteRT, one thread, one image.
        cache: folder of measured layers; None is the user's cache folder.
        choose: another rule for the widths; None is `greedy.widths_for`.

    The sum of layers is not the time of a network. So both ends are measured, the budget is looked up on the
    line between two measurements, and the network found is measured in its turn, until one lies within 5 % of
    the budget. Warns when none of 8 does: one step of a width takes more than that.

    Raises `UsageError` for open sizes and for a budget out of reach; then it says the smallest time.
    """
    target = Target.one_of(keep_ms=keep_ms, max_ms=max_ms)
    setup = setup or Setup()
    table = Table(setup, cache)
    predict = Predictor(analysis, table)
    choose = choose or (lambda cost, most: widths_for(analysis.groups, ranking, cost, most))

    def attempt(widths: Widths) -> Attempt:
        plan = ranking.plan(widths)
        # Before its layers: what cannot be measured is then named as the model, not as one layer of it.
        measured = setup.milliseconds({"": compact(model, plan)}, SECONDS)[""]
        return Attempt(plan, predict(widths), measured)

    try:
        full, least = attempt(ranking.sizes), attempt(ranking.lowest)
        budget = target.milliseconds(full.measured)
        if target.name == "max_ms" and full.measured <= budget:
            warn(f"the model takes {full.measured:.3g} ms, within max_ms={budget:g}: all channels stay")
            return Fitted(full, (full, least))
        _check(budget, full, least)
        tried = _search(lambda most: attempt(choose(predict, most)), least, full, budget)
    finally:
        table.save()
    best = _best(tried, budget)
    if _distance(best, budget) > CLOSE:
        warn(f"no widths within 5 % of {budget:.3g} ms were found; the nearest take {best.measured:.3g} ms")
    return Fitted(best, (full, least, *tried))


def _search(attempt: Callable[[float], Attempt], low: Attempt, high: Attempt, budget: float) -> list[Attempt]:
    """Regula falsi on predicted milliseconds; `low` and `high` enclose the budget in measured ones."""
    tried: list[Attempt] = []
    for _ in range(ROUNDS):
        if any(_distance(a, budget) <= CLOSE for a in tried):
            return tried
        slope = (high.predicted - low.predicted) / max(high.measured - low.measured, 1e-9)
        target = low.predicted + slope * (AIM * budget - low.measured)
        targets = np.clip([target, (low.predicted + high.predicted) / 2], low.predicted, high.predicted)
        found = next((a for a in map(attempt, targets) if a.plan not in (low.plan, high.plan)), None)
        if found is None:  # no widths lie between these
            break
        tried.append(found)
        low, high = (low, found) if found.measured > budget else (found, high)
    return [*tried, low, high]


def _best(tried: list[Attempt], budget: float) -> Attempt:
    """Of those near the budget the widest: small networks take the same time; else the nearest."""
    near = [a for a in tried if _distance(a, budget) <= CLOSE]
    return max(near, key=lambda a: a.predicted) if near else min(tried, key=lambda a: _distance(a, budget))


def _distance(attempt: Attempt, budget: float) -> float:
    return abs(attempt.measured / budget - 1)


def _check(budget: float, full: Attempt, least: Attempt) -> None:
    if budget < least.measured * (1 - CLOSE):
        raise UsageError(
            f"The target is out of reach: the smallest network takes {least.measured:.3g} ms of "
            f"{full.measured:.3g}. Received: {budget:.3g} ms"
        )
