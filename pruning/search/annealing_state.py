"""Options of an annealing, checked, and what a search that goes on needs to know."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from secateur.pruning.plan import Plan
from secateur.runs.errors import UsageError


@dataclass(frozen=True)
class AnnealingSettings:
    """How to anneal; the defaults are NNI's.

    Attributes:
        start, stop: temperatures, start > stop > 0; the search ends at or below `stop`.
        cool: factor of the temperature after a network has been taken, in (0, 1).
        spread: largest change of a ratio at the start, in (0, 1]; it falls with the temperature.
        tries: networks that are tried at most, at least 1.
    """

    start: float = 100.0
    stop: float = 20.0
    cool: float = 0.9
    spread: float = 0.35
    tries: int = 1000

    def __post_init__(self) -> None:
        if not 0 < self.stop < self.start < math.inf:
            raise UsageError(
                "Temperatures must fall from start to stop, above 0. "
                f"Received: start={self.start:g}, stop={self.stop:g}"
            )
        if not 0 < self.cool < 1:
            raise UsageError(f"cool must lie in (0, 1). Received: cool={self.cool:g}")
        if not 0 < self.spread <= 1:
            raise UsageError(f"spread must lie in (0, 1]. Received: spread={self.spread:g}")
        if self.tries < 1:
            raise UsageError(f"tries must be at least 1. Received: tries={self.tries}")

    @property
    def moves(self) -> int:
        """Networks that are taken until the end: ⌈log(stop / start) / log(cool)⌉; 16 with NNI's numbers."""
        temperature, count = self.start, 0
        while temperature > self.stop:
            temperature, count = temperature * self.cool, count + 1
        return count


@dataclass(frozen=True)
class Try:
    """One network that was tried.

    Attributes:
        number: from 0, which is the random start.
        plan: what it keeps; cost: what it costs; accuracy: larger = better.
        temperature: that it was tried at; accepted: whether it was taken.
    """

    number: int
    plan: Plan
    cost: float
    accuracy: float
    temperature: float
    accepted: bool

    def to_json(self) -> dict:
        """Plain types; `from_json` gives an equal object."""
        return {**asdict(self), "plan": self.plan.to_json()}

    @classmethod
    def from_json(cls, data: Mapping) -> Try:
        """Inverse of `to_json`."""
        return cls(**{**data, "plan": Plan.from_json(data["plan"])})


@dataclass(frozen=True)
class AnnealingState:
    """Everything that the next try depends on, and the best network so far.

    Attributes:
        last: the latest try; current: the latest that was taken; best: the most accurate one.
        temperature: of the next try.
        random: state of the generator's bits.
    """

    last: Try
    current: Try
    best: Try
    temperature: float
    random: Mapping[str, Any]

    def to_json(self) -> dict:
        """Plain types; `from_json` gives a state that goes on in the same way."""
        tries = {name: getattr(self, name).to_json() for name in ("last", "current", "best")}
        return {**tries, "temperature": self.temperature, "random": dict(self.random)}

    @classmethod
    def from_json(cls, data: Mapping) -> AnnealingState:
        """Inverse of `to_json`. Raises `UsageError` on anything else."""
        try:
            tries = [Try.from_json(data[name]) for name in ("last", "current", "best")]
            return cls(*tries, float(data["temperature"]), dict(data["random"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(f"This is no state of an annealing; start anew. Received: {error!r}") from error
