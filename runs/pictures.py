"""Pictures of a report as inline SVG: no script, no font, no other file; colours come by CSS."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence

from secateur.runs.axes import (
    Axes,
    decades,
    frame,
    loss_span,
    percent_ticks,
    plain_ticks,
    polyline,
    series,
    span,
    svg,
    text,
    ticks,
    x_axis,
)
from secateur.runs.markup import Markup, element, join
from secateur.runs.wording import duration, fit, percent, short, si

# Lengths are pixels. A panel with axes:
PANEL_WIDTH, PANEL_HEIGHT = 300, 190
PANEL = {"left": 52, "top": 28, "width": 236, "height": 120}  # its axes
PANEL_FOOT = PANEL_HEIGHT - 4  # base line of the title of x
PANEL_MIDDLE = PANEL["left"] + PANEL["width"] / 2
LABEL_GAP = 15  # between the names of two networks, one above the other
# A panel of bars, one a row: group, bar, channels.
WIDTHS_TOP, WIDTHS_ROW, WIDTHS_BAR = 26, 18, 13
WIDTHS_NAME_END, WIDTHS_LEFT, WIDTHS_LENGTH = 128, 134, 112
NAME_SIZE = 20  # characters
# Bars of seconds: step, bar, time.
TIME_WIDTH, TIME_TOP, TIME_ROW, TIME_BAR = 640, 6, 24, 17
TIME_NAME_END, TIME_LEFT, TIME_LENGTH = 92, 100, 440

WIDTHS_KEY = (("after", "stays"), ("before", "removed"), ("whole", "group left whole"))  # class, meaning
CURVES = {
    "loss": "two",
    "holdout_loss": "one",
    "accuracy": "two",
    "holdout_accuracy": "one",
    "learning_rate": "three",
}


def widths_picture(widths: Sequence[dict]) -> Markup:
    """A panel of bars per stage: channels that stay, over channels before."""
    return join(_stage_panel(number, rows) for number, rows in _stages(widths))


def training_picture(phase: str, rows: Sequence[dict]) -> Markup:
    """Three panels of a phase over its epochs, at least two: loss, accuracy, learning rate."""
    epochs = [row["step"] for row in rows]
    x = (min(epochs), max(epochs))
    curves = {name: [(r["step"], r.get(name)) for r in rows] for name in CURVES}
    values = {name: [y for _, y in points if y is not None] for name, points in curves.items()}
    rates = [v for v in values["learning_rate"] if v > 0]
    loss = Axes(x, loss_span(values["loss"] + values["holdout_loss"]), **PANEL)
    accuracy = Axes(x, span(values["accuracy"] + values["holdout_accuracy"], 0.02, 0, 1), **PANEL)
    rate = Axes(x, (min(rates) / 2, max(rates) * 2) if rates else (0.1, 1), **PANEL, log=True)
    panels = (
        (loss, "loss", plain_ticks(loss.y), ("loss", "holdout_loss"), short),
        (accuracy, "accuracy", percent_ticks(accuracy.y), ("accuracy", "holdout_accuracy"), percent),
        (rate, "learning rate", decades(rate.y, rates), ("learning_rate",), short),
    )
    return join(
        svg(
            PANEL_WIDTH,
            PANEL_HEIGHT,
            f"{phase}: {title} over {len(rows)} epochs",
            [
                frame(axes, title, marks),
                x_axis(axes, [(e, f"{e:g}") for e in ticks(*x, whole=True)]),
                _x_title(axes, "epoch"),
                *(series(axes, curves[name], CURVES[name], show) for name in names),
            ],
        )
        for axes, title, marks, names, show in panels
    )


def cost_picture(rows: Sequence[dict]) -> Markup:
    """Test accuracy over MACs and over both times, from zero, the networks joined in their order."""
    costs = (
        ("macs", "MACs", si),
        ("ms_litert", "ms per batch, LiteRT", short),
        ("ms_frozen", "ms per batch, TensorFlow", short),
    )
    return join(_cost_panel(rows, *cost) for cost in costs)


def seconds_picture(seconds: dict[str, float]) -> Markup:
    """A bar per step."""
    most = max(seconds.values()) or 1.0
    body = []
    for k, (name, value) in enumerate(seconds.items()):
        y, length = TIME_TOP + TIME_ROW * k, TIME_LENGTH * value / most
        width = max(length, 1.0)
        body += [
            text(TIME_NAME_END, y + 13, name, "end"),
            element("rect", x=TIME_LEFT, y=y, width=width, height=TIME_BAR, class_="bar after"),
            text(TIME_LEFT + 8 + length, y + 13, duration(value), "start", "label"),
        ]
    label = "Time per step: " + ", ".join(f"{name} {duration(value)}" for name, value in seconds.items())
    return svg(TIME_WIDTH, TIME_TOP + TIME_ROW * len(seconds), label, body, "medium")


# --- parts -------------------------------------------------------------------------------------------------


def _stages(widths: Sequence[dict]) -> list[tuple[str, list[dict]]]:
    """Groups by the first number of names such as BasicBlock1.0_conv1; others follow their forerunner."""
    stages: dict[str, list[dict]] = {}
    stage = "0"
    for row in widths:
        found = re.match(r"\D+(\d+)\.", row["group"])
        stage = found[1] if found else stage
        stages.setdefault(stage, []).append(row)
    return list(stages.items())


def _stage_panel(stage: str, rows: Sequence[dict]) -> Markup:
    before, after = (sum(r[key] for r in rows) for key in ("before", "after"))
    unit = WIDTHS_LENGTH / max(r["before"] for r in rows)
    body = [
        text(0, 14, f"Stage {stage}", class_="title"),
        text(PANEL_WIDTH, 14, f"{after} of {before}", "end", "label"),
        *(_width(row, WIDTHS_TOP + WIDTHS_ROW * k, unit) for k, row in enumerate(rows)),
    ]
    label = f"Stage {stage}: " + ", ".join(f"{r['group']} {r['before']} to {r['after']}" for r in rows)
    return svg(PANEL_WIDTH, WIDTHS_TOP + 4 + WIDTHS_ROW * len(rows), label, body)


def _width(row: dict, y: float, unit: float) -> Markup:
    kept, cut = row["after"], row["after"] < row["before"]
    bar = {"x": WIDTHS_LEFT, "y": y}
    return join(
        [
            text(WIDTHS_NAME_END, y + 11, fit(row["group"], NAME_SIZE), "end", "name"),
            _bar(**bar, width=unit * row["before"], kind="before"),
            _bar(**bar, width=unit * kept, kind="after" if cut else "whole"),
            text(PANEL_WIDTH, y + 11, f"{kept} / {row['before']}" if cut else str(kept), "end", "label"),
        ]
    )


def _bar(x: float, y: float, width: float, kind: str) -> Markup:
    return element("rect", x=x, y=y, width=width, height=WIDTHS_BAR, class_=f"bar {kind}")


def _x_title(axes: Axes, words: str) -> Markup:
    return text(axes.left + axes.width, PANEL_FOOT, words, "end", "label")


def _cost_panel(rows: Sequence[dict], key: str, title: str, show: Callable[[float], str]) -> Markup:
    known = [r for r in rows if r.get(key) is not None and r.get("test_accuracy") is not None]
    if not known:
        return Markup()
    x = (0, 1.12 * max(r[key] for r in known) or 1)
    axes = Axes(x, span((r["test_accuracy"] for r in known), 0.02, 0, 1), **PANEL)
    places = [axes.at(r[key], r["test_accuracy"]) for r in known]
    heights = _apart([y for _, y in places], LABEL_GAP)
    costs = [(show(r[key]), percent(r["test_accuracy"])) for r in known]
    label = ", ".join(f"{r['name']} {' '.join(cost)}" for r, cost in zip(known, costs, strict=True))
    body = [
        frame(axes, "test accuracy", percent_ticks(axes.y)),
        x_axis(axes, [(v, show(v) if v else "0") for v in ticks(*axes.x, 3)]),
        polyline(places, "way"),
        *(
            _network(r["name"], ", ".join(cost), place, height, k)
            for k, (r, cost, place, height) in enumerate(zip(known, costs, places, heights, strict=True))
        ),
        _x_title(axes, title),
    ]
    return svg(PANEL_WIDTH, PANEL_HEIGHT, f"Test accuracy over {title}: {label}", body)


def _network(name: str, cost: str, place: tuple[float, float], height: float, number: int) -> Markup:
    """A dot, and at `height` its name on the side that has room."""
    x, y = place
    side, anchor = (9, "start") if x < PANEL_MIDDLE else (-9, "end")
    hint = element("title", f"{name}: {cost}")
    circle = element("circle", hint, cx=x, cy=y, r=5, class_=f"dot n{number % 3}")
    return join([circle, text(x + side, height + 4, name, anchor)])


def _apart(heights: Sequence[float], distance: float) -> list[float]:
    """Moves labels down until none overlaps the one above."""
    placed = list(heights)
    order = sorted(range(len(placed)), key=placed.__getitem__)
    for above, below in itertools.pairwise(order):
        placed[below] = max(placed[below], placed[above] + distance)
    return placed
