"""EKG's search for a sub-network (Lee & Song 2022): remove the slice of channels that costs least.

Every step scores all channels once, marks the groups whose next slice matters least, tries each of them alone
and commits the best, until a target is met. The logits of all interim networks are averaged into the teacher
that scores the next step.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from secateur.pruning.count.counting import Counter
from secateur.pruning.groups.analysis import analyse
from secateur.pruning.groups.group import ChannelGroup
from secateur.pruning.plan import FAST_WIDTH, Plan
from secateur.pruning.search.chain import Chain, reward_loss
from secateur.pruning.search.ekg_rules import kept_width, slice_ratio, trimmed_otsu
from secateur.pruning.search.settings import SearchSettings
from secateur.pruning.shrink.surgery import channel_paddings
from secateur.pruning.shrink.weights import Weights, apply, cut, weights_of, zero
from secateur.runs.errors import TrainingError, UsageError

Masks = dict[str, np.ndarray]
WORKERS = min(3, os.cpu_count() or 1)  # candidates side by side: narrow convolutions leave cores idle


@dataclass(frozen=True)
class Interim:
    """One committed network.

    Attributes:
        plan: what it keeps; group, width: the slice that led to it ("" and 0 for the dense network).
        macs: its operations, by the convention of the search.
        loss: cross-entropy on the search images, mean in nats; accuracy: on them, in [0, 1].
        score: mean reward loss that it won with; the dense network has its `loss` here.
        candidates: networks that were tried in its step.
    """

    plan: Plan
    group: str
    width: int
    macs: int
    loss: float
    score: float
    accuracy: float
    candidates: int

    def to_json(self) -> dict[str, Any]:
        """Plain types."""
        return {**vars(self), "plan": self.plan.to_json()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Interim:
        """Inverse of `to_json`."""
        return cls(**{**data, "plan": Plan.from_json(data["plan"])})


def history_of(facts: Mapping[str, Any]) -> tuple[Interim, ...]:
    """Interim networks, the dense one first, from the facts of a search that was saved."""
    return tuple(map(Interim.from_json, facts["history"]))


@dataclass(frozen=True)
class SearchState:
    """Everything that the next step depends on. `teacher` (n, classes) is the mean of the logits so far."""

    rates: Mapping[str, float]
    teacher: np.ndarray
    history: tuple[Interim, ...]

    @property
    def plan(self) -> Plan:
        """The plan of the latest network."""
        return self.history[-1].plan


class Searcher:
    """The search over one network.

    Args:
        model: functional model of logits, with the weights to search from.
        images: normalised, float32 (n, h, w, c); labels: integers (n,).
        settings: see `SearchSettings`.
    """

    def __init__(
        self, model: keras.Model, images: np.ndarray, labels: np.ndarray, settings: SearchSettings
    ) -> None:
        self.settings = settings
        self._analysis = analysis = analyse(model)
        self.groups = {group.name: group for group in analysis.groups}
        self.chain = Chain(model, analysis, settings.dtype)
        self.counter = Counter(model, settings.convention, analysis)
        self._model, self._dense = model, weights_of(model)
        starts = range(0, len(images), settings.batch_size)
        parts = [slice(start, start + settings.batch_size) for start in starts]
        self._images = [tf.constant(images[part], self.chain.dtype) for part in parts]
        self._labels = [tf.constant(labels[part], tf.int32) for part in parts]
        self._rows = parts
        self._all_labels = tf.constant(labels, tf.int32)
        self.full = Plan.full(analysis.groups)
        self.dense_macs = self.counter.macs(self.full.masks())
        self.target_macs = int(settings.target * self.dense_macs)
        _check_reachable(self.groups, self.counter, settings)
        self._check_scorable()

    def start(self) -> SearchState:
        """The unpruned network: all rates 1, its own logits as teacher."""
        logits = self._logits(self.chain.tensors(self._narrow(self.full.masks())), self._images)
        loss, accuracy = self._loss(logits), self._accuracy(logits)
        first = Interim(self.full, "", 0, self.dense_macs, loss, loss, accuracy, 0)
        return SearchState({name: 1.0 for name in self.groups}, logits, (first,))

    def run(self, state: SearchState | None = None) -> Iterator[SearchState]:
        """Yields the state after every committed step, until the target is met."""
        state = state or self.start()
        while state.history[-1].macs > self.target_macs:
            state = self.step(state)
            yield state

    def step(self, state: SearchState) -> SearchState:
        """One step: score pass, marking, all candidates, commit."""
        masks = state.plan.masks()
        weights = self.chain.tensors(self._narrow(masks))
        order, values, inputs = self._score(state, masks, weights)
        candidates = self._candidates(state, masks, order, values)
        with ThreadPoolExecutor(WORKERS) as pool:
            found = list(pool.map(lambda c: self._evaluate(state, *c, masks, weights, inputs), candidates))
        best, logits, rate = min(found, key=lambda item: item[0].score)
        if not np.isfinite([interim.score for interim, *_ in found]).all():
            raise TrainingError("A candidate's logits are not finite: the network or its images are broken")
        count = len(state.history)
        teacher = (state.teacher * np.float32(count) + logits) / np.float32(count + 1)
        best = replace(best, candidates=len(found))
        return SearchState({**state.rates, best.group: rate}, teacher, (*state.history, best))

    def logits_of(self, plan: Plan, images: np.ndarray, inputs: Callable, batch_size: int) -> np.ndarray:
        """Logits (n, classes) of an interim network for any images, in batches as the search sees them.

        Args:
            plan: what the network keeps.
            images: uint8 (n, h, w, c); inputs: images → normalised tensor.
            batch_size: images whose BN statistics are taken together. The last batch is filled with the
                images before it.
        """
        weights = self.chain.tensors(self._narrow(plan.masks()))
        size, rows = min(batch_size, len(images)), []
        for start in range(0, len(images), size):
            first = min(start, len(images) - size)
            x = tf.cast(inputs(images[first : first + size]), self.chain.dtype)
            rows.append(self.chain.forward(weights, x).numpy()[start - first :])
        return np.concatenate(rows)

    # -- scores and candidates -------------------------------------------------------------------------------

    def _score(self, state: SearchState, masks: Masks, weights):
        """Channels of each group, best first; the values of the next slices; the inputs of all segments."""
        total: dict[str, np.ndarray] = {name: np.zeros(group.size) for name, group in self.groups.items()}
        physical = self._physical(masks)

        def score(x: tf.Tensor, labels: tf.Tensor, rows: slice):
            return self.chain.score(weights, x, labels, tf.constant(state.teacher[rows]))

        with ThreadPoolExecutor(WORKERS) as pool:
            passes = list(pool.map(score, self._images, self._labels, self._rows))
        for shown, _ in passes:
            for name, group in self.groups.items():
                total[name] += self._on_channels(group, shown, physical)
        inputs = [cached for _, cached in passes]
        # Removed channels rank behind all that are left, also behind those whose score happens to be zero.
        order = {n: np.argsort(-np.where(masks[n], s, -1.0), kind="stable") for n, s in total.items()}
        values = {n: self._slice_value(np.sort(s), state.rates[n], self.groups[n]) for n, s in total.items()}
        return order, values, inputs

    def _on_channels(
        self, group: ChannelGroup, shown: Mapping[int, np.ndarray], physical: Masks
    ) -> np.ndarray:
        """Sums the scores at all activations that show the group, each position on its channel."""
        found = np.zeros(group.size, np.float32)
        for tensor in group.sites:
            channels = self._analysis.positions(tensor, group.name, physical)
            np.add.at(found, channels[channels >= 0], shown[tensor][channels >= 0])
        return found

    def _slice_value(self, ascending: np.ndarray, rate: float, group: ChannelGroup) -> float:
        n, step = group.size, self._slice_ratio(group)
        return float(ascending[round((1 - rate) * n) : round((1 - rate + step) * n)].sum())

    def _slice_ratio(self, group: ChannelGroup) -> float:
        producers = len(group.layers("producer"))
        return slice_ratio(group.size, producers, self.settings.step, self.settings.round_to)

    def _candidates(self, state: SearchState, masks: Masks, order, values) -> list[tuple[str, np.ndarray]]:
        threshold = trimmed_otsu(np.array(list(values.values())))
        movable = [name for name in self.groups if self._next_width(state, name) < masks[name].sum()]
        marked = [name for name in movable if values[name] <= threshold]
        cheapest = sorted((name for name in movable if name not in marked), key=values.get)
        for chosen in (marked, cheapest[:1], cheapest[1:]):
            tried = [(name, self._candidate_mask(state, name, masks, order[name])) for name in chosen]
            # Where two layers feed disjoint channels of a group, its smallest width can exceed the next one.
            if found := [(name, mask) for name, mask in tried if mask.sum() < masks[name].sum()]:
                return found
        raise UsageError(
            "No group can lose another channel, and the target is not met. "
            f"Received: target_rate={self.settings.target:g}"
        )

    def _next_rate(self, state: SearchState, name: str) -> float:
        step = self._slice_ratio(self.groups[name])
        # EKG rounds this to 5 decimals: the same for its nets, but 1 − 1/64 would keep ⌈64 · 0.98438⌉ = 64.
        return max(state.rates[name] - step, 0.0)

    def _next_width(self, state: SearchState, name: str) -> int:
        return kept_width(self.groups[name].size, self._next_rate(state, name), self.settings.round_to)

    def _candidate_mask(self, state: SearchState, name: str, masks: Masks, order: np.ndarray) -> np.ndarray:
        """The next slice removed; a slice that falls below the target gives back what it may."""

        def mask_of(width: int) -> np.ndarray:
            mask = np.zeros(len(order), bool)
            mask[self.groups[name].best(order, width)] = True
            return mask

        def fits(width: int) -> bool:
            return self.counter.macs({**masks, name: mask_of(width)}) <= self.target_macs

        width, most = self._next_width(state, name), int(masks[name].sum())
        if fits(width):
            while width + self.settings.round_to < most and fits(width + self.settings.round_to):
                width += self.settings.round_to
        return mask_of(width)

    # -- evaluation ------------------------------------------------------------------------------------------

    def _evaluate(self, state, name, mask, masks, weights, inputs):
        group = self.groups[name]
        changed = self._changed(group, mask, masks)
        start = self.chain.first_segment(changed)
        logits = self._logits({**weights, **self.chain.tensors(changed)}, [c[start] for c in inputs], start)
        score = float(np.mean(self._reward(state.teacher, logits)))
        width = int(mask.sum())
        exact = width == self._next_width(state, name)
        rate = self._next_rate(state, name) if exact else width / group.size
        plan = state.plan.replace(name, np.flatnonzero(mask))
        macs = self.counter.macs(plan.masks())
        found = Interim(plan, name, width, macs, self._loss(logits), score, self._accuracy(logits), 0)
        return found, logits, rate

    def _narrow(self, masks: Masks) -> dict:
        """Weights of a sub-network, physically as narrow as `_physical` says, dead channels zero."""
        physical = self._physical(masks)
        weights = self._cut(self._dense, masks, physical)
        for name, pad in channel_paddings(self._analysis, physical).items():
            weights[name] = {"pad": np.array(pad, np.int32)}
        return weights

    def _changed(self, group: ChannelGroup, mask: np.ndarray, masks: Masks) -> dict:
        """The weights that a candidate changes: zeroed in the shapes of the committed network."""
        some = {m.layer: self._dense[m.layer] for m in group.members if m.axes}
        return self._cut(some, {**masks, group.name: mask}, self._physical(masks))

    def _cut(self, weights: Weights, alive: Masks, physical: Masks) -> dict:
        groups = self.groups.values()
        zeroed = apply(weights, groups, alive, zero, preserve_norm=True)
        return apply(zeroed, groups, physical, cut)

    @staticmethod
    def _physical(masks: Masks) -> Masks:
        return Plan.from_masks(masks).padded(FAST_WIDTH).masks()

    def _logits(self, weights, inputs, start: int = 0) -> np.ndarray:
        return np.concatenate([self.chain.forward(weights, x, start).numpy() for x in inputs])

    def _reward(self, teacher: np.ndarray, logits: np.ndarray) -> np.ndarray:
        return reward_loss(self._all_labels, tf.constant(teacher), tf.constant(logits)).numpy()

    def _loss(self, logits: np.ndarray) -> float:
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(self._all_labels, logits)
        return float(tf.reduce_mean(losses))

    def _accuracy(self, logits: np.ndarray) -> float:
        return float(np.mean(logits.argmax(1) == self._all_labels.numpy()))

    def _check_scorable(self) -> None:
        if blind := next((name for name, group in self.groups.items() if not group.sites), None):
            raise UsageError(
                f"The search scores channels behind an activation. Received: group {blind!r} without one. "
                "Use make_plan with another criterion"
            )


def check_reachable(model: keras.Model, settings: SearchSettings) -> None:
    """Raises `UsageError`, which says the smallest rate, when no sub-network is as small as the target.

    Arithmetic on shapes alone: the weights do not matter.
    """
    analysis = analyse(model)
    counter = Counter(model, settings.convention, analysis)
    _check_reachable({group.name: group for group in analysis.groups}, counter, settings)


def _check_reachable(groups: Mapping[str, ChannelGroup], counter: Counter, settings: SearchSettings) -> None:
    keep = {n: g.best(np.arange(g.size), settings.round_to) for n, g in groups.items()}
    smallest = {n: np.isin(np.arange(g.size), keep[n]) for n, g in groups.items()}
    least, dense = counter.macs(smallest), counter.macs(Plan.full(groups.values()).masks())
    if least > int(settings.target * dense):
        raise UsageError(
            f"The target is out of reach: the smallest sub-network keeps {least / dense:.4f} "
            f"of the operations. Received: target_rate={settings.target:g}"
        )
