"""EKG's search for a sub-network (Lee & Song 2022): remove the slice of channels that costs least.

Every step scores all channels once, marks the groups whose next slice matters least, tries each of them alone
and commits the best, until a target is met. The logits of all interim networks are averaged into the teacher
that scores the next step.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from secateur.nets.endings import ending_of
from secateur.op_utils import Workers
from secateur.pruning.choose.ranking import check_prunable
from secateur.pruning.count.counting import Counter
from secateur.pruning.groups.analysis import Analysis, analyse
from secateur.pruning.groups.group import ChannelGroup
from secateur.pruning.plan import FAST_WIDTH, Plan
from secateur.pruning.search.chain import Chain
from secateur.pruning.search.ekg_rules import kept_width, slice_ratio, trimmed_otsu
from secateur.pruning.search.open_shapes import sizes_of
from secateur.pruning.search.rewards import Reward
from secateur.pruning.search.settings import SearchSettings
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
        loss: on the search images, mean; of a classifier the cross-entropy in nats.
        accuracy: on them, larger = better; of a classifier in [0, 1], see `Reward.metric`.
        score: mean reward that it won with; the dense network has its `loss` here.
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
    """Everything that the next step depends on.

    Attributes:
        rates: group → ratio of channels that are left.
        teacher: the mean of the outputs so far, (n, classes); several as the model structures its outputs.
        history: the committed networks, the whole one first.
    """

    rates: Mapping[str, float]
    teacher: Any
    history: tuple[Interim, ...]

    @property
    def plan(self) -> Plan:
        """The plan of the latest network."""
        return self.history[-1].plan


class Searcher:
    """The search over one network.

    Args:
        model: functional model with the weights to search from; of a classifier the outputs are logits.
        images: normalised (n, h, w, c); of several inputs a list or a dict.
        labels: integers (n,); for another reward what that reads, in any structure of arrays.
        settings: see `SearchSettings`.
        reward: how outputs are judged; None: those of a classifier, as EKG does.
        workers: whose devices try the candidates; None: those of the strategy in whose scope it is made.
            Each worker searches, and all decide alike.

    Raises `UsageError` for a target that no sub-network meets, outputs that are no logits, and a layer that
    cannot be counted or run at other widths.
    """

    def __init__(
        self, model: keras.Model, images: Any, labels: Any, settings: SearchSettings,
        reward: Reward | None = None, workers: Workers | None = None,
    ) -> None:  # fmt: skip
        self._workers = workers or Workers(tf.distribute.get_strategy())
        self.settings, self.reward = settings, reward or Reward.of("classes")
        self._analysis = analysis = analyse(model)
        _check_outputs(analysis, self.reward)
        self.groups = {group.name: group for group in analysis.groups}
        self._all_labels = keras.tree.map_structure(_as_label, labels)
        specs = keras.tree.map_structure(
            lambda y: tf.TensorSpec([None, *y.shape[1:]], y.dtype), self._all_labels
        )
        self.chain = Chain(model, analysis, settings.dtype, self.reward, specs)
        self.counter = Counter(model, settings.convention, analysis)
        self._dense, size = weights_of(model), settings.batch_size
        starts = range(0, len(keras.tree.flatten(images)[0]), size)
        self._rows = [slice(start, start + size) for start in starts]
        self._images = [self.chain.inputs(_rows_of(images, part)) for part in self._rows]
        self._labels = [_rows_of(self._all_labels, part) for part in self._rows]
        self.full = Plan.full(analysis.groups)
        self.dense_macs = self.counter.macs(self.full.masks())
        self.target_macs = int(settings.target * self.dense_macs)
        _check_reachable(self.groups, self.counter, settings)

    def start(self) -> SearchState:
        """The unpruned network: all rates 1, its own logits as teacher."""
        logits = self._logits(self.chain.tensors(self._narrow(self.full.masks())), self._images)
        logits = keras.tree.map_structure(self._chiefs, logits)
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
        numbers, outputs = self._tried(state, candidates, masks, weights, inputs)
        if not np.isfinite(numbers[:, 0]).all():
            raise TrainingError("A candidate's logits are not finite: the network or its images are broken")
        first = int(np.argmin(numbers[:, 0]))
        logits = self._of_worker(outputs, first, state.teacher)
        best, rate = self._interim(state, *candidates[first], *numbers[first].tolist())
        count = len(state.history)
        teacher = keras.tree.map_structure(
            lambda mean, new: (mean * np.float32(count) + new) / np.float32(count + 1), state.teacher, logits
        )
        best = replace(best, candidates=len(candidates))
        return SearchState({**state.rates, best.group: rate}, teacher, (*state.history, best))

    def logits_of(self, plan: Plan, images: Any, inputs: Callable, batch_size: int) -> Any:
        """Outputs (n, classes) of an interim network for any images, in batches as the search sees them.

        Args:
            plan: what the network keeps.
            images: uint8 (n, h, w, c), or several; inputs: images → what the model reads.
            batch_size: images whose BN statistics are taken together. The last batch is filled with the
                images before it.
        """
        weights = self.chain.tensors(self._narrow(plan.masks()))
        count = len(keras.tree.flatten(images)[0])
        size = min(batch_size, count)

        def outputs(start: int) -> Any:
            first = min(start, count - size)
            x = self.chain.inputs(inputs(_rows_of(images, slice(first, first + size))))
            return _rows_of(self.chain.forward(weights, x), slice(start - first, None))

        return _joined(self._workers.spread(outputs, range(0, count, size)))

    # -- scores and candidates -------------------------------------------------------------------------------

    def _score(self, state: SearchState, masks: Masks, weights):
        """Channels of each group, best first; the values of the next slices; the inputs of all segments."""
        total: dict[str, np.ndarray] = {name: np.zeros(group.size) for name, group in self.groups.items()}
        physical = self._physical(masks)

        def score(x: list[tf.Tensor], labels: Any, rows: slice):
            with tf.device(self._workers.devices[0]):
                return self.chain.score(weights, x, labels, _rows_of(state.teacher, rows))

        with ThreadPoolExecutor(WORKERS) as pool:
            passes = list(pool.map(score, self._images, self._labels, self._rows))
        for shown, _ in passes:
            for name, group in self.groups.items():
                total[name] += self._on_channels(group, shown, physical)
        inputs = [cached for _, cached in passes]
        if self._workers.several:
            joined = self._workers.chiefs(np.concatenate([*total.values()]))
            ends = np.cumsum([len(scores) for scores in total.values()])[:-1]
            total = dict(zip(total, np.split(joined, ends), strict=True))
        # Removed channels rank behind all that are left, also behind those whose score happens to be zero.
        order = {n: np.argsort(-np.where(masks[n], s, -1.0), kind="stable") for n, s in total.items()}
        values = {n: self._slice_value(np.sort(s), state.rates[n], self.groups[n]) for n, s in total.items()}
        return order, values, inputs

    def _on_channels(
        self, group: ChannelGroup, shown: Mapping[int | str, np.ndarray], physical: Masks
    ) -> np.ndarray:
        """Σ of |gradient · activation| over the tensors that show the group, for each of its channels.

        A channel that stands at several positions of a tensor has one gate there.
        """
        found = np.zeros(group.size, np.float32)
        if group.name in self.chain.inner:
            _, _, index = self.chain.inner[group.name]
            channels = index[np.append(physical[group.name], True)[index]]
            np.add.at(found, channels[channels >= 0], shown[group.name][channels >= 0])
            return np.abs(found)
        for tensor in self.chain.gates[group.name]:
            channels, gates = self._analysis.positions(tensor, group.name, physical), np.zeros_like(found)
            np.add.at(gates, channels[channels >= 0], shown[tensor][channels >= 0])
            found += np.abs(gates)
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

    def _tried(
        self, state: SearchState, candidates, masks: Masks, weights, inputs
    ) -> tuple[np.ndarray, dict]:
        """Score, loss and accuracy of all candidates, (n, 3), and outputs of those that this worker tries."""
        mine = range(self._workers.index, len(candidates), self._workers.count)

        def evaluate(number: int) -> tuple[list[float], Any]:
            return self._evaluate(state, *candidates[number], masks, weights, inputs)

        found = dict(zip(mine, self._workers.spread(evaluate, mine, WORKERS), strict=True))
        numbers = np.zeros((len(candidates), 3))
        for number, (row, _) in found.items():
            numbers[number] = row
        return self._workers.summed(numbers), {number: logits for number, (_, logits) in found.items()}

    def _of_worker(self, outputs: Mapping[int, Any], number: int, teacher: Any) -> Any:
        """The outputs of a candidate, shaped as the teacher's, from the worker that has tried it."""
        mine = outputs.get(number)
        if mine is None:
            mine = keras.tree.map_structure(np.zeros_like, teacher)
        return keras.tree.map_structure(lambda y: self._workers.summed(y).astype(y.dtype), mine)

    def _evaluate(self, state, name, mask, masks, weights, inputs) -> tuple[list[float], Any]:
        changed = self._changed(self.groups[name], mask, masks)
        start = self.chain.first_segment(changed)
        logits = self._logits({**weights, **self.chain.tensors(changed)}, [c[start] for c in inputs], start)
        score = float(np.mean(self._reward(state.teacher, logits)))
        return [score, self._loss(logits), self._accuracy(logits)], logits

    def _interim(
        self, state: SearchState, name: str, mask: np.ndarray, score: float, loss: float, accuracy: float
    ) -> tuple[Interim, float]:
        """A candidate as a committed network, and the ratio of its group's channels that are left."""
        group, width = self.groups[name], int(mask.sum())
        exact = width == self._next_width(state, name)
        rate = self._next_rate(state, name) if exact else width / group.size
        plan = state.plan.replace(name, np.flatnonzero(mask))
        return Interim(plan, name, width, self.counter.macs(plan.masks()), loss, score, accuracy, 0), rate

    def _chiefs(self, outputs: np.ndarray) -> np.ndarray:
        return self._workers.chiefs(outputs).astype(outputs.dtype)

    def _narrow(self, masks: Masks) -> dict:
        """Weights of a sub-network, physically as narrow as `_physical` says, dead channels zero."""
        physical = self._physical(masks)
        return self._cut(self._dense, masks, physical) | sizes_of(self._analysis, physical)

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

    def _logits(self, weights, inputs, start: int = 0) -> Any:
        return _joined([self.chain.forward(weights, x, start) for x in inputs])

    def _reward(self, teacher: Any, logits: Any) -> np.ndarray:
        return self.reward(self._all_labels, _tensors(teacher), _tensors(logits)).numpy()

    def _loss(self, logits: Any) -> float:
        return float(tf.reduce_mean(self.reward.losses(self._all_labels, _tensors(logits))))

    def _accuracy(self, logits: Any) -> float:
        if self.reward.metric is None:
            return -self._loss(logits)
        return self.reward.metric(keras.tree.map_structure(np.asarray, self._all_labels), logits)


