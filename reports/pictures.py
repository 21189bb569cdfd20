"""The pictures of a report. Every one has a title, axes and units, and shows its values on hover."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.transforms import IdentityTransform, blended_transform_factory

from secateur.reports.drawing import (
    AMBER,
    BLUE,
    COLOURS,
    GREEN,
    MONO,
    SOFT,
    Picture,
    figure,
    picture,
    settings,
)
from secateur.reports.panels import WIDTH, curves, hint, key, panel, set_range, two_axes
from secateur.reports.progress import search, training
from secateur.reports.words import (
    Report,
    accuracy_of,
    clean,
    fit,
    in_percent,
    marked,
    measured,
    part_of,
    short,
    si,
)

ROW = 18  # pixels, of bars, one for each group
COSTS = (
    ("macs", "Accuracy and MACs", "MACs per image", si),
    ("ms_litert", "Accuracy and time, LiteRT", "ms per batch", short),
    ("ms_frozen", "Accuracy and time, TensorFlow", "ms per batch", short),
)


def draw(name: str, report: Report, themed: bool = True) -> list[Picture]:
    """The panels of a picture of `PICTURES`; none where the report has nothing to show in it."""
    with settings():
        return [picture(drawn, themed) for drawn in PICTURES[name](marked(clean(report)))]


# --- widths -------------------------------------------------------------------------------------------------


def widths(report: Report) -> list[Figure]:
    """Bars for each stage: channels that stay, over channels before."""
    kinds = (("green", "stays"), ("pale", "removed"), ("stone", "group left whole"))
    marks = [Patch(color=COLOURS[colour], label=words) for colour, words in kinds]
    stages = _stages(report.get("widths") or [])
    return [key(marks), *(_stage(name, rows) for name, rows in stages.items())] if stages else []


def _stages(rows: Sequence[Report]) -> dict[str, list[Report]]:
    """Groups by the first number of names such as BasicBlock1.0_conv1; others follow their forerunner."""
    stages: dict[str, list[Report]] = {}
    stage = "0"
    for row in rows:
        found = re.match(r"\D+(\d+)\.", row["group"])
        stage = found[1] if found else stage
        stages.setdefault(stage, []).append(row)
    return stages


def _stage(name: str, rows: Sequence[Report]) -> Figure:
    before, after = ([row[key] for row in rows] for key in ("before", "after"))
    label = ", ".join(f"{row['group']} {row['before']} to {row['after']}" for row in rows)
    drawn = figure(WIDTH, 34 + ROW * len(rows), f"Channels of stage {name}: {label}")
    axes = panel(drawn, 134, 26, 112, ROW * len(rows))
    axes.set(xlim=(0, max(before)), ylim=(len(rows) - 0.5, -0.5), xticks=[])
    axes.set_yticks(range(len(rows)), [fit(row["group"]) for row in rows], **MONO)
    axes.grid(False)
    axes.spines.bottom.set_visible(False)
    top = 1 - 14 / drawn.bbox.height
    drawn.text(0, top, f"Stage {name}", size=13, weight="bold")
    drawn.text(1, top, f"{sum(after)} of {sum(before)} channels", ha="right", **SOFT)
    place = blended_transform_factory(drawn.transFigure, axes.transData)
    for line, row in enumerate(rows):
        cut = row["after"] < row["before"]
        words = f"{row['after']} / {row['before']}" if cut else str(row["after"])
        drawn.text(1, line, words, ha="right", va="center", transform=place, **SOFT)
        for length, colour in ((row["before"], "pale"), (row["after"], "green" if cut else "stone")):
            (bar,) = axes.barh(line, length, 13 / ROW, color=COLOURS[colour])
            hint(bar, f"{row['group']}: {words} channels")
    return drawn


# --- costs --------------------------------------------------------------------------------------------------


def costs(report: Report) -> list[Figure]:
    """Test accuracy, or that of the hold-out, over MACs and both times, the networks in their order."""
    rows = [row for row in report.get("rows") or [] if accuracy_of(row) is not None]
    timed = [(cost, [row for row in rows if row.get(cost[0]) is not None]) for cost in COSTS]
    return [_cost(known, *cost) for cost, known in timed if known]


def _cost(rows: Sequence[Report], cost: str, title: str, unit: str, show: Callable[[float], str]) -> Figure:
    texts = [f"{row['name']}: {show(row[cost])}, {measured(accuracy_of(row), row)}" for row in rows]
    scale = 100 if in_percent(rows[0]) else 1
    counted = f"{'% of' if scale == 100 else 'on'} the {part_of(rows[0])} images"
    axes = two_axes(title, unit, counted, f"{title}: {'; '.join(texts)}")
    x, y = [row[cost] for row in rows], [scale * accuracy_of(row) for row in rows]
    axes.set_xlim(0, 1.3 * max(x) or 1)
    set_range(axes, [accuracy_of(row) for row in rows], scale)
    axes.locator_params(axis="x", nbins=3)
    axes.xaxis.set_major_formatter(lambda value, _: show(value) if value else "0")
    axes.plot(x, y, color=COLOURS["stone"], lw=1, ls=(0, (2, 4)), clip_on=False)
    for *place, colour, words in zip(x, y, itertools.cycle((BLUE, AMBER, GREEN)), texts, strict=False):
        (dot,) = axes.plot(*place, "o", ms=10, mew=0, color=colour)
        hint(dot, words)
    _name(axes, axes.transData.transform(list(zip(x, y, strict=True))), [fit(row["name"]) for row in rows])
    return axes.figure


def _name(axes: Axes, dots: np.ndarray, names: Sequence[str]) -> None:
    """Names beside dots (n, 2) in pixels: on the side that has room and where it hides the fewest others."""
    heights = _apart(dots[:, 1], 15)
    for name, x, height in zip(names, dots[:, 0], heights, strict=True):
        length = 9 + 7 * len(name)
        near = dots[np.abs(dots[:, 1] - height) < 12, 0] - x
        right, left = ((0 < near) & (near < length)).sum(), ((near < 0) & (-length < near)).sum()
        side = -1 if right > left or x + length > axes.figure.bbox.width else 1
        align = {"ha": "left" if side == 1 else "right", "va": "center", "transform": IdentityTransform()}
        axes.text(x + 9 * side, height, name, **align)


def _apart(heights: Sequence[float], distance: float) -> list[float]:
    """Moves labels down until none overlaps the one above."""
    placed = list(heights)
    order = sorted(range(len(placed)), key=lambda label: -placed[label])
    for above, below in itertools.pairwise(order):
        placed[below] = min(placed[below], placed[above] - distance)
    return placed


# --- sensitivity --------------------------------------------------------------------------------------------


def sensitivity(report: Report) -> list[Figure]:
    """For each group the accuracy over the share of its channels that stays; all panels have the same axes.

    Reads `sensitivity` of a report, or such an object by itself: `ratios`, `whole` (accuracy of the whole
    network) and `curves` (group → accuracies), as `Sensitivity.to_json` of `pruning.choose` writes it.
    """
    found = report.get("sensitivity") or report
    groups = found.get("curves") or {}
    scale = 100 if in_percent(report) else 1
    every = [found.get("whole", 0), *itertools.chain(*groups.values())]
    ends = 1.05 * scale * min([0, *every]), 1.05 * scale * max([1e-3, *every])
    return [_group(name, values, found, ends, scale) for name, values in groups.items()]


def _group(
    name: str, values: Sequence[float], found: Report, ends: tuple[float, float], scale: int
) -> Figure:
    whole = measured(found["whole"], {"in_percent": scale == 100})
    label = f"Accuracy over the channels kept of {name}; {whole} with all of them"
    unit = "accuracy, %" if scale == 100 else ""
    axes = two_axes("", "channels kept, %", unit, label, (156, 146), (42, 22, 102, 82), 26)
    axes.figure.text(0, 1 - 11 / 146, fit(name), **MONO)
    kept = [100 * ratio for ratio in (*found["ratios"], 1.0)]
    curves(axes, kept, [(GREEN, "-", [*values, found["whole"]])], scale)
    axes.set(xlim=(0, 100), ylim=ends, xticks=(0, 50, 100))
    axes.locator_params(axis="y", nbins=2)
    return axes.figure


# --- landscapes ---------------------------------------------------------------------------------------------


def landscapes(report: Report) -> list[Figure]:
    """For each step the loss on its plane, and the density of the Hessian's eigenvalues."""
    found = (report.get("landscapes") or {}).items()
    drawn = [(name, one, draw) for name, one in found for key, draw in _OF_LANDSCAPES.items() if key in one]
    return [draw(name, one) for name, one, draw in drawn]


