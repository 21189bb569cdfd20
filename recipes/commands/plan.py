"""The plan of `python -m pruning`: from a file, by arithmetic, or for milliseconds by measuring."""

from __future__ import annotations

from secateur.pruning import Plan, make_plan
from secateur.pruning.choose.ranking import Limits, Ranking
from secateur.pruning.choose.sensitivity import Sensitivity, measure_sensitivity
from secateur.pruning.choose.targets import Target
from secateur.pruning.groups.analysis import Analysis
from secateur.pruning.planning import fit_plan
from secateur.pruning.score.scores import Scores, score_groups
from secateur.recipes.commands.model import Subject
from secateur.recipes.commands.options import SCORED, TIMED
from secateur.recipes.commands.report import sensitivity_table
from secateur.runs import RunFolderError, SnapshotError, UsageError, read_json
from secateur.runs.text import table


def choose(subject: Subject) -> Plan:
    """Scores on training images, widths by the target.

    Curves are measured on as many training images as are held out: the accuracy that is reported is that of
    images which have decided nothing.
    """
    options = subject.options
    curves = options.sensitivity or options.allocation == "sensitivity"
    plan = read_plan(options.plan, subject.analysis) if options.plan else None
    if plan and not curves:
        return plan
    scores = _scores(subject)
    if curves:
        some = subject.data.some(len(subject.data.holdout[1]), options.seed)
        subject.sensitivity = measure_sensitivity(
            subject.model, scores, data=some, analysis=subject.analysis, batch_size=options.batch_size
        )
        print(sensitivity_table(subject.sensitivity), end="\n\n")
    return plan or (_timed if options.target[0] in TIMED else _counted)(subject, scores)


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
        reason = str(error).splitlines()[0]
        raise SnapshotError(f"This plan cannot be read ({reason}). Received: plan={path}") from error
    plan.check(analysis.groups)
    return plan


def _scores(subject: Subject) -> Scores:
    options, data = subject.options, subject.data
    return score_groups(
        subject.model,
        options.criterion,
        analysis=subject.analysis,
        data=data and data.some(SCORED, options.seed),
        reduce=options.reduce,
        normalise=options.normalise,
        seed=options.seed,
    )


def _limits(subject: Subject) -> Limits:
    options = subject.options
    return Limits(options.round_to, options.min_channels, options.max_drop, tuple(options.ignore))


def _allocation(subject: Subject) -> str | Sensitivity | None:
    """What the library takes: curves that are there are not measured again."""
    name = subject.options.allocation
    return subject.sensitivity if name == "sensitivity" else name


def _counted(subject: Subject, scores: Scores) -> Plan:
    """The widest plan below the target."""
    options = subject.options
    name, value = options.target
    return make_plan(
        subject.model,
        scores,
        **{name: value},
        allocation=_allocation(subject),
        analysis=subject.analysis,
        convention=options.convention,
        fill=options.fill,
        **vars(_limits(subject)),
    )


def _timed(subject: Subject, scores: Scores) -> Plan:
    """The plan whose network takes the milliseconds; prints what was tried."""
    options = subject.options
    fitted = fit_plan(
        subject.model,
        subject.analysis,
        Ranking.of(subject.analysis, scores, _limits(subject)),
        Target(*options.target),
        allocation=_allocation(subject),
        fill=options.fill,
        setup=subject.setup,
        cache=options.cache,
    )
    rows = [(f"{a.predicted:.3f}", f"{a.measured:.3f}") for a in fitted.attempts]
    print(table(("ms of its layers", "ms measured"), rows), end="\n\n")
    return fitted.best.plan
