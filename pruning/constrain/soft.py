"""Soft filter pruning: filters are set to zero between epochs and may come back (He et al. 2018, SFP)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import keras
import numpy as np

from secateur.nets.kernels import named_variables
from secateur.pruning.groups.analysis import Analysis, analyse
from secateur.pruning.groups.group import ChannelGroup, Member
from secateur.pruning.plan import Plan
from secateur.pruning.shrink.weights import kept_positions, zero
from secateur.runs.errors import UsageError

BESIDE = ("bias", "mask")  # what a producer has for each channel that is no filter


def soften(model: keras.Model, plan: Plan) -> None:
    """Sets the filters that make dropped channels to zero, in place.

    Kernels alone: biases, BN and masks stay as they are, and so do layers that only pass the channel on, so
    that gradients reach the filters and bring them back. Raises `UsageError` for a plan of another network.
    """
    analysis = analyse(model)
    analysis.graph.check_in_place()
    plan = plan.check(analysis.groups)
    makers = [dataclasses.replace(group, members=_makers(group)) for group in analysis.groups]
    for layer, kept in kept_positions(makers, plan.masks()).items():
        variables = named_variables(analysis.graph.layers[layer])
        for weight in kept.keys() - set(BESIDE):
            variables[weight].assign(zero(variables[weight].numpy(), kept[weight]))


def nonzero_channels(model: keras.Model) -> dict[str, np.ndarray]:
    """Group → whether any filter of each of its channels has a weight that is not zero, (channels,)."""
    analysis = analyse(model)
    return {group.name: nonzero(analysis, group, _makers(group), BESIDE) for group in analysis.groups}


def nonzero(
    analysis: Analysis, group: ChannelGroup, members: Iterable[Member], beside: Iterable[str] = ()
) -> np.ndarray:
    """Whether each channel of a group has a weight in these layers that is not zero, (channels,).

    `beside`: names of weights that are not looked at.
    """
    found = np.zeros(group.size + 1, bool)  # the last one: another group's, or nobody's
    for member in members:
        variables = named_variables(analysis.graph.layers[member.layer])
        for weight in member.axes.keys() - set(beside):
            rows = np.moveaxis(variables[weight].numpy(), member.axes[weight], 0)
            np.logical_or.at(found, member.index, (rows != 0).any(tuple(range(1, rows.ndim))))
    return found[:-1]


def _makers(group: ChannelGroup) -> tuple[Member, ...]:
    return tuple(member for member in group.members if member.role == "producer")


def soft_pruning(
    model: keras.Model,
    choose_plan: Callable[[keras.Model], Plan],
    every: int = 1,
    epochs: int | None = None,
) -> Callable[[int], None]:
    """An `after_epoch` that chooses anew and softens.

    Args:
        model: what is trained, or the student in it.
        choose_plan: the network as it is now → what to keep of it.
        every: epochs between two choices, at least 1.
        epochs: of the phase, if its last epoch shall end with a choice whatever `every` is, as he-y's does.

    Raises `UsageError` for `every` below 1.
    """
    if every < 1:
        raise UsageError(f"Filters are chosen every 1 or more epochs. Received: every={every}")

    def after_epoch(done: int) -> None:
        if done % every == 0 or done == epochs:
            soften(model, choose_plan(model))

    return after_epoch
