"""Data to pixels, round numbers on the axes, and the lines, curves and texts of SVG pictures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from secateur.runs.markup import Markup, element, join
from secateur.runs.wording import short

Point = tuple[float, float | None]

DOTS = 20  # up to so many points a curve shows each of them


def ticks(low: float, high: float, count: int = 4, whole: bool = False) -> list[float]:
    """Round numbers in [low, high], a multiple of 1, 2 or 5 apart, about `count` of them."""
    wanted = (high - low) / count
    power = 10.0 ** math.floor(math.log10(wanted))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= wanted * (1 - 1e-9))
    step = max(1.0, step) if whole else step
    return [
        round(k * step, 12) for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ]


@dataclass(frozen=True)
class Axes:
    """Data → pixels of one panel. `x` runs from its first to its second value, left to right; `y` upwards."""

    x: tuple[float, float]
    y: tuple[float, float]
    left: float
    top: float
    width: float
    height: float
    log: bool = False

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Pixels of a point."""
        low, high, value = (math.log10(v) for v in (*self.y, y)) if self.log else (*self.y, y)
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        return self.left + across * self.width, self.top + self.height * (1 - (value - low) / (high - low))


def span(
    values: Iterable[float | None], least: float, low: float = -math.inf, high: float = math.inf
) -> tuple[float, float]:
    """A range around values, at least `least` wide (noise must not fill a panel), cut off at low and high."""
    known = [v for v in values if v is not None] or [0.0]
    middle, half = (min(known) + max(known)) / 2, max(max(known) - min(known), least) * 0.58
    return max(low, middle - half), min(high, middle + half)


def loss_span(values: Iterable[float | None]) -> tuple[float, float]:
    """The range for losses: never below zero, at least a fiftieth of the largest wide."""
    known = [v for v in values if v is not None]
    return span(known, 0.02 * max(map(abs, known), default=1) or 0.02, 0)


def plain_ticks(y: tuple[float, float]) -> list[tuple[float, str]]:
    """Ticks of a range of numbers, with their texts."""
    return [(v, f"{v:g}") for v in ticks(*y)]


def percent_ticks(y: Sequence[float], count: int = 4) -> list[tuple[float, str]]:
    """Ticks of a range of fractions, their texts in per cent."""
    return [(v, f"{100 * v:g} %") for v in ticks(*y, count)]


def decades(y: tuple[float, float], values: Sequence[float]) -> list[tuple[float, str]]:
    """The values themselves where they are few, else powers of ten."""
    few = sorted({round(v, 12) for v in values})
    if len(few) > 5:
        few = [10.0**k for k in range(math.ceil(math.log10(y[0])), math.floor(math.log10(y[1])) + 1)]
    return [(v, short(v)) for v in few]


# --- drawing ------------------------------------------------------------------------------------------------


def svg(width: float, height: float, label: str, body: Iterable[object], class_: str = "panel") -> Markup:
    """A picture of `width` × `height` pixels; `label` says what it shows to those who do not see it."""
    box = f"0 0 {width:g} {height:g}"
    return element(
        "svg", *body, viewBox=box, width=width, height=height, role="img", aria_label=label, class_=class_
    )


def text(x: float, y: float, words: str, anchor: str = "start", class_: str | None = None) -> Markup:
    """Words whose base line is at y and whose start, middle or end is at x."""
    return element("text", words, x=x, y=y, text_anchor=anchor, class_=class_)


def rule(x1: float, y1: float, x2: float, y2: float) -> Markup:
    """A thin line behind the data."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_="rule")


def frame(axes: Axes, title: str, marks: Iterable[tuple[float, str]]) -> Markup:
    """The title of a panel, and a rule with its text for each mark on the y axis."""
    right = axes.left + axes.width
    parts = [text(axes.left, axes.top - 10, title, class_="title")]
    for value, words in marks:
        _, y = axes.at(axes.x[0], value)
        parts += [rule(axes.left, y, right, y), text(axes.left - 6, y + 4, words, "end", "label")]
    return join(parts)


def x_axis(axes: Axes, marks: Iterable[tuple[float, str]]) -> Markup:
    """The x axis, with its marks and their texts below."""
    bottom = axes.top + axes.height
    parts = [element("line", x1=axes.left, y1=bottom, x2=axes.left + axes.width, y2=bottom, class_="axis")]
    for value, words in marks:
        x, _ = axes.at(value, axes.y[0])
        parts += [
            element("line", x1=x, y1=bottom, x2=x, y2=bottom + 4, class_="axis"),
            text(x, bottom + 16, words, "middle", "label"),
        ]
    return join(parts)


def series(
    axes: Axes, points: Sequence[Point], class_: str, show: Callable[[float], str] = lambda v: f"{v:.4g}"
) -> Markup:
    """A curve; unknown values interrupt it."""
    runs: list[list[Point]] = [[]]
    for point in points:
        if point[1] is None or (axes.log and point[1] <= 0):
            runs.append([])
        else:
            runs[-1].append(point)
    parts = [polyline([axes.at(*p) for p in run], f"curve {class_}") for run in runs if len(run) > 1]
    every = len(points) <= DOTS
    parts += [dot(axes, p, class_, show) for run in runs for p in run if every or len(run) == 1]
    return join(parts)


def dot(axes: Axes, point: Point, class_: str, show: Callable[[float], str]) -> Markup:
    """A point of a curve; a pointer over it reads its value."""
    x, y = axes.at(*point)
    return element("circle", element("title", show(point[1])), cx=x, cy=y, r=3, class_=f"dot {class_}")


def polyline(places: Sequence[tuple[float, float]], class_: str) -> Markup:
    """A line through pixels."""
    return element("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in places), class_=class_)