def _as_label(array: Any) -> tf.Tensor:
    array = np.asarray(array)
    return tf.constant(array, tf.int32 if np.issubdtype(array.dtype, np.integer) else tf.float32)


def _tensors(arrays: Any) -> Any:
    return keras.tree.map_structure(tf.constant, arrays)


def _rows_of(arrays: Any, rows: slice) -> Any:
    return keras.tree.map_structure(lambda x: x[rows], arrays)


def _joined(batches: Sequence[Any]) -> Any:
    """Outputs of batches as those of all images, arrays."""
    return keras.tree.map_structure(lambda *parts: np.concatenate(parts), *batches)


def _check_outputs(analysis: Analysis, reward: Reward) -> None:
    for output in range(len(analysis.graph.outputs)) if reward.logits else ():
        if end := ending_of(analysis.graph, output):
            raise UsageError(
                "The search compares logits: end the model in a layer without activation. "
                f"Received: an output behind {end.activation}"
            )


def check_reachable(model: keras.Model, settings: SearchSettings) -> None:
    """Raises `UsageError`, which says the smallest rate, when no sub-network is as small as the target.

    Also where no channel can be removed at all. Arithmetic on shapes alone: the weights do not matter.
    """
    analysis = analyse(model)
    check_prunable(analysis, model.name)
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
