"""The pictures of a report as inline SVG: no script, no font, no other file; colours come by CSS."""

from __future__ import annotations

import html
import itertools
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

Point = tuple[float, float | None]

DOTS = 20  # up to so many points a curve shows each of them
PANEL = {"left": 52, "top": 28, "width": 236, "height": 120}


class Markup(str):
    """Text that is markup already; every other string is escaped on its way into an element."""


def element(name: str, /, *children: object, **attributes: object) -> Markup:
    """`<name attribute="…">children</name>`; `class_` is class, `a_b` is a-b, None leaves one out."""
    pairs = (
        (key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items() if value is not None
    )
    opening = name + "".join(f' {key}="{html.escape(_plain(value))}"' for key, value in pairs)
    if name == "meta":
        return Markup(f"<{opening}/>")
    return Markup(f"<{opening}>{join(children)}</{name}>")


def join(parts: Iterable[object]) -> Markup:
    """Parts in a row, what is not `Markup` escaped."""
    return Markup("".join(p if isinstance(p, Markup) else html.escape(_plain(p)) for p in parts))


def _plain(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def ticks(low: float, high: float, count: int = 4, whole: bool = False) -> list[float]:
    """Round numbers in [low, high], a multiple of 1, 2 or 5 apart, about `count` of them."""
    wanted = (high - low) / count
    power = 10.0 ** math.floor(math.log10(wanted))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= wanted * (1 - 1e-9))
    step = max(1.0, step) if whole else step
    return [
        round(k * step, 12) for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ]


def duration(seconds: float) -> str:
    """1.2 s, 3 min 5 s, 2 h 7 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


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


# --- pictures ----------------------------------------------------------------------------------------------


def widths_picture(widths: Sequence[dict]) -> Markup:
    """A panel of bars per stage: channels that stay, over channels before."""
    return join(_stage_panel(number, rows) for number, rows in _stages(widths))


def search_picture(
    search: Sequence[dict], widths: Sequence[dict], target: float | None, teachers: Sequence[int]
) -> Markup:
    """Loss, accuracy and the group that was cut, over the operations left; time runs to the right."""
    rates = [row["rate"] for row in search]
    x = (rates[0], min(rates[-1], target or 1.0))
    cut = [row["group"] for row in search[1:]]
    names = list(dict.fromkeys(g for g in [*(w["group"] for w in widths), *cut] if g in cut))
    loss = Axes(x, _loss_span(r["loss"] for r in search), 150, 34, 760, 110)
    accuracy = Axes(x, span((r["accuracy"] for r in search), 0.02, 0, 1), 150, 190, 760, 110)
    cuts = Axes(x, (0, len(names)), 150, 346, 760, 16 * len(names))
    height = cuts.top + cuts.height + 44
    body = [
        _frame(loss, "loss on the search images", _plain_ticks(loss.y)),
        _series(loss, [(r["rate"], r["loss"]) for r in search], "one"),
        *(_ring(loss, search[t], t) for t in teachers if search[t]["loss"] is not None),
        _frame(accuracy, "accuracy on the search images", _percent_ticks(accuracy.y)),
        _series(accuracy, [(r["rate"], r["accuracy"]) for r in search], "one", _percent),
        _cuts(cuts, search, names),
        *(_x_axis(axes, _percent_ticks(sorted(x), 10)) for axes in (loss, accuracy, cuts)),
        _text(150 + 760, height - 8, "operations left →", "end", "label"),
        _target(loss, target, cuts.top + cuts.height),
    ]
    return _svg(
        930,
        height,
        f"Search: {len(search) - 1} cuts, operations {rates[0]:.0%} to {rates[-1]:.1%}",
        body,
        "wide",
    )


def training_picture(phase: str, rows: Sequence[dict]) -> Markup:
    """Three panels of a phase over its epochs, at least two: loss, accuracy, learning rate."""
    epochs = [row["step"] for row in rows]
    x = (min(epochs), max(epochs))
    curves = {name: [(r["step"], r.get(name)) for r in rows] for name in _CURVES}
    values = {name: [y for _, y in points if y is not None] for name, points in curves.items()}
    rates = [v for v in values["learning_rate"] if v > 0]
    loss = Axes(x, _loss_span(values["loss"] + values["holdout_loss"]), **PANEL)
    accuracy = Axes(x, span(values["accuracy"] + values["holdout_accuracy"], 0.02, 0, 1), **PANEL)
    rate = Axes(x, (min(rates) / 2, max(rates) * 2) if rates else (0.1, 1), **PANEL, log=True)
    panels = (
        (loss, "loss", _plain_ticks(loss.y), ("loss", "holdout_loss"), _short),
        (accuracy, "accuracy", _percent_ticks(accuracy.y), ("accuracy", "holdout_accuracy"), _percent),
        (rate, "learning rate", _decades(rate.y, rates), ("learning_rate",), _short),
    )
    return join(
        _svg(
            300,
            190,
            f"{phase}: {title} over {len(rows)} epochs",
            [
                _frame(axes, title, marks),
                _x_axis(axes, [(e, f"{e:g}") for e in ticks(*x, whole=True)]),
                _text(axes.left + axes.width, 186, "epoch", "end", "label"),
                *(_series(axes, curves[name], _CURVES[name], show) for name in names),
            ],
        )
        for axes, title, marks, names, show in panels
    )


def cost_picture(rows: Sequence[dict]) -> Markup:
    """Test accuracy over MACs and over both times, from zero, the networks joined in their order."""
    costs = (
        ("macs", "MACs", si),
        ("ms_litert", "ms per batch, LiteRT", _short),
        ("ms_frozen", "ms per batch, TensorFlow", _short),
    )
    return join(_cost_panel(rows, *cost) for cost in costs)


def seconds_picture(seconds: dict[str, float]) -> Markup:
    """A bar per step."""
    top, most = 6, max(seconds.values()) or 1.0
    body = []
    for k, (name, value) in enumerate(seconds.items()):
        y, length = top + 24 * k, 440 * value / most
        body += [
            _text(92, y + 13, name, "end"),
            element("rect", x=100, y=y, width=max(length, 1.0), height=17, class_="bar after"),
            _text(108 + length, y + 13, duration(value), "start", "label"),
        ]
    label = "Time per step: " + ", ".join(f"{name} {duration(value)}" for name, value in seconds.items())
    return _svg(640, top + 24 * len(seconds), label, body, "medium")


# --- parts of pictures -------------------------------------------------------------------------------------

_CURVES = {
    "loss": "two",
    "holdout_loss": "one",
    "accuracy": "two",
    "holdout_accuracy": "one",
    "learning_rate": "three",
}


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
    unit = 112 / max(r["before"] for r in rows)
    body = [
        _text(0, 14, f"Stage {stage}", class_="title"),
        _text(300, 14, f"{after} of {before}", "end", "label"),
    ]
    for k, row in enumerate(rows):
        y = 26 + 18 * k
        kept, cut = row["after"], row["after"] < row["before"]
        body += [
            _text(128, y + 11, _fit(row["group"], 20), "end", "name"),
            element("rect", x=134, y=y, width=unit * row["before"], height=13, class_="bar before"),
            element(
                "rect", x=134, y=y, width=unit * kept, height=13, class_="bar after" if cut else "bar whole"
            ),
            _text(300, y + 11, f"{kept} / {row['before']}" if cut else str(kept), "end", "label"),
        ]
    label = f"Stage {stage}: " + ", ".join(f"{r['group']} {r['before']} to {r['after']}" for r in rows)
    return _svg(300, 30 + 18 * len(rows), label, body)


def _cuts(axes: Axes, search: Sequence[dict], names: Sequence[str]) -> Markup:
    """A row per group; a block spans the operations that a cut removed."""
    parts: list[object] = [_text(axes.left, axes.top - 10, "group that was cut", class_="title")]
    for k, name in enumerate(names):
        y = axes.top + 16 * k
        parts.append(_text(axes.left - 8, y + 12, _fit(name, 22), "end", "name"))
        parts.append(_rule(axes.left, y + 16, axes.left + axes.width, y + 16))
    for step in range(1, len(search)):
        row = search[step]
        if row["group"] in names:
            (start, _), (end, _) = axes.at(search[step - 1]["rate"], 0), axes.at(row["rate"], 0)
            y = axes.top + 16 * names.index(row["group"])
            hint = element(
                "title", f"step {step}: {row['group']} to {row['width']} channels, {row['rate']:.1%} left"
            )
            parts.append(
                element(
                    "rect",
                    hint,
                    x=start + 0.5,
                    y=y + 3,
                    width=max(end - start - 1, 1.0),
                    height=11,
                    class_="bar after",
                )
            )
    return join(parts)


def _ring(axes: Axes, row: dict, step: int) -> Markup:
    x, y = axes.at(row["rate"], row["loss"])
    return element(
        "circle",
        element("title", f"teacher: step {step}, loss {row['loss']:.4f}"),
        cx=x,
        cy=y,
        r=6,
        class_="ring",
    )


def _target(axes: Axes, target: float | None, bottom: float) -> Markup:
    if target is None:
        return Markup()
    x, _ = axes.at(target, axes.y[0])
    line = element("line", x1=x, y1=axes.top, x2=x, y2=bottom, class_="goal")
    return join([line, _text(x, axes.top - 6, f"target {100 * target:g} %", "end", "label")])


def _cost_panel(rows: Sequence[dict], key: str, title: str, show: Callable[[float], str]) -> Markup:
    known = [r for r in rows if r.get(key) is not None and r.get("test_accuracy") is not None]
    if not known:
        return Markup()
    axes = Axes(
        (0, 1.12 * max(r[key] for r in known) or 1),
        span((r["test_accuracy"] for r in known), 0.02, 0, 1),
        **PANEL,
    )
    places = [axes.at(r[key], r["test_accuracy"]) for r in known]
    heights = _apart([y for _, y in places], 15)
    marks = [
        join(
            [
                element(
                    "circle",
                    element("title", f"{r['name']}: {show(r[key])}, {_percent(r['test_accuracy'])}"),
                    cx=x,
                    cy=y,
                    r=5,
                    class_=f"dot n{k % 3}",
                ),
                _text(x + (9 if x < 170 else -9), height + 4, r["name"], "start" if x < 170 else "end"),
            ]
        )
        for k, (r, (x, y), height) in enumerate(zip(known, places, heights, strict=True))
    ]
    label = f"Test accuracy over {title}: " + ", ".join(
        f"{r['name']} {show(r[key])} {_percent(r['test_accuracy'])}" for r in known
    )
    body = [
        _frame(axes, "test accuracy", _percent_ticks(axes.y)),
        _x_axis(axes, [(v, show(v) if v else "0") for v in ticks(*axes.x, 3)]),
        _path(places, "way"),
        *marks,
        _text(288, 186, title, "end", "label"),
    ]
    return _svg(300, 190, label, body)


def _apart(heights: Sequence[float], distance: float) -> list[float]:
    """Moves labels down until none overlaps the one above."""
    placed = list(heights)
    order = sorted(range(len(placed)), key=placed.__getitem__)
    for above, below in itertools.pairwise(order):
        placed[below] = max(placed[below], placed[above] + distance)
    return placed


# --- primitives --------------------------------------------------------------------------------------------


def _svg(width: float, height: float, label: str, body: Iterable[object], class_: str = "panel") -> Markup:
    box = f"0 0 {width:g} {height:g}"
    return element(
        "svg", *body, viewBox=box, width=width, height=height, role="img", aria_label=label, class_=class_
    )


def _text(x: float, y: float, text: str, anchor: str = "start", class_: str | None = None) -> Markup:
    return element("text", text, x=x, y=y, text_anchor=anchor, class_=class_)


def _rule(x1: float, y1: float, x2: float, y2: float) -> Markup:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_="rule")


def _frame(axes: Axes, title: str, marks: Iterable[tuple[float, str]]) -> Markup:
    right = axes.left + axes.width
    parts = [_text(axes.left, axes.top - 10, title, class_="title")]
    for value, text in marks:
        _, y = axes.at(axes.x[0], value)
        parts += [_rule(axes.left, y, right, y), _text(axes.left - 6, y + 4, text, "end", "label")]
    return join(parts)


def _x_axis(axes: Axes, marks: Iterable[tuple[float, str]]) -> Markup:
    bottom = axes.top + axes.height
    parts = [element("line", x1=axes.left, y1=bottom, x2=axes.left + axes.width, y2=bottom, class_="axis")]
    for value, text in marks:
        x, _ = axes.at(value, axes.y[0])
        parts += [
            element("line", x1=x, y1=bottom, x2=x, y2=bottom + 4, class_="axis"),
            _text(x, bottom + 16, text, "middle", "label"),
        ]
    return join(parts)


def _series(
    axes: Axes, points: Sequence[Point], class_: str, show: Callable[[float], str] = lambda v: f"{v:.4g}"
) -> Markup:
    """A curve; unknown values interrupt it."""
    runs: list[list[Point]] = [[]]
    for point in points:
        if point[1] is None or (axes.log and point[1] <= 0):
            runs.append([])
        else:
            runs[-1].append(point)
    parts = [_path([axes.at(*p) for p in run], f"curve {class_}") for run in runs if len(run) > 1]
    every = len(points) <= DOTS
    parts += [_dot(axes, p, class_, show) for run in runs for p in run if every or len(run) == 1]
    return join(parts)


def _dot(axes: Axes, point: Point, class_: str, show: Callable[[float], str]) -> Markup:
    x, y = axes.at(*point)
    return element("circle", element("title", show(point[1])), cx=x, cy=y, r=3, class_=f"dot {class_}")


def _path(places: Sequence[tuple[float, float]], class_: str) -> Markup:
    return element("polyline", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in places), class_=class_)


def _loss_span(values: Iterable[float | None]) -> tuple[float, float]:
    known = [v for v in values if v is not None]
    return span(known, 0.02 * max(map(abs, known), default=1) or 0.02, 0)


def _plain_ticks(y: tuple[float, float]) -> list[tuple[float, str]]:
    return [(v, f"{v:g}") for v in ticks(*y)]


def _percent_ticks(y: Sequence[float], count: int = 4) -> list[tuple[float, str]]:
    return [(v, f"{100 * v:g} %") for v in ticks(*y, count)]


def _decades(y: tuple[float, float], values: Sequence[float]) -> list[tuple[float, str]]:
    """The values themselves where they are few, else powers of ten."""
    few = sorted({round(v, 12) for v in values})
    if len(few) > 5:
        few = [10.0**k for k in range(math.ceil(math.log10(y[0])), math.floor(math.log10(y[1])) + 1)]
    return [(v, _short(v)) for v in few]


def si(value: float) -> str:
    """40.8 M, 1.27 G."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def _short(value: float) -> str:
    return f"{value:.3g}"


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def _fit(text: str, size: int) -> str:
    return text if len(text) <= size else f"{text[: size - 1]}…"
