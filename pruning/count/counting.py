"""Parameters and multiply-accumulates, under every convention that papers use, by arithmetic on shapes.

A candidate of a search is counted with a few multiplications (`Counter.macs`), never with a forward pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import keras
import numpy as np

from secateur.nets.graph import Call
from secateur.pruning.conventions import CONVENTIONS, Convention
from secateur.pruning.groups.analysis import Analysis, Rows, analyse, analysis_for
from secateur.pruning.layers import cost_of
from secateur.pruning.layers.costs import Cost, as_they_are, guessed
from secateur.pruning.plan import Plan
from secateur.runs.errors import UsageError, first_line


@dataclass(frozen=True)
class LayerCost:
    """Parameters and operations of one layer (of all its uses together)."""

    name: str
    kind: str
    params: int
    macs: int


@dataclass(frozen=True)
class Complexity:
    """Cost of a model for one sample of its inputs: totals and one row per layer that costs anything."""

    params: int
    macs: int
    layers: tuple[LayerCost, ...]
    convention: str


def complexity(model: keras.Model, convention: str = "mac", plan: Plan | None = None) -> Complexity:
    """Counts a functional model for one sample of its inputs, or what it would be after a plan.

    Args:
        model: functional model, fixed input size.
        convention: "mac", "ekg", "rethinking" or "ptflops"; `macs` then holds that convention's operations.
        plan: None counts the model as it is.

    Raises `UsageError` for an unknown convention, an open size, a plan of another network.
    """
    analysis, plan = analysis_for(model, plan)
    return Counter(model, convention, analysis).count(plan)


def unsized(analysis: Analysis) -> Call | None:
    """The first call that costs anything and whose size is open, so that its operations have no number."""
    costly = (call for call in analysis.calls if cost_of(call))
    return next((c for c in costly if any(None in s[1:] for s in (*c.input_shapes, *c.shapes))), None)


def require_sizes(analysis: Analysis) -> None:
    """Raises `UsageError` where operations and milliseconds depend on a size that is open."""
    if call := unsized(analysis):
        raise UsageError(
            "Operations and milliseconds need fixed sizes. "
            f"Received: {call.layer.name!r} of shape {call.shapes[0]}\n"
            "secateur.functional(model, (height, width, channels)) fixes it; keep, keep_params and "
            "keep_bytes need none"
        )


def uncounted(analysis: Analysis) -> list[str]:
    """A line for each layer whose operations are a guess: it is not understood, nor can TensorFlow say."""
    calls = {call.name: call for call in analysis.calls if cost_of(call) is as_they_are}
    found = {name: why for name, call in calls.items() if (why := guessed(call))}
    return [f"the operations of {name} are guessed from its weights: {why}" for name, why in found.items()]


def _counted(cost: Cost, rule: Convention, call: Call, *sizes: int) -> tuple[int, int]:
    """What a call costs. Raises `UsageError`, with the layer's name, where its `cost` fails."""
    try:
        return cost(rule, call, *sizes)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UsageError(
            f"Layer {call.name!r} of class {call.kind} cannot be counted: {first_line(error)}. "
            f"Received: {sizes[0]} channels in and {sizes[-1]} out"
        ) from error


class Counter:
    """The cost of a model as a function of its masks."""

    def __init__(self, model: keras.Model, convention: str = "mac", analysis: Analysis | None = None) -> None:
        self.name, self.rule = convention, CONVENTIONS.find(convention)
        analysis = analysis or analyse(model)
        self._groups = analysis.groups
        require_sizes(analysis)
        self._axes: dict[tuple, tuple[int, Rows]] = {}  # many tensors hold the same channels: counted once
        self._costs = []
        for call in analysis.calls:
            if cost := cost_of(call):
                seen, axes = analysis.counted(call)
                times = analysis.rows[call.inputs[0]]
                self._costs.append((seen, cost, times, [self._axis(*axis) for axis in axes]))

    def _axis(self, size: int, rows: Rows) -> tuple:
        key = (size, *((name, index.tobytes()) for name, index in rows))
        self._axes[key] = (size, rows)
        return key

    def macs(self, masks: Mapping[str, np.ndarray]) -> int:
        """Operations under one boolean mask (channels,) per group."""
        return sum(macs for _, _, macs in self._rows(masks))

    def count(self, plan: Plan | None = None) -> Complexity:
        """Totals and rows for a plan; None keeps everything."""
        plan = plan.check(self._groups) if plan else Plan.full(self._groups)
        return self.under(plan.masks())

    def under(self, masks: Mapping[str, np.ndarray]) -> Complexity:
        """Totals and rows under one boolean mask (channels,) per group, which may remove all of it."""
        params: dict[str, int] = {}
        macs: dict[str, int] = {}
        kinds: dict[str, str] = {}
        for call, p, m in self._rows(masks):
            name = call.name
            kinds[name] = call.kind
            params[name] = p  # a shared layer has its parameters once …
            macs[name] = macs.get(name, 0) + m  # … and its operations at each use
        rows = tuple(LayerCost(n, kinds[n], params[n], macs[n]) for n in kinds if params[n] or macs[n])
        return Complexity(sum(params.values()), sum(macs.values()), rows, self.name)

    def _rows(self, masks: Mapping[str, np.ndarray]) -> Iterator[tuple[Call, int, int]]:
        alive = {name: np.append(np.asarray(mask, bool), True) for name, mask in masks.items()}
        left = {key: _left(size, rows, alive) for key, (size, rows) in self._axes.items()}
        for call, cost, times, axes in self._costs:
            params, macs = _counted(cost, self.rule, call, *(left[key] for key in axes))
            yield call, params, times * macs


def _left(size: int, rows: Rows, alive: Mapping[str, np.ndarray]) -> int:
    kept = [alive[name][index] for name, index in rows]
    return int(np.logical_and.reduce(kept).sum()) if kept else size
