"""From widths that somebody has chosen to a plan: the best channels of each group stay."""

from __future__ import annotations

from collections.abc import Mapping
from operator import index
from typing import Any, Unpack

import keras
import numpy as np

from secateur.pruning.choose.ranking import Limits, Ranking
from secateur.pruning.groups.analysis import Analysis, analyse
from secateur.pruning.plan import Plan
from secateur.pruning.score.scores import Scoring, score_groups
from secateur.runs.errors import UsageError
from secateur.runs.suggest import nearest


def plan_of_widths(
    model: keras.Model,
    widths: Mapping[str, int],
    criterion: str | Mapping[str, np.ndarray] = "l1",
    *,
    analysis: Analysis | None = None,
    data: Any = None,
    **scoring: Unpack[Scoring],
) -> Plan:
    """The plan that keeps so many channels: those with the best scores, of equal ones the first.

    Args:
        model: functional model.
        widths: group → channels that stay; groups that are not named stay whole.
        criterion: name of a registered criterion, which sees the model as it is, or scores by group.
        analysis: of the model, if it is there already.
        data, scoring: as `make_plan` takes them.

    Raises `UsageError` for a group that does not exist, a width that it cannot have and one without scores.
    """
    analysis = analysis or analyse(model)
    check_widths(analysis, widths)
    if isinstance(criterion, str):
        criterion = score_groups(model, criterion, analysis=analysis, data=data, **scoring)
    ranking = Ranking.of(analysis, criterion, Limits())
    for name, width in widths.items():
        if width < ranking.lowest[name]:
            raise UsageError(
                f"Group {name!r} cannot be narrower than {ranking.lowest[name]}: it has no scores, or one of "
                f"its layers would be empty. Received: width={width}"
            )
    return ranking.plan({**ranking.sizes, **widths})


def check_widths(analysis: Analysis, widths: Mapping[str, int]) -> None:
    """Raises `UsageError` for an unknown group, and for a width outside of 1 to its size."""
    sizes = {group.name: group.size for group in analysis.groups}
    for name, width in widths.items():
        if name not in sizes:
            raise UsageError(f"No such group. Received: group={name!r}. {nearest(name, sizes, 8)}")
        if not 1 <= index(width) <= sizes[name]:
            raise UsageError(
                f"Group {name!r} has {sizes[name]} channels, of which between 1 and all can stay. "
                f"Received: width={width}"
            )
