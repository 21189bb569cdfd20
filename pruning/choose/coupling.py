"""What several layers that make the same channels, as those of a residual stream do, agree to remove.

NNI knows two ways. "union": each layer ranks its filters alone, and a channel goes if all of them drop it.
"sum" (dependency-aware): their scores are added up, and as many channels go as the most careful one allows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import numpy as np

from secateur.nets.losses import Loss
from secateur.pruning.choose.ranking import Limits, names
from secateur.pruning.groups.analysis import analyse
from secateur.pruning.groups.group import ChannelGroup
from secateur.pruning.plan import Plan
from secateur.pruning.rounding import removed
from secateur.pruning.score.scores import Scored, reduced, scores_by_place
from secateur.runs.errors import UsageError
from secateur.runs.registry import Registry
from secateur.runs.suggest import nearest

Vote = tuple[np.ndarray, np.ndarray, float]  # scores (n,), channel of each or −1, ratio that stays


def coupled_plan(
    model: keras.Model,
    criterion: str = "l1",
    *,
    keep: float | Mapping[str, float],
    coupling: str = "union",
    rounding: str = "floor",
    ignore: str | Iterable[str] = (),
    data: Any = None,
    loss: Loss | None = None,
    batch_size: int | None = None,
    seed: int = 1,
) -> Plan:
    """Keeps a ratio of each layer's channels, as the layers of a group agree on it.

    Args:
        model: functional model.
        criterion: name of a registered criterion; for one of activations `keep` is a number.
        keep: ratio in (0, 1] that stays, of every layer, or by the name of a layer; layers that are not named
            keep all.
        coupling: "union" or "sum", see above: what a group keeps of the ratio 0.5 is then between half
            and all of its channels, or half of them.
        rounding: how a ratio becomes a number of channels, one of `ROUNDING`.
        ignore: layers, by name or pattern, whose channels all stay.
        data, loss, batch_size, seed: of `score_groups`.

    A channel that no layer ranks stays. Raises `UsageError` for unknown names and ratios out of range.
    """
    coupled = COUPLINGS.find(coupling)
    analysis = analyse(model)
    options = {"data": data, "loss": loss, "batch_size": batch_size, "seed": seed}
    found = scores_by_place(model, criterion, analysis=analysis, **options)
    _check_keep(keep, found)
    whole = Limits(ignore=names(ignore)).ignored(analysis)
    masks = {}
    for group in analysis.groups:
        votes = [] if group.name in whole else _votes(found.get(group.name, ()), keep)
        mask = coupled(votes, group.size, rounding) if votes else np.ones(group.size, bool)
        masks[group.name] = _complete(group, mask, votes)
    return Plan.from_masks(masks)


def union(votes: Iterable[Vote], size: int, rounding: str = "floor") -> np.ndarray:
    """Mask (size,) of the channels that at least one of the layers keeps, each by its own ranking and ratio.

    A vote holds the scores (n,) of a layer's filters, the channel that each one makes (−1: of another group)
    and the ratio that stays.
    """
    kept, ranked = np.zeros(size, bool), np.zeros(size, bool)
    for scores, index, keep in votes:
        own = np.unique(index[index >= 0])
        order = own[np.argsort(-reduced([(scores, index)], size)[own], kind="stable")]
        kept[order[: len(own) - removed(len(own), 1 - keep, rounding)]] = True
        ranked[own] = True
    return kept | ~ranked


def summed(votes: Iterable[Vote], size: int, rounding: str = "floor") -> np.ndarray:
    """Mask (size,) of the channels whose scores have the largest sums, at the largest ratio of the layers."""
    votes = list(votes)
    ranked = np.zeros(size, bool)
    for _, index, _ in votes:
        ranked[index[index >= 0]] = True
    scores = reduced([vote[:2] for vote in votes], size, "sum")
    order = np.argsort(np.where(ranked, -scores, -np.inf), kind="stable")
    kept = np.zeros(size, bool)
    kept[order[: size - removed(size, 1 - max(keep for *_, keep in votes), rounding)]] = True
    return kept


COUPLINGS: Registry[Callable[[Iterable[Vote], int, str], np.ndarray]] = Registry(
    "coupling", "couplings", {"union": union, "sum": summed}
)


def _votes(found: Iterable[Scored], keep: float | Mapping[str, float]) -> list[Vote]:
    def ratio(layer: str) -> float:
        return keep.get(layer, 1.0) if isinstance(keep, Mapping) else keep

    return [(scores, index, ratio(place.layer)) for place, scores, index in found]


def _complete(group: ChannelGroup, mask: np.ndarray, votes: list[Vote]) -> np.ndarray:
    """The mask with the best channel of each layer that it would leave without any."""
    scores = reduced([vote[:2] for vote in votes], group.size, "sum") if votes else np.zeros(group.size)
    ranked, least = group.ranked(np.lexsort((-scores, ~mask)))  # kept ones first
    mask = mask.copy()
    mask[ranked[:least]] = True
    return mask


def _check_keep(keep: float | Mapping[str, float], found: Mapping[str, list[Scored]]) -> None:
    ratios = keep if isinstance(keep, Mapping) else {"": keep}
    wrong = next((name for name, ratio in ratios.items() if not 0 < ratio <= 1), None)
    if wrong is not None:
        of = f" for {wrong!r}" if wrong else ""
        raise UsageError(f"keep must lie in (0, 1]. Received: keep={ratios[wrong]}{of}")
    if isinstance(keep, Mapping):
        layers = list(dict.fromkeys(place.layer for rows in found.values() for place, *_ in rows))
        if strange := next((name for name in keep if name not in layers), None):
            raise UsageError(f"No such layer. Received: keep={strange!r}. {nearest(strange, layers, 8)}")
