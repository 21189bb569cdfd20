"""Sensitivity curves: how the accuracy falls as one group after the other becomes narrower."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from secateur.nets.losses import Loss
from secateur.nets.task import Metric, Task
from secateur.pruning.choose.ranking import Limits, Ranking, Widths
from secateur.pruning.choose.rules import Rule
from secateur.pruning.groups.analysis import Analysis, analyse
from secateur.pruning.score.gated import Gated
from secateur.pruning.score.scores import score_groups
from secateur.runs.errors import UsageError

RATIOS = (0.1, 0.25, 0.5, 0.75, 0.9)
FREE = 1e-3  # accuracy that counts as nothing: of groups that lose as little, all become narrower alike


@dataclass(frozen=True)
class Sensitivity:
    """Accuracy of the network with one group narrower and all others whole.

    Attributes:
        ratios: share of the group's channels that stay, ascending, below 1.
        whole: accuracy of the whole network, in [0, 1].
        curves: group → accuracy at each of the ratios.
        images: how many it was measured on.
    """

    ratios: tuple[float, ...]
    whole: float
    curves: Mapping[str, tuple[float, ...]]
    images: int

    def drops(self, group: str) -> tuple[np.ndarray, np.ndarray]:
        """Points of the fall of the accuracy over the kept share, from 1 to 0, never rising as that grows.

        With nothing left, all of the accuracy is gone.
        """
        falls = [0.0, *(self.whole - a for a in reversed(self.curves[group])), self.whole]
        shares = np.array([1.0, *reversed(self.ratios), 0.0])
        return np.maximum.accumulate(np.maximum(falls, 0)) + FREE * (1 - shares), shares

    def to_json(self) -> dict:
        """Plain types; `from_json` gives an equal object."""
        curves = {name: list(values) for name, values in self.curves.items()}
        return {"ratios": list(self.ratios), "whole": self.whole, "curves": curves, "images": self.images}

    @classmethod
    def from_json(cls, data: Mapping) -> Sensitivity:
        """Inverse of `to_json`. Raises `UsageError` on anything else."""
        try:
            curves = {str(name): tuple(map(float, row)) for name, row in data["curves"].items()}
            ratios = tuple(map(float, data["ratios"]))
            found = cls(ratios, float(data["whole"]), curves, int(data["images"]))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(
                'Sensitivity is {"ratios": […], "whole": a, "curves": {group: […]}, "images": n}. '
                f"Received: {error!r}"
            ) from error
        if wrong := next((name for name, row in curves.items() if len(row) != len(ratios)), None):
            raise UsageError(
                f"A curve needs {len(ratios)} values. Received: {len(curves[wrong])} for {wrong!r}"
            )
        return found


def measure_sensitivity(
    model: keras.Model,
    scores: str | Mapping[str, np.ndarray] = "l1",
    *,
    data: Any,
    ratios: Sequence[float] = RATIOS,
    loss: Loss | None = None,
    metric: Metric | None = None,
    analysis: Analysis | None = None,
    batch_size: int = 256,
) -> Sensitivity:
    """Runs images through the network with one group at a time narrowed to each ratio.

    Args:
        model: functional model.
        scores: name of a criterion that needs no data, or scores by group; the best channels stay.
        data: (images, labels), better not those that the network was trained on.
        ratios: shares of channels that stay, in (0, 1).
        loss, metric: see `metric_of`.
        analysis: of the model, if it is there already.
        batch_size: images that are run at a time.

    Nothing is retraced or rebuilt: the masks are an input of one compiled function. Raises `UsageError` for
    data without labels, labels that do not fit the outputs and ratios out of range.
    """
    ratios = tuple(sorted({float(r) for r in ratios}))
    if not ratios or not 0 < ratios[0] <= ratios[-1] < 1:
        raise UsageError(f"Ratios of channels that stay must lie in (0, 1). Received: ratios={ratios}")
    if not isinstance(data, tuple) or len(data) != 2 or data[1] is None:
        raise UsageError("Sensitivity needs data=(images, labels). Received: no labels")
    analysis = analysis or analyse(model)
    scores = score_groups(model, scores, analysis=analysis) if isinstance(scores, str) else scores
    ranking = Ranking.of(analysis, scores, Limits())
    gated, (images, labels) = Gated(analysis, batch_size), data
    measured = metric_of(model, analysis, labels, loss, metric)

    def at(widths: Widths) -> float:
        outputs = gated(images, ranking.plan({**ranking.sizes, **widths}).masks())
        return float(measured(labels, outputs))

    whole = at({})
    curves = {
        name: tuple(at({name: ranking.width(name, r * ranking.sizes[name])}) for r in ratios)
        for name in ranking.free()
    }
    return Sensitivity(ratios, whole, curves, len(keras.tree.flatten(labels)[0]))


def metric_of(
    model: keras.Model,
    analysis: Analysis,
    labels: Any,
    loss: Loss | None = None,
    metric: Metric | None = None,
) -> Metric:
    """What networks are measured by: a metric, or that of the model's task.

    Args:
        model: functional model; analysis: of it.
        labels: that it will be measured on.
        loss: says the task, as in `Task.of`; None is the loss that the model was compiled with, or else that
            of a classifier, whose metric is the accuracy.
        metric: (labels, outputs) of all images → a number, larger = better.

    Raises `UsageError` for labels that do not fit the task; a metric may read any.
    """
    if metric:
        return metric
    task = Task.of(model, loss, graph=analysis.graph)
    task.check(labels, analysis.graph.output_shapes[0])
    return task.score


def by_sensitivity(ranking: Ranking, curves: Sensitivity) -> Rule:
    """Widths at which every group by itself costs the same accuracy; the dial is the accuracy that is left.

    Raises `UsageError` when the curves are of another network.
    """
    if missing := next((name for name in ranking.free() if name not in curves.curves), None):
        raise UsageError(f"Sensitivity of another network: measure this one. Received: no group {missing!r}")
    points = {name: curves.drops(name) for name in ranking.free()}
    largest = max((falls[-1] for falls, _ in points.values()), default=0.0)

    def widths(dial: float) -> Widths:
        found = dict(ranking.sizes)
        for name, (falls, shares) in points.items():
            kept = float(np.interp((1 - dial) * largest, falls, shares))
            found[name] = ranking.width(name, kept * ranking.sizes[name])
        return found

    def worth(name: str, width: int) -> float:
        falls, shares = points[name]
        return float(np.interp(width / ranking.sizes[name], shares[::-1], falls[::-1]))

    return Rule(widths, worth)
