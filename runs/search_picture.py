"""The picture of a search: what every cut did, over the operations that it left."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from secateur.runs.axes import (
    Axes,
    frame,
    loss_span,
    percent_ticks,
    plain_ticks,
    rule,
    series,
    span,
    svg,
    text,
    x_axis,
)
from secateur.runs.markup import Markup, element, join
from secateur.runs.wording import fit, percent

# Pixels: two panels of curves, below them a row for each group that was cut.
LEFT, WIDTH, RIGHT_MARGIN = 150, 760, 20
LOSS_TOP, ACCURACY_TOP, CUTS_TOP = 34, 190, 346
CURVE_HEIGHT, ROW, BLOCK, FOOT = 110, 16, 11, 44
NAME_SIZE = 22  # characters
RING = 6  # radius


def search_picture(report: dict) -> Markup:
    """Loss, accuracy and the group that was cut, over the operations left; time runs to the right.

    Reads of a report `search` (a row for the whole network, then one for each cut; empty for fewer than
    two), `widths` for the order of the groups, the target rate and the teachers.
    """
    search = report.get("search") or []
    if len(search) < 2:
        return Markup()
    target = (report.get("config") or {}).get("search_target_rate")
    rates = [row["rate"] for row in search]
    x = (rates[0], min(rates[-1], target or 1.0))
    names = _names(search, report.get("widths") or [])
    loss = Axes(x, loss_span(r["loss"] for r in search), LEFT, LOSS_TOP, WIDTH, CURVE_HEIGHT)
    share = span((r["accuracy"] for r in search), 0.02, 0, 1)
    accuracy = Axes(x, share, LEFT, ACCURACY_TOP, WIDTH, CURVE_HEIGHT)
    cuts = Axes(x, (0, len(names)), LEFT, CUTS_TOP, WIDTH, ROW * len(names))
    bottom = cuts.top + cuts.height
    body = [
        frame(loss, "loss on the search images", plain_ticks(loss.y)),
        series(loss, [(r["rate"], r["loss"]) for r in search], "one"),
        *(_ring(loss, search[t], t) for t in teachers(report) if search[t]["loss"] is not None),
        frame(accuracy, "accuracy on the search images", percent_ticks(accuracy.y)),
        series(accuracy, [(r["rate"], r["accuracy"]) for r in search], "one", percent),
        _cuts(cuts, search, names),
        *(x_axis(axes, percent_ticks(sorted(x), 10)) for axes in (loss, accuracy, cuts)),
        text(LEFT + WIDTH, bottom + FOOT - 8, "operations left →", "end", "label"),
        _target(loss, target, bottom),
    ]
    label = f"Search: {len(search) - 1} cuts, operations {rates[0]:.0%} to {rates[-1]:.1%}"
    return svg(LEFT + WIDTH + RIGHT_MARGIN, bottom + FOOT, label, body, "wide")


def teachers(report: dict) -> list[int]:
    """Rows of the search whose networks teach in the fine-tuning."""
    chosen = (report.get("bank") or {}).get("teachers", [])
    return [t for t in chosen if t < len(report.get("search") or [])]


def _names(search: Sequence[dict], widths: Sequence[dict]) -> list[str]:
    """The groups that were cut, in the order of the network."""
    cut = [row["group"] for row in search[1:]]
    return list(dict.fromkeys(g for g in [*(w["group"] for w in widths), *cut] if g in cut))


def _cuts(axes: Axes, search: Sequence[dict], names: Sequence[str]) -> Markup:
    """A row per group; a block spans the operations that a cut removed."""
    parts: list[object] = [text(axes.left, axes.top - 10, "group that was cut", class_="title")]
    for k, name in enumerate(names):
        y = axes.top + ROW * k
        parts.append(text(axes.left - 8, y + 12, fit(name, NAME_SIZE), "end", "name"))
        parts.append(rule(axes.left, y + ROW, axes.left + axes.width, y + ROW))
    for step, (before, row) in enumerate(itertools.pairwise(search), 1):
        if row["group"] in names:
            parts.append(_block(axes, before, row, names.index(row["group"]), step))
    return join(parts)


def _block(axes: Axes, before: dict, row: dict, line: int, step: int) -> Markup:
    (start, _), (end, _) = axes.at(before["rate"], 0), axes.at(row["rate"], 0)
    hint = f"step {step}: {row['group']} to {row['width']} channels, {row['rate']:.1%} left"
    return element(
        "rect",
        element("title", hint),
        x=start + 0.5,
        y=axes.top + ROW * line + 3,
        width=max(end - start - 1, 1.0),
        height=BLOCK,
        class_="bar after",
    )


def _ring(axes: Axes, row: dict, step: int) -> Markup:
    x, y = axes.at(row["rate"], row["loss"])
    hint = element("title", f"teacher: step {step}, loss {row['loss']:.4f}")
    return element("circle", hint, cx=x, cy=y, r=RING, class_="ring")


def _target(axes: Axes, target: float | None, bottom: float) -> Markup:
    if target is None:
        return Markup()
    x, _ = axes.at(target, axes.y[0])
    line = element("line", x1=x, y1=axes.top, x2=x, y2=bottom, class_="goal")
    return join([line, text(x, axes.top - 6, f"target {100 * target:g} %", "end", "label")])
