"""Which budget a user gave, and what it bounds."""

from __future__ import annotations

import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from secateur.pruning.choose.budgets import Budget, Cost
from secateur.pruning.choose.ranking import Ranking
from secateur.pruning.conventions import CONVENTIONS
from secateur.pruning.count.costs import operations, parameters, stored_bytes
from secateur.pruning.count.counting import require_sizes, uncounted
from secateur.pruning.count.polynomial import Polynomial
from secateur.pruning.groups.analysis import Analysis
from secateur.runs.errors import UsageError, warn

MEASURED = ("keep_ms", "max_ms")


@dataclass(frozen=True)
class Target:
    """An option of `make_plan` that bounds a cost, and its value.

    Attributes:
        name: of the option: "keep" and the like are ratios, "max_ms" milliseconds, "budget" a `Budget`.
        value: what the user gave.

    Raises `UsageError` for a ratio outside (0, 1) (`keep` may be 1) and for milliseconds not above 0.
    """

    name: str
    value: Any

    def __post_init__(self) -> None:
        name, value = self.name, self.value
        if name != "budget" and not (isinstance(value, numbers.Real) or getattr(value, "shape", None) == ()):
            raise UsageError(f"{name} must be a number. Received: {name}={value!r}")
        if name == "max_ms" and not value > 0:
            raise UsageError(f"max_ms must be above 0. Received: max_ms={value}")
        if name.startswith("keep") and not (0 < value < 1 or (name == "keep" and value == 1)):
            raise UsageError(
                f"{name} must lie in (0, 1{']' if name == 'keep' else ')'}. Received: {name}={value}"
            )

    @classmethod
    def one_of(cls, **options: Any) -> Target:
        """The one option that is not None. Raises `UsageError` where there is none or more than one."""
        given = {name: value for name, value in options.items() if value is not None}
        if len(given) != 1:
            got = ", ".join(f"{name}={value}" for name, value in given.items()) or "none of them"
            raise UsageError(f"Give one of {', '.join(options)}. Received: {got}")
        return cls(*next(iter(given.items())))

    @property
    def measured(self) -> bool:
        """Whether models must be timed."""
        return self.name in MEASURED

    def milliseconds(self, whole: float) -> float:
        """The bound of a target that is measured, for a network that takes `whole` milliseconds."""
        return self.value * whole if self.name == "keep_ms" else self.value

    def budget(self, analysis: Analysis, ranking: Ranking, convention: str) -> Budget:
        """The bound as a number, of a counted cost. Raises `UsageError` for what cannot be counted."""
        if self.name == "budget":
            return self.value
        cost = COUNTED[self.name](analysis, ranking, convention)
        return Budget(self.name, cost, self.value * cost(ranking.sizes))


def _channels(analysis: Analysis, ranking: Ranking, convention: str) -> Cost:
    return lambda widths: sum(widths.values())


def _operations(analysis: Analysis, ranking: Ranking, convention: str) -> Cost:
    require_sizes(analysis)
    for line in uncounted(analysis):
        warn(line)
    return Polynomial(operations(analysis, CONVENTIONS.find(convention)), ranking.orders)


def _parameters(analysis: Analysis, ranking: Ranking, convention: str) -> Cost:
    return Polynomial(parameters(analysis, CONVENTIONS.find(convention)), ranking.orders)


def _bytes(analysis: Analysis, ranking: Ranking, convention: str) -> Cost:
    return Polynomial(stored_bytes(analysis), ranking.orders)


COUNTED: dict[str, Callable[[Analysis, Ranking, str], Cost]] = {
    "keep": _channels,
    "keep_macs": _operations,
    "keep_params": _parameters,
    "keep_bytes": _bytes,
}
