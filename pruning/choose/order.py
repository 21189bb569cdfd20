"""In which order groups are visited when they are pruned one after another."""

from __future__ import annotations

import keras

from secateur.pruning.groups.analysis import Analysis, analyse
from secateur.pruning.groups.group import ChannelGroup


def backward(model: keras.Model, *, analysis: Analysis | None = None) -> list[ChannelGroup]:
    """Groups from the end of the network to its beginning, each where its last producer stands.

    A residual stream is visited with the last layer that adds to it, as a walk over the convolutions from
    the last to the first meets it. The groups of one layer: the later one first. For iterative pruning from
    the back.
    """
    analysis = analysis or analyse(model)
    place = {call.name: i for i, call in enumerate(analysis.calls)}
    last = {g.name: max(place[layer] for layer in g.layers("producer")) for g in analysis.groups}
    return sorted(analysis.groups, key=lambda group: last[group.name])[::-1]