def _plane(name: str, found: Report) -> Figure:
    """Contours of the loss, evenly apart in its logarithm: a plane reaches over many powers of ten."""
    at, values = found["at"], np.maximum(np.array(found["plane"], float), 1e-12)
    low, high = float(values.min()), float(values.max())
    label = f"Loss around {name}: {found['loss']:.3g} in the middle, {low:.3g} to {high:.3g} on the plane"
    axes = two_axes(f"Loss around {name}", "along a direction", "along another", label)
    for level in np.geomspace(low, max(high, low * 1.001), 10)[1:-1]:
        line = axes.contour(at, at, values.T, levels=[level], colors=COLOURS["green"], linewidths=1.5)
        hint(line, f"loss {level:.3g}")
    axes.grid(False)
    (dot,) = axes.plot(0, 0, "o", color=AMBER, mew=0)
    hint(dot, f"the network: {found['loss']:.4g}")
    return axes.figure


def _density(name: str, found: Report) -> Figure:
    """Shares of the Hessian's directions over their eigenvalues, the mean over all probes."""
    values, shares = (np.array(found[key], float) for key in ("values", "shares"))
    label = f"Eigenvalues of {name}: {found['smallest']:.3g} to {found['largest']:.3g}"
    axes = two_axes(f"Eigenvalues, {name}", "eigenvalue", "share of directions", label)
    axes.set_yscale("log")
    axes.set_ylim(1e-7, 2)
    axes.set_yticks([1e-6, 1e-4, 1e-2, 1])
    axes.yaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    for value, share in zip(values.ravel(), shares.ravel() / len(shares), strict=True):
        if share > 1e-7:
            (mark,) = axes.plot([value, value], [1e-7, share], color=BLUE, lw=1.5)
            hint(mark, f"{value:.4g}: {share:.2g}")
    return axes.figure


_OF_LANDSCAPES = {"plane": _plane, "values": _density}

PICTURES: dict[str, Callable[[Report], list[Figure]]] = {
    function.__name__: function for function in (widths, search, training, costs, sensitivity, landscapes)
}
