"""The plan of `python -m pruning`: by arithmetic, or for a budget of milliseconds by measuring."""

from __future__ import annotations

from pruning import Plan, make_plan
from pruning.budgets import Budget
from pruning.criteria import get_criterion
from pruning.latency.fit import fit
from pruning.limits import Limits, Ranking
from pruning.scores import score_groups
from recipes.prune_subject import Subject
from runs.errors import UsageError
from runs.text import table


def choose(subject: Subject) -> Plan:
    """Scores on the training images, widths by the target; decisions that need accuracy see the holdout."""
    options, data = subject.options, subject.data
    name, value = options.target
    if not data and (get_criterion(options.criterion).needs_data or options.allocation == "sensitivity"):
        raise UsageError(
            f"This needs images: give --data FOLDER or tfds:NAME. Received: criterion={options.criterion}, "
            f"allocation={options.allocation}, data=None"
        )
    common = {"seed": options.seed, "data": data and data.train}
    limits = Limits(options.round_to, options.min_channels, options.max_drop, tuple(options.ignore))
    spread = {"allocation": options.allocation or "uniform", **vars(limits), "data": data and data.holdout}
    scores = score_groups(subject.model, options.criterion, analysis=subject.analysis, **common)
    if name not in ("keep_ms", "max_ms"):
        return make_plan(subject.model, scores, **{name: value}, **spread)

    def widths(cost, target: float) -> dict[str, int]:
        return make_plan(subject.model, scores, budget=Budget(name, cost, target), **spread).widths()

    fitted = fit(
        subject.model,
        subject.analysis,
        Ranking.of(subject.analysis, scores, limits),
        **{name: value},
        setup=subject.setup,
        cache=options.cache,
        choose=widths if options.allocation else None,
    )
    rows = [(f"{a.predicted:.3f}", f"{a.measured:.3f}") for a in fitted.attempts]
    print(table(("ms of its layers", "ms measured"), rows), end="\n\n")
    return fitted.best.plan
