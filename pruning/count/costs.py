"""What a network costs as a function of the widths of its groups: operations, parameters, bytes.

Every layer costs a sum of products of what is left of its axes: the terms of a `Polynomial`.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping

import keras
import numpy as np

from secateur.nets.graph import Call
from secateur.nets.kernels import named_variables
from secateur.pruning.conventions import Convention
from secateur.pruning.count.polynomial import MOST_AXES, Rows, Term
from secateur.pruning.groups.analysis import Analysis, Axes
from secateur.pruning.layers import cost_of


def operations(analysis: Analysis, rule: Convention) -> list[Term]:
    """Operations of all calls under a convention."""
    return [term for row in _costly(analysis, rule) for term in _monomials(analysis, *row, 1)]


def parameters(analysis: Analysis, rule: Convention) -> list[Term]:
    """Parameters under a convention; a layer that is called twice has them once."""
    once = {row[0].name: row for row in _costly(analysis, rule, _with_ones)}
    return [term for row in once.values() for term in _monomials(analysis, *row, 0)]


def stored_bytes(analysis: Analysis) -> list[Term]:
    """Bytes of all weights and statistics of the smaller model, in the types that they have."""
    terms = []
    for name, layer in analysis.graph.layers.items():
        own = named_variables(layer) if getattr(layer, "variables", ()) else {}
        for weight, variable in own.items():
            if weight != "mask":  # no part of the plain model
                cuts = (
                    (axis, analysis.cuts.get((name, weight, axis))) for axis in range(len(variable.shape))
                )
                terms.append(_stored(variable, {axis: rows for axis, rows in cuts if rows}))
    return terms


def bytes_of(model: keras.Model) -> int:
    """Bytes of all weights and statistics of a model as it is."""
    return sum(_bytes_each(v) * math.prod(v.shape) for v in model.variables)


def of_last_channels(analysis: Analysis, terms: Iterable[Term]) -> dict[str, int]:
    """Group → what its last channel costs while all others are there."""
    last = {group.name: group.size - 1 for group in analysis.groups}
    found = dict.fromkeys(last, 0.0)
    for factor, axes in terms:
        gone = [{name: np.count_nonzero(index == last[name]) for name, index in rows} for _, rows in axes]
        for name in {name for row in gone for name in row} if factor else ():
            left = [size - row.get(name, 0) for (size, _), row in zip(axes, gone, strict=True)]
            found[name] += factor * (math.prod(size for size, _ in axes) - math.prod(left))
    return {name: round(cost) for name, cost in found.items()}


def _bytes_each(variable: keras.Variable) -> int:
    """Bytes of one number of a variable."""
    return np.dtype(keras.backend.standardize_dtype(variable.dtype)).itemsize


def _stored(variable: keras.Variable, cut: Mapping[int, Rows]) -> Term:
    whole = [n for axis, n in enumerate(variable.shape) if axis not in cut]
    return float(_bytes_each(variable) * np.prod(whole)), tuple(
        (variable.shape[axis], rows) for axis, rows in cut.items()
    )


def _with_ones(call: Call) -> Call:
    """The call with 1 in place of open sizes, on which parameters do not depend."""
    inputs, outputs = (
        tuple((s[:1] + tuple(n or 1 for n in s[1:])) for s in shapes)
        for shapes in (call.input_shapes, call.shapes)
    )
    return dataclasses.replace(call, input_shapes=inputs, shapes=outputs)


def _costly(
    analysis: Analysis, rule: Convention, change: Callable[[Call], Call] = lambda call: call
) -> Iterator[tuple[Call, Axes, Callable]]:
    """Calls that cost anything, with axes, and a function of their sizes → parameters and operations."""
    for call in map(change, analysis.calls):
        if cost := cost_of(call):
            seen, axes = analysis.counted(call)
            yield seen, axes, lambda *sizes, call=seen, cost=cost: cost(rule, call, *sizes)


def _monomials(analysis: Analysis, call: Call, axes: Axes, cost: Callable, part: int) -> Iterator[Term]:
    """The terms of a cost that is linear in each size, from what it is where some of them are 0."""

    @functools.cache
    def value(some: tuple[int, ...]) -> float:
        return cost(*(size if i in some or not rows else 0 for i, (size, rows) in enumerate(axes)))[part]

    times = analysis.rows[call.inputs[0]] if part else 1  # several rows of a batch share their parameters
    cut = [i for i, (_, rows) in enumerate(axes) if rows]
    for degree in range(min(MOST_AXES, len(cut)) + 1):
        for chosen in itertools.combinations(cut, degree):
            corners = (c for n in range(degree + 1) for c in itertools.combinations(chosen, n))
            factor = times * sum((-1) ** (degree - len(corner)) * value(corner) for corner in corners)
            if factor:
                yield factor / math.prod(axes[i][0] for i in chosen), tuple(axes[i] for i in chosen)
