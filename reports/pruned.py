"""The report of `python -m pruning` as one page: costs before and after, widths, what stayed, parity."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from secateur.reports.page import render
from secateur.reports.words import clean, percent, ratio
from secateur.runs.text import number

COSTS = (
    ("macs", "MACs", ","),
    ("params", "parameters", ","),
    ("bytes", "bytes of weights", ","),
    ("ms", "milliseconds", ".3f"),
)


def costs_of(convention: str = "mac") -> tuple[tuple[str, str, str], ...]:
    """`COSTS` as (key, title, format), operations by the name of what is counted as one."""
    counted = "MACs" if convention == "mac" else f"operations ({convention})"
    return tuple((key, counted if key == "macs" else title, style) for key, title, style in COSTS)


def pruned_page(report: Mapping[str, Any]) -> str:
    """The page for what `recipes.commands.report` collects; every text in it is escaped."""
    report = clean(report)
    (wanted, value), *_ = report["target"].items()
    before, after = report["rows"]
    costs = costs_of(report["convention"])
    left = [f"{ratio(after, before, key)} of the {title}" for key, title, _ in costs if before[key]]
    rows = [
        (title, number(before[key], style), number(after[key], style), ratio(after, before, key))
        for key, title, style in costs
    ]
    if "holdout_accuracy" in before:
        rows.append(
            ("accuracy on images held out", *(percent(row["holdout_accuracy"]) for row in report["rows"]), "")
        )
    return render(
        "pruned.html.j2",
        report,
        title=f"{report['model']} · {wanted} {value if isinstance(value, str) else f'{value:g}'}",
        summary=f"Keeps {', '.join(left)}.".replace(" %", "\u00a0%"),
        costs=rows,
    )
