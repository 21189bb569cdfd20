"""Costs of a model before and after: what a report of `python -m pruning` has beside that of a run."""

from __future__ import annotations

from collections.abc import Sequence

from secateur.reports.words import Report, ratio
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


def costs_rows(report: Report) -> list[tuple[str, str, str, str]]:
    """Title, before, after and what is left of each cost; none where the report has no costs."""
    if not report.get("costs"):
        return []
    before, after = report["costs"]
    return [
        (title, number(before[key], style), number(after[key], style), ratio(after, before, key))
        for key, title, style in costs_of(report.get("convention", "mac"))
    ]


def sentence(rows: Sequence[tuple[str, str, str, str]]) -> str:
    """What is left, in one sentence."""
    left = [f"{share} of the {title}" for title, _, _, share in rows if share.endswith("%")]
    return f"Keeps {', '.join(left)}."
