"""Groups as tables: who makes, follows and reads their channels, and what one channel costs."""

from __future__ import annotations

import keras

from secateur.nets.kernels import named_variables
from secateur.pruning.count.costs import of_last_channels, operations, parameters
from secateur.pruning.count.counting import find_convention, unsized
from secateur.pruning.groups.analysis import Analysis, analyse
from secateur.pruning.groups.group import ChannelGroup, Member
from secateur.runs.text import few, table
from secateur.runs.wording import number

ROLES = ("producer", "follower", "consumer", "padding")


def describe(group: ChannelGroup, convention: str = "mac") -> str:
    """A group as a table with a row for each layer that its channels go through.

    "channels" are those of the group that the layer has on the axis; a flattened feature map has each of them
    at every pixel. Costs are those of the group's last channel while all others are there.

    A dash stands for operations of open sizes. Raises `UsageError` for an unknown convention.
    """
    analysis = group.analysis
    found = analysis.costs if convention == "mac" else costs(analysis, convention)  # MACs are kept
    macs, params = (number(n, ",") for n in found[group.name])
    rows = [
        (role, member.layer, _axes(member, analysis), len(set(member.index.tolist()) - {-1}))
        for role in ROLES
        for member in group.members
        if member.role == role and (_axes(member, analysis) or role == "padding")  # a bias that it lacks
    ]
    return (
        f"{group.name}: {group.size} channels. One costs {macs} MACs and {params} parameters.\n"
        f"{table(('role', 'layer', 'cut along', 'channels'), rows)}"
    )


def summary(model: keras.Model, convention: str = "mac") -> str:
    """All groups of a model, one a row, and what is left whole. Errors are those of `describe`."""
    analysis = analyse(model)
    cost = costs(analysis, convention)
    rows = [
        (
            group.name, group.size, few(group.layers("producer")[1:], 2), few(group.layers("consumer"), 2),
            *(number(n, ",") for n in cost[group.name]),
        )
        for group in analysis.groups
    ]  # fmt: skip
    titles = ("group", "channels", "made also by", "read by", "MACs of one", "parameters of one")
    return f"{table(titles, rows)}\n\n{analysis.untouched}"


def costs(analysis: Analysis, convention: str = "mac") -> dict[str, tuple[int | None, int]]:
    """Group → operations and parameters that its last channel costs while all others are there.

    Operations are None where sizes are open.
    """
    rule = find_convention(convention)
    params = of_last_channels(analysis, parameters(analysis, rule))
    macs = {} if unsized(analysis) else of_last_channels(analysis, operations(analysis, rule))
    return {group.name: (macs.get(group.name), params[group.name]) for group in analysis.groups}


def _axes(member: Member, analysis: Analysis) -> str:
    own = named_variables(analysis.graph.layers[member.layer]) if member.axes else {}
    return ", ".join(f"{weight} {axis}" for weight, axis in member.axes.items() if weight in own)
