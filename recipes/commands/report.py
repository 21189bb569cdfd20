"""What a pruned model costs, as tables on the terminal, as JSON and as a page."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras

from secateur.exports import Parity
from secateur.pruning import Plan, complexity
from secateur.pruning.choose.sensitivity import Sensitivity
from secateur.pruning.conventions import CONVENTIONS
from secateur.pruning.count.costs import bytes_of, parameters
from secateur.pruning.count.counting import unsized
from secateur.pruning.groups.analysis import analyse
from secateur.recipes.commands.model import Subject
from secateur.recipes.commands.options import TIMED
from secateur.recipes.engine.options import command_line
from secateur.recipes.engine.report import machine
from secateur.reports.pruned import costs_of, pruned_page
from secateur.runs import warn, write_atomic, write_json
from secateur.runs.errors import UsageError, first_line
from secateur.runs.text import number, table


def measure(subject: Subject, small: keras.Model) -> list[dict]:
    """A row of costs for the model and one for the smaller one."""
    models = {"before": subject.model, "after": small}
    times, rows = _milliseconds(subject, models), []
    for name, model in models.items():
        params, macs = _counted(model, subject.options.convention)
        rows.append(
            {"name": name, "params": params, "macs": macs, "bytes": bytes_of(model), "ms": times[name]}
        )
    return rows


def _counted(model: keras.Model, convention: str) -> tuple[int, int | None]:
    """Parameters and operations, which have no number where sizes are open."""
    analysis = analyse(model)
    if unsized(analysis) is None:
        found = complexity(model, convention)
        return found.params, found.macs
    terms = parameters(analysis, CONVENTIONS.find(convention))
    return round(sum(factor * math.prod(size for size, _ in axes) for factor, axes in terms)), None


def _milliseconds(subject: Subject, models: dict[str, keras.Model]) -> dict[str, float | None]:
    """The two take turns on the clock; None for models that cannot be timed, unless time is the budget."""
    if not subject.sized:
        return dict.fromkeys(models)
    try:
        return subject.setup.milliseconds(models, seconds=2.0)
    except (UsageError, ValueError, RuntimeError) as error:
        if subject.options.target[0] in TIMED:
            raise
        warn(f"milliseconds are not measured: {first_line(error)}")
        return dict.fromkeys(models)


def widths_table(plan: Plan) -> str:
    """Width of every group before and after."""
    rows = [(name, str(plan.sizes[name]), str(width)) for name, width in plan.widths().items()]
    return table(("group", "before", "after"), rows)


def sensitivity_table(found: Sensitivity) -> str:
    """Accuracy in % by group and by the share of its channels that stays."""
    titles = ("accuracy in %, kept of one group", *(f"{ratio:.0%}" for ratio in found.ratios), "whole")
    rows = [
        (name, *(f"{100 * value:.2f}" for value in (*curve, found.whole)))
        for name, curve in found.curves.items()
    ]
    return table(titles, rows)


def costs_table(rows: Sequence[dict], convention: str = "mac") -> str:
    """Costs of the model and of the smaller one, and what is left of them."""
    before, after = rows
    lines = [
        (
            title,
            number(before[key], style),
            number(after[key], style),
            f"{after[key] / before[key]:.1%}" if before[key] else "–",
        )
        for key, title, style in costs_of(convention)
    ]
    return table(("", "before", "after", "left"), lines)


def write_report(
    subject: Subject,
    plan: Plan,
    curves: Sensitivity | None,
    rows: Sequence[dict],
    parities: Mapping[str, Parity],
) -> None:
    """The HTML page, and its numbers beside it as JSON."""
    options = subject.options
    name, value = options.target
    report = {
        "model": subject.model.name,
        "target": {name: value},
        "criterion": None if options.plan and not curves else options.criterion,
        "convention": options.convention,
        "setup": str(subject.setup),
        "rows": rows,
        "widths": [{"group": g, "before": plan.sizes[g], "after": len(k)} for g, k in plan.keep.items()],
        "untouched": [vars(row) for row in subject.analysis.untouched],
        "parities": {name: vars(parity) for name, parity in parities.items()},
        "sensitivity": curves and curves.to_json(),
        "plan": plan.to_json(),
        "command": command_line(),
        "machine": machine(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    write_json(Path(options.report).with_suffix(".json"), report)
    write_atomic(options.report, pruned_page(report).encode())
    print(f"report: {options.report}")
