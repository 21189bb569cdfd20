"""The accuracy of many plans of one network: nothing is rebuilt or compiled a second time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from secateur.nets.kernels import named_variables
from secateur.nets.losses import Loss
from secateur.nets.task import Metric
from secateur.pruning.choose.sensitivity import metric_of
from secateur.pruning.groups.analysis import Analysis, analyse
from secateur.pruning.plan import Plan
from secateur.pruning.score.gated import Gated
from secateur.pruning.shrink.surgery import mask
from secateur.pruning.shrink.weights import apply, weights_of, zero
from secateur.runs.errors import UsageError

Prepare = Callable[[keras.Model], Callable[[], None]]


class PlanScorer:
    """Plan → accuracy of the network that it leaves, as `compact` would make it.

    Args:
        model: functional model; it is not changed.
        data: (images, labels), better not those that the network was trained on.
        prepare: is given a copy of the model, once, and returns what runs after each plan's dead channels
            have become zero in it: the statistics of BN anew, or a few steps of training. Each plan starts
            from the weights of the model. None evaluates the weights as they are.
        loss, metric: see `metric_of`; None is the accuracy of a classifier.
        analysis: of the model, if it is there already.
        batch_size: images that are run at a time.

    Raises `UsageError` for data without labels, and for labels that do not fit the outputs.
    """

    def __init__(
        self, model: keras.Model, data: Any, *, prepare: Prepare | None = None, loss: Loss | None = None,
        metric: Metric | None = None, analysis: Analysis | None = None, batch_size: int = 256,
    ) -> None:  # fmt: skip
        if not isinstance(data, tuple) or len(data) != 2 or data[1] is None:
            raise UsageError("Scoring plans needs data=(images, labels). Received: no labels")
        self._analysis = analysis or analyse(model)
        self._images, self._labels = data
        self._metric = metric_of(model, self._analysis, self._labels, loss, metric)
        self._prepared = _Prepared(model, self._analysis, prepare) if prepare else None
        self._gated = Gated(self._prepared.analysis if prepare else self._analysis, batch_size)

    def __call__(self, plan: Plan) -> float:
        """Accuracy in [0, 1], or what the metric says. Raises `UsageError` for a plan of another network."""
        masks = plan.check(self._analysis.groups).masks()
        if self._prepared:
            masks = self._prepared.under(masks)
        outputs = self._gated(self._images, masks)
        return float(self._metric(self._labels, outputs))


class _Prepared:
    """A copy of the network that takes one plan after the other."""

    def __init__(self, model: keras.Model, analysis: Analysis, prepare: Prepare) -> None:
        copy = mask(model, Plan.full(analysis.groups))
        self.analysis, self._groups = analyse(copy, bool(analysis.reduced)), analysis.groups
        self._dense = weights_of(model)
        # Layers of nested models have other names in a copy; the order of the graph stays.
        paths = zip(analysis.graph.layers, self.analysis.graph.layers.values(), strict=True)
        self._layers = {path: layer for path, layer in paths if path in self._dense}
        self._prepare = prepare(copy)

    def under(self, masks: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Puts the masked weights in place, prepares the copy, and returns the masks by its groups."""
        for path, arrays in apply(self._dense, self._groups, masks, zero).items():
            for name, variable in named_variables(self._layers[path]).items():
                variable.assign(arrays[name])
        self._prepare()
        pairs = zip(self._groups, self.analysis.groups, strict=True)
        return {theirs.name: masks[ours.name] for ours, theirs in pairs}
