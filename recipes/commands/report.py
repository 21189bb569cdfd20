"""What a pruned model costs, as tables on the terminal, as JSON and as a page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from secateur.exports import Parity
from secateur.exports.timing import Setup
from secateur.pruning import Plan, complexity
from secateur.pruning.conventions import CONVENTIONS
from secateur.pruning.count.costs import bytes_of, parameters
from secateur.pruning.count.counting import unsized
from secateur.pruning.groups.analysis import analyse
from secateur.recipes.commands.options import PruneOptions
from secateur.recipes.engine.cutting import TIMED_BUDGETS
from secateur.recipes.engine.report import left_whole, plan_widths, when_and_where
from secateur.reports.costs import costs_of
from secateur.reports.page import run_page
from secateur.runs import warn, write_atomic, write_json
from secateur.runs.errors import UsageError, first_line
from secateur.runs.seal import sealed
from secateur.runs.text import number, table


def measure(options: PruneOptions, models: Mapping[str, keras.Model], setup: Setup) -> list[dict]:
    """A row of costs for each of the models: before and after."""
    times, rows = _milliseconds(options, models, setup), []
    for name, model in models.items():
        params, macs = _counted(model, options.convention)
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


def _milliseconds(
    options: PruneOptions, models: Mapping[str, keras.Model], setup: Setup
) -> dict[str, float | None]:
    """They take turns on the clock; None for models that cannot be timed, unless time is the budget."""
    if any(None in tensor.shape[1:] for tensor in models["before"].inputs):
        return dict.fromkeys(models)
    try:
        return setup.milliseconds(models, seconds=2.0)
    except (UsageError, ValueError, RuntimeError) as error:
        if options.target[0] in TIMED_BUDGETS:
            raise
        warn(f"milliseconds are not measured: {first_line(error)}")
        return dict.fromkeys(models)


def widths_table(plan: Plan) -> str:
    """Width of every group before and after."""
    rows = [(name, str(plan.sizes[name]), str(width)) for name, width in plan.widths().items()]
    return table(("group", "before", "after"), rows)


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
    options: PruneOptions,
    model: keras.Model,
    plan: Plan,
    run: Mapping[str, Any],
    costs: Sequence[dict],
    parities: Mapping[str, Parity],
    setup: Setup,
) -> None:
    """The HTML page, and its numbers beside it as JSON: those of the `run`, if there was one, and costs."""
    name, value = options.target
    report = {
        "system": f"{name} {value}",
        "config": {"arch": model.name},
        "rows": [],
        "widths": plan_widths(plan),
        "untouched": left_whole(model),
        **run,
        "target": {name: value},
        "criterion": None if options.minutes or (options.plan and not options.curved) else options.criterion,
        "convention": options.convention,
        "setup": str(setup),
        "costs": costs,
        "parities": {name: vars(parity) for name, parity in parities.items()},
        "plan": plan.to_json(),
        **when_and_where(),
    }
    report = sealed(report)
    write_json(Path(options.report).with_suffix(".json"), report)
    write_atomic(options.report, run_page(report).encode())
    print(f"report: {options.report}")
