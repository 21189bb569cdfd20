"""Soft filter pruning: filters are set to zero between epochs and may come back (He et al. 2018, SFP)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import keras
import numpy as np

from pruning.group import ChannelGroup, Member
from pruning.groups import Analysis, analyse
from pruning.plan import Plan
from pruning.weights import kept_positions, named_variables, zero
from runs.errors import UsageError

BESIDE = ("bias", "mask")  # what a producer has for each channel that is no filter


def soften(model: keras.Model, plan: Plan) -> None:
    """Sets the filters that make dropped channels to zero, in place.

    Kernels alone: biases, BN and masks stay as they are, and so do layers that only pass the channel on, so
    that gradients reach the filters and bring them back. Raises `UsageError` for a plan of another network.
    """
    analysis = analyse(model)
    plan.check(analysis.groups)
    makers = [dataclasses.replace(group, members=_makers(group)) for group in analysis.groups]
    for layer, kept in kept_positions(makers, plan.masks()).items():
        variables = named_variables(analysis.graph.layers[layer])
        for weight in kept.keys() - set(BESIDE):
            variables[weight].assign(zero(variables[weight].numpy(), kept[weight]))


def dead_lowest(model: keras.Model, scores: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Scores in which channels whose filters are all zero stand below the others of their group.

    Args:
        model: functional model.
        scores: group → (channels,), as `score_groups` gives them.

    Where dead filters are held, a choice by distances may keep one of them and would then lose another one:
    rank by these scores to lose no more than the plan says.
    """
    analysis = analyse(model)
    return {
        group.name: np.where(_alive(analysis, group), scores[group.name], scores[group.name].min() - 1)
        for group in analysis.groups
        if group.name in scores
    }


def _makers(group: ChannelGroup) -> tuple[Member, ...]:
    return tuple(member for member in group.members if member.role == "producer")


def _alive(analysis: Analysis, group: ChannelGroup) -> np.ndarray:
    """Whether any filter of each channel has a weight that is not zero, (channels,)."""
    alive = np.zeros(group.size + 1, bool)  # the last one: another group's, or nobody's
    for member in _makers(group):
        variables = named_variables(analysis.graph.layers[member.layer])
        for weight in member.axes.keys() - set(BESIDE):
            rows = np.moveaxis(variables[weight].numpy(), member.axes[weight], 0)
            np.logical_or.at(alive, member.index, (rows != 0).any(tuple(range(1, rows.ndim))))
    return alive[:-1]


def soft_pruning(
    model: keras.Model,
    choose_plan: Callable[[keras.Model], Plan],
    every: int = 1,
    epochs: int | None = None,
) -> Callable[[int], None]:
    """An `after_epoch` that chooses anew and softens: SFP, and with `hold_filters` and `calm` FPGM.

    Args:
        model: what is trained, or the student in it.
        choose_plan: the network as it is now → what to keep of it.
        every: epochs between two choices, at least 1.
        epochs: of the phase, if its last epoch shall end with a choice whatever `every` is, as he-y's does.

    For he-y's FPGM call `soften` before training, which begins pruned, and choose by `dead_lowest`. Raises
    `UsageError` for `every` below 1.
    """
    if every < 1:
        raise UsageError(f"Filters are chosen every 1 or more epochs. Received: every={every}")

    def after_epoch(done: int) -> None:
        if done % every == 0 or done == epochs:
            soften(model, choose_plan(model))

    return after_epoch
