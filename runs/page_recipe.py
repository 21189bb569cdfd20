"""What the page says of a recipe's steps: each cut with its accuracies, and the ensemble of the snapshots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from secateur.runs.learning_text import learning_text
from secateur.runs.markup import Markup, element
from secateur.runs.page_parts import note, section, table
from secateur.runs.wording import percent


def cuts_section(report: Mapping[str, Any]) -> Markup:
    """A line for each step that removed something; empty where none did."""
    cuts = report.get("cuts") or []
    if not cuts:
        return Markup()
    titles = ("step", "parameters", "MACs", "hold-out accuracy before", "after", "weights at zero")
    lines = [
        (
            cut["step"],
            f"{cut['params']:,}",
            f"{cut['macs']:,}",
            percent(cut["holdout_before"]),
            percent(cut["holdout_after"]),
            f"{cut['zeros']:,}" if "zeros" in cut else "–",
        )
        for cut in cuts
    ]
    return section("Cuts", element("div", table(titles, lines), class_="scroll"))


def taught_section(report: Mapping[str, Any]) -> Markup:
    """A line for each training that had a teacher; empty where none had."""
    lines = [(step, learning_text(learning)) for step, learning in (report.get("taught") or {}).items()]
    if not lines:
        return Markup()
    return section(
        "Taught", element("div", table(("training", "what it learns from"), lines), class_="scroll")
    )


def ensemble_note(report: Mapping[str, Any]) -> Markup:
    """A sentence on the ensemble, if there is one."""
    together = report.get("ensemble")
    if not together:
        return Markup()
    return note(
        f"The mean of the probabilities of all {together['members']} networks above reaches "
        f"{percent(together['test_accuracy'])} on the test images."
    )
