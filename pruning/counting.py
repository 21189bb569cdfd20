"""Parameters and multiply-accumulates, under every convention that papers use, by arithmetic on shapes.

A candidate of a search is counted with a few multiplications (`Counter.macs`), never with a forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import keras
import numpy as np

from pruning.graph import Call
from pruning.groups import Analysis, analyse
from pruning.plan import Plan
from runs.errors import UsageError
from runs.suggest import nearest


@dataclass(frozen=True)
class Convention:
    """Operations per multiply-accumulate and per element of the cheap layers; parameters per BN channel."""

    mac: int = 1
    bias: int = 0  # per output element of a layer with a bias
    norm: int = 0  # per output element of a batch normalisation
    relu: int = 0  # per output element
    pool: str = ""  # "window": elements read per output; "input": elements of the input
    norm_params: int = 2


CONVENTIONS = {
    "mac": Convention(),  # convolutions and dense layers only: PFEC, SFP, FPGM, HRank
    "ekg": Convention(norm=2, norm_params=4),  # moving statistics count as parameters
    "rethinking": Convention(mac=2, bias=1, norm=2, relu=1, pool="window"),
    "ptflops": Convention(norm=2, relu=1, pool="input"),
}


@dataclass(frozen=True)
class LayerCost:
    """Parameters and operations of one layer (of all its uses together)."""

    name: str
    kind: str
    params: int
    macs: int


@dataclass(frozen=True)
class Complexity:
    """Cost of a model for one image: totals and one row per layer that costs anything."""

    params: int
    macs: int
    layers: tuple[LayerCost, ...]
    convention: str


def complexity(model: keras.Model, convention: str = "mac", plan: Plan | None = None) -> Complexity:
    """Counts a functional model for one image, or what it would be after a plan.

    Args:
        model: functional model, channels last, fixed input size.
        convention: "mac", "ekg", "rethinking" or "ptflops"; `macs` then holds that convention's operations.
        plan: None counts the model as it is.

    Raises `UsageError` for an unknown convention, an open size, a plan of another network.
    """
    return Counter(model, convention).count(plan)


# (convention, call, input channels, output channels) → (parameters, operations)
def _conv(rule: Convention, call: Call, n_in: int, n_out: int) -> tuple[int, int]:
    kernel = prod(call.layer.kernel.shape[:-2]) * n_in * n_out // getattr(call.layer, "groups", 1)
    pixels, bias = prod(call.shapes[0][1:-1]), n_out * bool(call.layer.use_bias)
    return kernel + bias, pixels * (rule.mac * kernel + rule.bias * bias)


def _dense(rule: Convention, call: Call, n_in: int, n_out: int) -> tuple[int, int]:
    bias = n_out * (call.layer.bias is not None)
    return n_in * n_out + bias, rule.mac * n_in * n_out + rule.bias * bias


def _norm(rule: Convention, call: Call, n_in: int, n_out: int) -> tuple[int, int]:
    return rule.norm_params * n_out, rule.norm * prod(call.shapes[0][1:-1]) * n_out


def _relu(rule: Convention, call: Call, n_in: int, n_out: int) -> tuple[int, int]:
    return 0, rule.relu * prod(call.shapes[0][1:-1]) * n_out


def _pool(rule: Convention, call: Call, n_in: int, n_out: int) -> tuple[int, int]:
    read, made = prod(call.input_shapes[0][1:-1]), prod(call.shapes[0][1:-1])
    window = prod(getattr(call.layer, "pool_size", (read // made,)))
    return 0, {"": 0, "window": made * window * n_out, "input": read * n_in}[rule.pool]


_COSTS: dict[str, Callable[[Convention, Call, int, int], tuple[int, int]]] = {
    "Conv2D": _conv,
    "MaskedConv2D": _conv,
    "Dense": _dense,
    "MaskedDense": _dense,
    "BatchNormalization": _norm,
    "FusedBatchNorm": _norm,
    "ReLU": _relu,
} | dict.fromkeys(("AveragePooling2D", "MaxPooling2D", "GlobalAveragePooling2D", "GlobalMaxPooling2D"), _pool)


class Counter:
    """The cost of a model as a function of its masks."""

    def __init__(self, model: keras.Model, convention: str = "mac", analysis: Analysis | None = None) -> None:
        if convention not in CONVENTIONS:
            valid = nearest(convention, CONVENTIONS)
            raise UsageError(f"Unknown convention. Received: convention={convention!r}. {valid}")
        self.name, self._rule = convention, CONVENTIONS[convention]
        analysis = analysis or analyse(model)
        self._groups = analysis.groups
        self._calls = [call for call in analysis.calls if call.kind in _COSTS]
        if open_ := next(
            (c for c in self._calls for s in (*c.input_shapes, *c.shapes) if None in s[1:]), None
        ):
            raise UsageError(
                f"Counting needs fixed sizes. Received: {open_.layer.name!r} of shape {open_.shapes[0]}"
            )
        self._sizes = {t: s[-1] for c in analysis.calls for t, s in zip(c.outputs, c.shapes, strict=True)}
        # Many tensors hold the same channels: count each distinct set of positions once.
        self._signature = {
            tensor: tuple((name, index.tobytes()) for name, index in rows)
            for tensor, rows in analysis.parts.items()
        }
        self._index = {
            key: index
            for tensor, rows in analysis.parts.items()
            for key, (_, index) in zip(self._signature[tensor], rows, strict=True)
        }

    def macs(self, masks: Mapping[str, np.ndarray]) -> int:
        """Operations under one boolean mask (channels,) per group."""
        return sum(macs for _, _, macs in self._rows(masks))

    def count(self, plan: Plan | None = None) -> Complexity:
        """Totals and rows for a plan; None keeps everything."""
        plan = plan or Plan.full(self._groups)
        plan.check(self._groups)
        masks = plan.masks()
        params: dict[str, int] = {}
        macs: dict[str, int] = {}
        kinds: dict[str, str] = {}
        for call, p, m in self._rows(masks):
            name = call.layer.name
            kinds[name] = call.kind
            params[name] = p  # a shared layer has its parameters once …
            macs[name] = macs.get(name, 0) + m  # … and its operations at each use
        rows = tuple(LayerCost(n, kinds[n], params[n], macs[n]) for n in kinds if params[n] or macs[n])
        return Complexity(sum(params.values()), sum(macs.values()), rows, self.name)

    def _rows(self, masks: Mapping[str, np.ndarray]):
        dead = {name: np.append(~np.asarray(mask, bool), False) for name, mask in masks.items()}
        lost = {key: int(dead[key[0]][index].sum()) for key, index in self._index.items()}

        def kept(tensor: int) -> int:
            return self._sizes[tensor] - sum(lost[key] for key in self._signature[tensor])

        for call in self._calls:
            yield call, *_COSTS[call.kind](self._rule, call, kept(call.inputs[0]), kept(call.outputs[0]))
