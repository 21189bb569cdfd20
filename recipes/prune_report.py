"""What a pruned model costs, as tables on the terminal, as JSON and as a page."""

from __future__ import annotations

import datetime
import shlex
import sys
from pathlib import Path

import keras
import numpy as np

from pruning import Plan, complexity
from recipes.prune_subject import Subject
from recipes.report import machine
from runs import write_atomic, write_json
from runs.page_pruned import COSTS, render_pruned
from runs.text import table


def measure(subject: Subject, small: keras.Model) -> None:
    """A row of costs for the model and one for the smaller one; the two take turns on the clock."""
    models = {"before": subject.model, "after": small}
    times = subject.setup.measure(models, seconds=2.0)
    for name, model in models.items():
        cost = complexity(model)
        stored = sum(int(np.prod(v.shape)) * np.dtype(v.dtype).itemsize for v in model.variables)
        row = {"name": name, "params": cost.params, "macs": cost.macs, "bytes": stored, "ms": times[name]}
        subject.rows.append(row)


def widths_table(plan: Plan) -> str:
    """Width of every group before and after."""
    rows = [(name, str(plan.sizes[name]), str(width)) for name, width in plan.widths().items()]
    return table(("group", "before", "after"), rows)


def costs_table(rows: list[dict]) -> str:
    """Costs of the model and of the smaller one, and what is left of them."""
    before, after = rows
    lines = [
        (title, style.format(before[key]), style.format(after[key]), f"{after[key] / before[key]:.1%}")
        for key, title, style in COSTS
    ]
    return table(("", "before", "after", "left"), lines)


def write_report(subject: Subject, plan: Plan) -> None:
    """The HTML page, and its numbers beside it as JSON."""
    options = subject.options
    name, value = options.target
    report = {
        "model": subject.model.name,
        "target": {name: value},
        "criterion": options.criterion,
        "setup": str(subject.setup),
        "rows": subject.rows,
        "widths": [{"group": g, "before": plan.sizes[g], "after": len(k)} for g, k in plan.keep.items()],
        "untouched": [vars(row) for row in subject.analysis.untouched],
        "parities": {name: vars(parity) for name, parity in subject.parities.items()},
        "plan": plan.to_json(),
        "command": shlex.join(["python", "-m", "pruning", *sys.argv[1:]]),
        "machine": machine(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    write_json(Path(options.report).with_suffix(".json"), report)
    write_atomic(options.report, render_pruned(report).encode())
    print(f"report: {options.report}")
