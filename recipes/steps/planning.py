"""From `PlanOptions` to a plan: from a file, by arithmetic, or for milliseconds by measuring."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras

from secateur.exports.timing import Setup
from secateur.pruning import Plan, make_plan
from secateur.pruning.choose.ranking import Limits, Ranking
from secateur.pruning.choose.sensitivity import Metric, Sensitivity, measure_sensitivity
from secateur.pruning.choose.targets import Target
from secateur.pruning.groups.analysis import Analysis, analyse
from secateur.pruning.planning import fit_plan
from secateur.pruning.score.scores import score_groups
from secateur.recipes.engine.cutting import LIMITS, TIMED_BUDGETS, PlanOptions
from secateur.runs import RunFolderError, SnapshotError, UsageError, read_json
from secateur.runs.errors import first_line
from secateur.runs.text import table


@dataclass(frozen=True)
class Evidence:
    """What is known beside the weights.

    Attributes:
        scoring: options of `score_groups`: data, seed, loss.
        curves: (images, labels) that sensitivity is measured on.
        metric: of the curves; None is the accuracy.
        batch_size: images that are run at a time for them.
        analysis: of the model.
    """

    scoring: Mapping[str, Any] = field(default_factory=dict)
    curves: Callable[[], tuple[Any, Any]] | None = None
    metric: Metric | None = None
    batch_size: int = 256
    analysis: Analysis | None = None


def choose_plan(
    model: keras.Model, options: PlanOptions, target: tuple[str, Any], setup: Setup, known: Evidence
) -> tuple[Plan, Sensitivity | None]:
    """The plan of `model`, and the curves that were measured for it or for the report.

    `target` is a budget of `options` of what `model` has now. Raises what `read_plan` and `make_plan` may.
    """
    analysis = known.analysis or analyse(model, options.channel_statistics)
    plan = read_plan(options.plan, analysis) if target[0] == "plan" else None
    if plan and not options.curved:
        return plan, None
    how = {"reduce": options.reduce, "normalise": options.normalise, **known.scoring}
    scores = score_groups(model, options.criterion, analysis=analysis, **how)
    curves = None
    if options.curved:
        curves = measure_sensitivity(
            model, scores, data=known.curves(), metric=known.metric, analysis=analysis,
            batch_size=known.batch_size,
        )  # fmt: skip
        print(sensitivity_table(curves), end="\n\n")
    if plan:
        return plan, curves
    limits = {name: getattr(options, name) for name in LIMITS}
    allocation = curves if options.allocation == "sensitivity" else options.allocation
    if target[0] in TIMED_BUDGETS:
        ranking = Ranking.of(analysis, scores, Limits(**limits | {"ignore": tuple(options.ignore)}))
        return _timed(model, analysis, ranking, target, allocation, options, setup), curves
    how = {"analysis": analysis, "allocation": allocation, "convention": options.convention, **limits}
    return make_plan(model, scores, **dict([target]), fill=options.fill, **how), curves


def read_plan(path: str, analysis: Analysis) -> Plan:
    """A plan that `--save_plan` wrote, or one in the same form, by the names of the model.

    Raises `SnapshotError` for a file that is missing or holds no plan, and `UsageError` for a plan of another
    network.
    """
    try:
        plan = Plan.from_json(read_json(path))
    except UsageError as error:
        raise SnapshotError(f"{path} holds no plan. {error}") from error
    except FileNotFoundError as error:
        raise SnapshotError(f"There is no such file. Received: plan={path}") from error
    except (RunFolderError, OSError, UnicodeDecodeError) as error:
        raise SnapshotError(
            f"This plan cannot be read ({first_line(error)}). Received: plan={path}"
        ) from error
    return plan.check(analysis.groups)


def sensitivity_table(found: Sensitivity) -> str:
    """Accuracy in % by group and by the share of its channels that stays."""
    titles = ("accuracy in %, kept of one group", *(f"{ratio:.0%}" for ratio in found.ratios), "whole")
    rows = [
        (name, *(f"{100 * value:.2f}" for value in (*curve, found.whole)))
        for name, curve in found.curves.items()
    ]
    return table(titles, rows)


def _timed(
    model: keras.Model,
    analysis: Analysis,
    ranking: Ranking,
    target: tuple[str, float],
    allocation: str | Sensitivity | None,
    options: PlanOptions,
    setup: Setup,
) -> Plan:
    """The plan whose network takes the milliseconds; prints what was tried."""
    how = {"allocation": allocation, "fill": options.fill, "setup": setup, "cache": options.cache}
    fitted = fit_plan(model, analysis, ranking, Target(*target), **how)
    rows = [(f"{a.predicted:.3f}", f"{a.measured:.3f}") for a in fitted.attempts]
    print(table(("ms of its layers", "ms measured"), rows), end="\n\n")
    return fitted.best.plan
