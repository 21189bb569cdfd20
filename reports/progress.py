"""Pictures of what changes over time: a training by its epochs, a search by the operations that it left."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import partial

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import blended_transform_factory

from secateur.reports.drawing import AMBER, BLUE, COLOURS, GREEN, MONO, SOFT, figure
from secateur.reports.panels import curves, hint, key, panel, set_unit, two_axes
from secateur.reports.words import Report, fit, in_percent

DASHED = (0, (2.5, 1.5))
CURVES = (("hold-out", GREEN, "-"), ("training", BLUE, DASHED), ("learning rate", AMBER, "-"))
RING = {"marker": "o", "ms": 12, "mfc": "none", "mec": AMBER, "mew": 2, "ls": "none"}


# --- training -----------------------------------------------------------------------------------------------


def training(report: Report) -> list[Figure]:
    """Loss, accuracy and learning rate over `epochs`, for every phase that has more than one."""
    phases: dict[str, list[Report]] = {}
    for row in report.get("epochs") or []:
        phases.setdefault(row["phase"], []).append(row)
    share = all(map(in_percent, report.get("epochs") or []))
    draws = (
        partial(_two_curves, "Loss", "mean per image", 1),
        partial(_two_curves, "Accuracy", "% of the images" if share else "", 100 if share else 1),
        _rates,
    )
    drawn = [draw(rows) for rows in phases.values() if len(rows) > 1 for draw in draws]
    marks = [Line2D([], [], color=colour, ls=line, label=name) for name, colour, line in CURVES]
    return [key(marks), *drawn] if drawn else []


def _two_curves(title: str, unit: str, scale: int, rows: Sequence[Report]) -> Figure:
    axes, name = _epochs(rows, title, unit), title.lower()
    trained, held = ([row.get(key) for row in rows] for key in (name, f"holdout_{name}"))
    curves(axes, [row["step"] for row in rows], [(BLUE, DASHED, trained), (GREEN, "-", held)], scale)
    return axes.figure


def _rates(rows: Sequence[Report]) -> Figure:
    axes = _epochs(rows, "Learning rate", "logarithmic")
    rates = [row.get("learning_rate") or None for row in rows]
    known = sorted({round(rate, 12) for rate in rates if rate})
    curves(axes, [row["step"] for row in rows], [(AMBER, "-", rates)], 1)
    if known:
        axes.set(yscale="log", ylim=(known[0] / 2, known[-1] * 2))
        axes.yaxis.set_major_locator(LogLocator(numticks=5))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter("{x:.3g}")
    if 0 < len(known) < 6:
        axes.set_yticks(known)
    return axes.figure


def _epochs(rows: Sequence[Report], title: str, unit: str) -> Axes:
    phase = rows[0]["phase"]
    axes = two_axes(f"{title}, {fit(phase)}", "epoch", unit, f"{phase}: {title} over {len(rows)} epochs")
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=(1, 2, 5, 10), integer=True))
    axes.set_xlim(rows[0]["step"], rows[-1]["step"])
    return axes


# --- search -------------------------------------------------------------------------------------------------


def search(report: Report) -> list[Figure]:
    """Loss, accuracy and the group that was cut, over the operations left; time runs to the right.

    Reads `search` (a row for the whole network, then one for each cut; nothing is drawn for fewer than two),
    `widths` for the order of the groups, the target rate and the teachers of the bank.
    """
    rows = report.get("search") or []
    if len(rows) < 2:
        return []
    names = _cut_groups(rows, report.get("widths") or [])
    drawn = figure(930, 374 + 16 * len(names), f"Search: {len(rows) - 1} cuts, {rows[-1]['rate']:.1%} left")
    places = ((34, 110), (184, 110), (334, 16 * len(names)))  # top and height of the panels
    loss, accuracy, cuts = (panel(drawn, 150, top, 760, height) for top, height in places)
    _curve(loss, rows, "loss", "mean per image", 1)
    share = in_percent(report)
    _curve(accuracy, rows, "accuracy", "% of them" if share else "", 100 if share else 1)
    _blocks(cuts, rows, names)
    program = (report.get("config") or {}).get("program") or []
    target = next((step["target"] for step in program if step["kind"] == "search_ekg"), None)
    for axes in (loss, accuracy, cuts):
        axes.set_xlim(100 * rows[0]["rate"], 100 * min(rows[-1]["rate"], target or 1))
        axes.locator_params(axis="x", nbins=10)
        axes.tick_params(labelbottom=axes is cuts)
    if target:
        _target(loss, cuts, target)
    teachers = [step for step in (report.get("bank") or {}).get("teachers", []) if step < len(rows)]
    _rings(loss, {step: rows[step] for step in teachers})
    return [key([Line2D([], [], **RING, label="teaches in the fine-tuning")]), drawn] if teachers else [drawn]


def _cut_groups(rows: Sequence[Report], widths: Sequence[Report]) -> list[str]:
    """The groups that were cut, in the order of the network."""
    cut = [row["group"] for row in rows[1:]]
    return list(dict.fromkeys(group for group in (*(row["group"] for row in widths), *cut) if group in cut))


def _curve(axes: Axes, rows: Sequence[Report], name: str, unit: str, scale: int) -> None:
    axes.set_title(f"{name.capitalize()} on the search images")
    set_unit(axes, unit, 52)
    curves(axes, [100 * row["rate"] for row in rows], [(GREEN, "-", [row[name] for row in rows])], scale)


def _rings(axes: Axes, teachers: Mapping[int, Report]) -> None:
    for step, row in teachers.items():
        if row["loss"] is not None:
            (ring,) = axes.plot(100 * row["rate"], row["loss"], **RING)
            hint(ring, f"teacher: step {step}, loss {row['loss']:.4f}")


def _blocks(axes: Axes, rows: Sequence[Report], names: Sequence[str]) -> None:
    """A row per group; a block spans the operations that a cut removed."""
    axes.set_title("Group that was cut")
    axes.set_xlabel("operations left, % of the whole network →", loc="right")
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), map(fit, names), **MONO)
    for step, (before, row) in enumerate(itertools.pairwise(rows), 1):
        start, end = 100 * before["rate"], 100 * row["rate"]
        (block,) = axes.barh(
            names.index(row["group"]), end - start, 0.7, left=start, color=GREEN, ec=COLOURS["card"], lw=0.5
        )
        hint(block, f"step {step}: {row['group']} to {row['width']} channels, {row['rate']:.1%} left")


def _target(top: Axes, bottom: Axes, target: float) -> None:
    """A line across all panels."""
    drawn, ends = top.figure, (bottom.get_position().y0, top.get_position().y1 + 0.01)
    place = blended_transform_factory(top.transData, drawn.transFigure)
    drawn.add_artist(Line2D([100 * target] * 2, ends, transform=place, color=AMBER, lw=1, ls=(0, (4, 4))))
    words = f"target {100 * target:g} %"
    drawn.text(100 * target, ends[1] + 0.005, words, ha="right", transform=place, **SOFT)
