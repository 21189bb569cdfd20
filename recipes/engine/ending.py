"""How long the end of a run will take: the files that it writes, and its report."""

from __future__ import annotations

from secateur import exports
from secateur.exports.timing import seconds
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.step import State

PAGE = 4.0  # seconds that pictures and page take
NETWORKS = 2  # in the report: the dense one and the last


def ending_seconds(context: RunContext, state: State) -> float:
    """Seconds that files and report will take, from one evaluation and one conversion of the network.

    The network is the dense one where there is one: the last one takes no longer. Test images are fetched
    here, since that takes its time, too.
    """
    if (snapshot := state.dense) is None:
        return PAGE + 2 * context.config.time_seconds
    model, holdout = context.load(snapshot), context.splits.holdout
    scale = context.splits.measured_count / len(holdout)
    evaluated = seconds(lambda: context.accuracy(model, holdout))
    converted = seconds(lambda: exports.to_litert(context.subject.finished(model)))
    report = NETWORKS * (scale * evaluated + 2 * converted)
    return report + 2 * converted + 2 * context.config.time_seconds + PAGE
