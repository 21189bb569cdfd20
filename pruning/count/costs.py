"""What a network costs as a function of the widths of its groups: operations, parameters, bytes.

Every layer costs a sum of products of what is left of its axes: the terms of a `Polynomial`.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping

import keras
import numpy as np

from secateur.nets.graph import Call
from secateur.nets.kernels import named_variables
from secateur.pruning.conventions import Convention
from secateur.pruning.count.polynomial import Rows, Term
from secateur.pruning.groups.analysis import Analysis
from secateur.pruning.layers import cost_of


def operations(analysis: Analysis, rule: Convention) -> list[Term]:
    """Operations of all calls under a convention."""
    return [term for call, found in _costly(analysis, rule) for term in _bilinear(analysis, call, found, 1)]


def parameters(analysis: Analysis, rule: Convention) -> list[Term]:
    """Parameters under a convention; a layer that is called twice has them once."""
    once = {call.name: (call, found) for call, found in _costly(analysis, rule, _with_ones)}
    return [term for call, found in once.values() for term in _bilinear(analysis, call, found, 0)]


def stored_bytes(analysis: Analysis) -> list[Term]:
    """Bytes of all weights and statistics of the smaller model, in the types that they have."""
    cuts: dict[tuple[str, str], dict[int, Rows]] = defaultdict(lambda: defaultdict(list))
    for group in analysis.groups:
        for member in group.members:
            for weight, axis in member.axes.items():
                cuts[member.layer, weight][axis].append((group.name, member.index))
    terms = []
    for name, layer in analysis.graph.layers.items():
        own = named_variables(layer) if getattr(layer, "variables", ()) else {}
        for weight, variable in own.items():
            if weight != "mask":  # no part of the plain model
                terms.append(_stored(variable, cuts.get((name, weight), {})))
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
) -> Iterator[tuple[Call, Callable]]:
    """Calls that cost anything, with a function of channels in and out → parameters and operations."""
    for call in map(change, analysis.calls):
        if cost := cost_of(call):
            seen = analysis.counted(call)[0]
            yield call, lambda n_in, n_out, call=seen, cost=cost: cost(rule, call, n_in, n_out)


def _bilinear(analysis: Analysis, call: Call, cost: Callable, part: int) -> list[Term]:
    """A cost a·in·out + b·in + c·out² + d·out + e, known at five points, is known everywhere."""
    _, x, y = analysis.counted(call)
    n, m = x[0], y[0]
    points = ((0, 0), (n, 0), (0, m), (n, m), (0, 2 * m))
    rows = analysis.rows[call.inputs[0]] if part else 1  # several rows of a batch share their parameters
    none, read, made, both, twice = (rows * cost(i, o)[part] for i, o in points)
    product = (both - read - made + none) / (n * m)
    square = (twice - 2 * made + none) / 2
    return [
        (product, (x, y)), ((read - none) / n, (x,)), (square / m**2, (y, y)),
        ((made - none - square) / m, (y,)), (none, ()),
    ]  # fmt: skip
