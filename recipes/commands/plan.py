"""The plan of `python -m pruning`: from a file, by arithmetic, or for milliseconds by measuring."""

from __future__ import annotations

from secateur.pruning import Plan, make_plan
from secateur.pruning.choose.ranking import Limits, Ranking
from secateur.pruning.choose.sensitivity import Sensitivity, measure_sensitivity
from secateur.pruning.choose.targets import Target
from secateur.pruning.groups.analysis import Analysis
from secateur.pruning.planning import fit_plan
from secateur.pruning.score.scores import score_groups
from secateur.recipes.commands.model import Subject
from secateur.recipes.commands.options import SCORED, TIMED
from secateur.recipes.commands.report import sensitivity_table
from secateur.runs import RunFolderError, SnapshotError, UsageError, read_json
from secateur.runs.errors import first_line
from secateur.runs.text import table


def choose(subject: Subject) -> tuple[Plan, Sensitivity | None]:
    """The plan, and the curves that were measured for it or for the report.

    Curves are measured on as many training images as are held out: the accuracy that is reported is that of
    images which have decided nothing.
    """
    options, data = subject.options, subject.data
    plan = read_plan(options.plan, subject.analysis) if options.plan else None
    curved = options.sensitivity or options.allocation == "sensitivity"
    if plan and not curved:
        return plan, None
    scores = score_groups(
        subject.model,
        options.criterion,
        analysis=subject.analysis,
        data=data and data.some(SCORED, options.seed),
        reduce=options.reduce,
        normalise=options.normalise,
        seed=options.seed,
    )
    curves = None
    if curved:
        some = data.some(len(data.holdout[1]), options.seed)
        curves = measure_sensitivity(
            subject.model, scores, data=some, analysis=subject.analysis, batch_size=options.batch_size
        )
        print(sensitivity_table(curves), end="\n\n")
    name, value = options.target
    limits = Limits(options.round_to, options.min_channels, options.max_drop, tuple(options.ignore))
    allocation = curves if options.allocation == "sensitivity" else options.allocation
    if plan is None and name in TIMED:
        ranking = Ranking.of(subject.analysis, scores, limits)
        plan = _timed(subject, ranking, allocation)
    elif plan is None:
        how = {
            "analysis": subject.analysis,
            "convention": options.convention,
            "fill": options.fill,
            **vars(limits),
        }
        plan = make_plan(subject.model, scores, **{name: value}, allocation=allocation, **how)
    return plan, curves


def read_plan(path: str, analysis: Analysis) -> Plan:
    """A plan that `--save_plan` wrote, or one in the same form.

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
    plan.check(analysis.groups)
    return plan


def _timed(subject: Subject, ranking: Ranking, allocation: str | Sensitivity | None) -> Plan:
    """The plan whose network takes the milliseconds; prints what was tried."""
    options = subject.options
    fitted = fit_plan(
        subject.model,
        subject.analysis,
        ranking,
        Target(*options.target),
        allocation=allocation,
        fill=options.fill,
        setup=subject.setup,
        cache=options.cache,
    )
    rows = [(f"{a.predicted:.3f}", f"{a.measured:.3f}") for a in fitted.attempts]
    print(table(("ms of its layers", "ms measured"), rows), end="\n\n")
    return fitted.best.plan
