"""From a criterion to one score for each channel of each group."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypedDict

import keras
import numpy as np

from secateur.nets.losses import Loss
from secateur.nets.task import Task
from secateur.pruning.groups.analysis import Analysis, analyse
from secateur.pruning.score.evidence import Evidence
from secateur.pruning.score.places import Place
from secateur.pruning.score.registry import NORMALISERS, Criterion, get_criterion
from secateur.runs.errors import UsageError
from secateur.runs.suggest import require

REDUCTIONS = ("mean", "sum", "max", "first")
Scores = dict[str, np.ndarray]
Scored = tuple[Place, np.ndarray, np.ndarray]  # where, the scores of its positions, the channel of each or −1


class Scoring(TypedDict, total=False):
    """Options of `score_groups` that `make_plan` hands on."""

    loss: Loss | None
    reduce: str
    normalise: str | None
    batch_size: int | None
    seed: int


def score_groups(
    model: keras.Model,
    criterion: str = "l1",
    *,
    analysis: Analysis | None = None,
    data: Any = None,
    loss: Loss | None = None,
    batch_size: int | None = None,
    reduce: str = "mean",
    normalise: str | None = None,
    seed: int = 1,
) -> Scores:
    """Group name → scores (channels,), larger = keep.

    Args:
        model: functional model.
        criterion: name of a registered criterion.
        analysis: of the model, if it is there already.
        data: (images, labels) for criteria that look at gradients; images are enough for activations.
        loss: see `Task.of`; None is the loss that the model was compiled with, or else the cross-entropy.
        batch_size: images of a batch, which criteria see as one: `taylor` and `gate_taylor` add up what
            batches say, means over images do not depend on it. None is 128, or for criteria that look at
            activations as many as fit into 1 GiB with all tensors of the graph, if that is less.
        reduce: how the members of a group, such as the convolutions that are added up in a residual stream,
            share a score: "mean", "sum", "max", or that of the "first" one that has the channel.
        normalise: divide the scores of a group by the "mean", "max" or "sum" of their absolute values, or
            "none"; None is the criterion's own choice.
        seed: of the random criterion, and of the vectors behind estimates of `hessian` and `jacobian`.

    A group in which the criterion sees nothing (BN's scale, where there is no BN) is left out. Raises
    `UsageError` for unknown names, missing data, labels that do not fit the loss, or scores that are
    not finite.
    """
    how = normalise or get_criterion(criterion).normalise
    require(reduce, REDUCTIONS, "reduce")
    require(how, NORMALISERS, "normalise")
    analysis = analysis or analyse(model)
    options = {"data": data, "loss": loss, "batch_size": batch_size, "seed": seed}
    found = scores_by_place(model, criterion, analysis=analysis, **options)
    sizes = {group.name: group.size for group in analysis.groups}
    return {
        name: normalised(reduced([row[1:] for row in rows], sizes[name], reduce), how)
        for name, rows in found.items()
    }


def scores_by_place(
    model: keras.Model,
    criterion: str = "l1",
    *,
    analysis: Analysis | None = None,
    data: Any = None,
    loss: Loss | None = None,
    batch_size: int | None = None,
    seed: int = 1,
) -> dict[str, list[Scored]]:
    """Group name → (place, scores (n,), channels (n,)) of each place where the criterion sees the group.

    What `score_groups` reduces to one score for each channel; arguments and errors are its. A position whose
    channel is −1 belongs to another group.
    """
    wanted, analysis = get_criterion(criterion), analysis or analyse(model)
    task = Task.of(model, loss, graph=analysis.graph) if wanted.needs_labels else None
    evidence = Evidence(analysis, data, task, batch_size)
    seen = {group.name: evidence.places(group, wanted) for group in analysis.groups}
    places = list(dict.fromkeys(place for rows in seen.values() for place, _ in rows))
    by_place = _scored(wanted, evidence, places, np.random.default_rng(seed))
    found = {
        name: [(place, by_place[place], index) for place, index in rows]
        for name, rows in seen.items()
        if rows
    }
    for name, rows in found.items():
        if not all(np.isfinite(scores[index >= 0]).all() for _, scores, index in rows):
            raise UsageError(
                f"Criterion {criterion!r} gives scores that are not finite. Received: group {name!r}"
            )
    if not found and analysis.groups:
        raise UsageError(f"No group has what this criterion looks at. Received: criterion={criterion!r}")
    return found


def reduced(rows: Iterable[tuple[np.ndarray, np.ndarray]], size: int, how: str = "mean") -> np.ndarray:
    """Scores of positions with their channels, member by member → scores (size,) of the channels.

    What a member says of one channel at several positions is added up. A channel that no member has: 0.
    """
    sums, seen = [], []
    for scores, index in rows:
        ours = index >= 0
        sums.append(np.bincount(index[ours], scores[ours], size))
        seen.append(np.bincount(index[ours], minlength=size) > 0)
    values, has = np.array(sums), np.array(seen)
    if how == "first":
        return values[has.argmax(0), np.arange(size)]
    if how == "max":
        return np.where(has.any(0), np.where(has, values, -np.inf).max(0), 0.0)
    total = values.sum(0)
    return total if how == "sum" else total / np.maximum(has.sum(0), 1)


def normalised(scores: np.ndarray, how: str) -> np.ndarray:
    """Divided by the mean, maximum or sum of absolute values; as they are where that is 0."""
    if how == "none":
        return scores
    scale = float(getattr(np.abs(scores), how)())
    return scores / scale if scale > 0 else scores


def _scored(
    criterion: Criterion, evidence: Evidence, places: list[Place], rng: np.random.Generator
) -> dict[Place, np.ndarray]:
    inputs = {place: _still(criterion, evidence, place, rng) for place in places}
    if not criterion.needs_data:
        return {place: _score(criterion, inputs[place]) for place in places}
    parts = (
        (n, {place: _score(criterion, inputs[place] | seen) for place, seen in arrays.items()})
        for n, arrays in evidence.batches(places, criterion, rng)
    )
    return _together(parts, mean=criterion.batches == "mean")


def _score(criterion: Criterion, arrays: dict[str, Any]) -> np.ndarray:
    """What the criterion says of some channels, one score for each."""
    name = next(name for name in arrays if name != "rng")
    channels = arrays[name].shape[-1 if criterion.source == "activations" else 0]
    scores = criterion.score(**{name: arrays[name] for name in criterion.inputs})
    if np.shape(scores) != (channels,):
        raise UsageError(
            f"Criterion {criterion.name!r} must give one score for each channel, shape ({channels},). "
            f"Received: shape {np.shape(scores)}"
        )
    return scores


def _still(criterion: Criterion, evidence: Evidence, place: Place, rng: np.random.Generator) -> dict:
    """What does not change from batch to batch."""
    if criterion.source == "scales":
        found = {"gamma": evidence.weights(place)[:, 0]}
    else:
        found = {"filters": evidence.weights(place)} if "filters" in criterion.inputs else {}
    return found | ({"rng": rng} if "rng" in criterion.inputs else {})


def _together(parts: Iterable[tuple[int, dict[Place, np.ndarray]]], mean: bool) -> dict[Place, np.ndarray]:
    """The sum of what batches say, or their mean weighted by the number of images."""
    total: dict[Place, np.ndarray] = {}
    count = 0
    for n, scores in parts:
        count += n
        for place, score in scores.items():
            total[place] = total.get(place, 0) + (n * score if mean else score)
    return {place: score / count for place, score in total.items()} if mean else total
