"""Simulated annealing over the ratios of groups, as NNI defines it (`AutoCompress`, Liu et al. 2020).

Random ratios go to the groups so that one with more weights loses a larger share, and all are scaled until
the network meets the target. Every try shakes the ratios, less the colder it is. A better network is taken,
another with the probability exp(−|Δaccuracy| / T); T falls only when one is taken.

NNI draws again, maybe for ever, until no ratio exceeds 1. Here a group stops at its smallest width and the
others give the rest: every draw is a network that meets the target.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from secateur.pruning.choose.budgets import widest
from secateur.pruning.choose.ranking import Widths
from secateur.pruning.choose.rules import Rule
from secateur.pruning.plan import Plan
from secateur.pruning.search.annealing_state import AnnealingSettings, AnnealingState, Try
from secateur.pruning.search.space import Space, finite
from secateur.runs.errors import UsageError

TINY = 1e-9  # stands for a ratio of 0 where one is divided by


class Annealer:
    """Annealing in one space of widths.

    Args:
        space: the groups, the order of their channels, and the target.
        accuracy: plan → its network's accuracy, in [0, 1]; a larger scale is accepted less often.
        settings: see `AnnealingSettings`.

    Raises `UsageError` where no group can become narrower.
    """

    def __init__(
        self, space: Space, accuracy: Callable[[Plan], float], settings: AnnealingSettings | None = None
    ) -> None:
        self._space, self._accuracy, self.settings = space, accuracy, settings or AnnealingSettings()
        self._ascending = sorted(space.ranking.free(), key=space.weights.get)
        if not self._ascending:
            raise UsageError("No group may become narrower. Received: limits that keep all channels")

    def start(self, rng: np.random.Generator) -> AnnealingState:
        """Random ratios, evaluated. The generator is read, then its state lives in the search's."""
        plan = self._plan(rng.uniform(0, 1, len(self._ascending)))
        temperature = self.settings.start
        first = Try(0, plan, self._space.cost(plan), finite(self._accuracy(plan)), temperature, True)
        return AnnealingState(first, first, first, temperature, _bits(rng))

    def run(self, state: AnnealingState) -> Iterator[AnnealingState]:
        """Yields the state after every try, until it is cold or the tries are used up."""
        while state.temperature > self.settings.stop and state.last.number < self.settings.tries:
            state = self.step(state)
            yield state

    def step(self, state: AnnealingState) -> AnnealingState:
        """One try. Depends on the state alone: from an equal one it ends in an equal one."""
        rng, temperature = _generator(state.random), state.temperature
        plan = self._plan(self._shaken(state.current.plan, temperature, rng))
        accuracy = finite(self._accuracy(plan))
        accepted = rng.random() < acceptance(state.current.accuracy, accuracy, temperature)
        found = Try(state.last.number + 1, plan, self._space.cost(plan), accuracy, temperature, accepted)
        return AnnealingState(
            found,
            found if accepted else state.current,
            found if accuracy > state.best.accuracy else state.best,
            temperature * self.settings.cool if accepted else temperature,
            _bits(rng),
        )

    def _shaken(self, plan: Plan, temperature: float, rng: np.random.Generator) -> np.ndarray:
        """Other ratios removed near those of a plan, group by group in `_ascending`."""
        widths, settings = plan.widths(), self.settings
        ratios = np.array([1 - widths[name] / plan.sizes[name] for name in self._ascending])
        most = settings.spread * temperature / settings.start
        return np.clip(ratios + rng.uniform(-most, most, len(ratios)), 0, 1)

    def _plan(self, ratios: np.ndarray) -> Plan:
        """The network with these ratios in ascending order: more weights, larger ratio."""
        removed = dict(zip(self._ascending, np.sort(ratios).tolist(), strict=True))
        return self._space.ranking.plan(rescaled(self._space, removed))


def acceptance(now: float, tried: float, temperature: float) -> float:
    """Probability that a network is taken: 1 if it is better, else exp(−|Δ| / T)."""
    return 1.0 if tried > now else math.exp(-abs(tried - now) / temperature)


def rescaled(space: Space, ratios: Mapping[str, float]) -> Widths:
    """The widest network whose groups lose multiples of `ratios` by one factor, up to their smallest widths.

    Args:
        ratios: group → share of its channels to remove, in [0, 1]; 0 for those not named.

    Where whole channels leave some of the budget, the groups that lost most beyond their ratios get
    channels back: the cost is at most the target, and no group could have a channel more.
    """
    ranking = space.ranking

    def widths(dial: float) -> Widths:
        if dial == 0:
            return dict(ranking.lowest)
        factor = (1 - dial) / dial  # from 0 for the whole network towards infinity
        kept = {name: 1 - min(1.0, factor * ratios.get(name, 0.0)) for name in ranking.sizes}
        return {name: ranking.width(name, kept[name] * size) for name, size in ranking.sizes.items()}

    def lost(name: str, width: int) -> float:
        return (1 - width / ranking.sizes[name]) / max(ratios.get(name, 0.0), TINY)

    return widest(Rule(widths, lost), ranking, space.budget, fill=True)


def _bits(rng: np.random.Generator) -> dict[str, Any]:
    return rng.bit_generator.state


def _generator(bits: Mapping[str, Any]) -> np.random.Generator:
    source = getattr(np.random, bits["bit_generator"])()
    source.state = dict(bits)
    return np.random.Generator(source)
