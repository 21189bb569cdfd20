"""Groups as tables: who makes, follows and reads their channels, and what one channel costs."""

from __future__ import annotations

import keras

from secateur.pruning.conventions import CONVENTIONS
from secateur.pruning.count.costs import of_last_channels, operations, parameters
from secateur.pruning.count.counting import uncounted, unsized
from secateur.pruning.groups.analysis import Analysis, analyse
from secateur.pruning.groups.group import ChannelGroup
from secateur.runs.text import few, number, table


def describe(group: ChannelGroup, convention: str = "mac") -> str:
    """What `print(group)` shows, and what the group's last channel costs while all others are there.

    A dash stands for operations of open sizes. Raises `UsageError` for an unknown convention.
    """
    macs, params = (number(n, ",") for n in costs(group.analysis, convention)[group.name])
    head, _, rows = str(group).partition("\n")
    return f"{head}. One costs {macs} MACs and {params} parameters.\n{rows}"


def summary(
    model: keras.Model,
    convention: str = "mac",
    channel_statistics: bool = False,
    analysis: Analysis | None = None,
) -> str:
    """All groups of a model, one a row, what is left whole, and what else to know.

    `channel_statistics` is as in `find_groups`, `analysis` what has been found out of the model already;
    errors are those of `describe`.
    """
    analysis = analysis or analyse(model, channel_statistics)
    cost = costs(analysis, convention)
    rows = [
        (
            group.name, group.size, few(group.layers("producer")[1:], 2), few(group.layers("consumer"), 2),
            *(number(n, ",") for n in cost[group.name]),
        )
        for group in analysis.groups
    ]  # fmt: skip
    titles = ("group", "channels", "made also by", "read by", "MACs of one", "parameters of one")
    lines = [] if unsized(analysis) else uncounted(analysis)
    if analysis.reduced:
        lines.append(
            f"taken over the channels that are left, not with zeros for the others: {few(analysis.reduced)}"
        )
    return "\n\n".join([table(titles, rows), str(analysis.untouched), *lines])


def costs(analysis: Analysis, convention: str = "mac") -> dict[str, tuple[int | None, int]]:
    """Group → operations and parameters that its last channel costs while all others are there.

    Operations are None where sizes are open.
    """
    rule = CONVENTIONS.find(convention)
    params = of_last_channels(analysis, parameters(analysis, rule))
    macs = {} if unsized(analysis) else of_last_channels(analysis, operations(analysis, rule))
    return {group.name: (macs.get(group.name), params[group.name]) for group in analysis.groups}
