"""Soft filter pruning: filters are set to zero between epochs and may come back (He et al. 2018, SFP)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras

from pruning.groups import analyse
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
    makers = [
        dataclasses.replace(group, members=tuple(m for m in group.members if m.role == "producer"))
        for group in analysis.groups
    ]
    for layer, kept in kept_positions(makers, plan.masks()).items():
        variables = named_variables(analysis.graph.layers[layer])
        for weight in kept.keys() - set(BESIDE):
            variables[weight].assign(zero(variables[weight].numpy(), kept[weight]))


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

    Call `soften` before training for he-y's FPGM, which masks first.
    """
    if every < 1:
        raise UsageError(f"Filters are chosen every 1 or more epochs. Received: every={every}")

    def after_epoch(done: int) -> None:
        if done % every == 0 or done == epochs:
            soften(model, choose_plan(model))

    return after_epoch
