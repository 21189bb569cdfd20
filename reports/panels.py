"""What pictures are made of: axes with title and units, curves with values on hover, a key of colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from secateur.reports.drawing import HINT, figure
from secateur.reports.words import percent, short

WIDTH, HEIGHT = 300, 194  # pixels of a panel
FRAME = (68, 30, 220, 126)  # left, top, width, height of its axes
DOTS = 20  # up to so many points a curve shows each of them


def panel(drawn: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes whose frame is `width` × `height` pixels, `left` and `top` of the figure's corner."""
    across, down = drawn.get_size_inches() * 72
    axes = drawn.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))
    axes.locator_params(axis="both", nbins=4, steps=(1, 2, 5, 10))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:g}")
    return axes


def hint(artist: Artist, text: str) -> None:
    """A pointer over the artist reads the text."""
    artist.set(gid=HINT + text, clip_on=False)


def key(marks: Sequence[Line2D | Patch]) -> Figure:
    """What the colours of the panels below mean, in one line."""
    drawn = figure(WIDTH, 22, f"Colours: {', '.join(mark.get_label() for mark in marks)}")
    drawn.set_gid("key")
    drawn.legend(handles=marks, loc="upper left", ncols=len(marks), handlelength=1.2, columnspacing=1.2)
    return drawn


def two_axes(
    title: str,
    x_unit: str,
    y_unit: str,
    label: str,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    frame: tuple[int, int, int, int] = FRAME,
    distance: float = 50,
) -> Axes:
    """Axes alone in a figure; `distance` is that of the y axis from its unit, in pixels."""
    axes = panel(figure(*size, label), *frame)
    axes.set_title(title)
    axes.set_xlabel(x_unit, loc="right")
    set_unit(axes, y_unit, distance)
    return axes


def set_unit(axes: Axes, words: str, distance: float) -> None:
    """What the y axis counts, at one distance in pixels whatever its ticks read."""
    axes.set_ylabel(words)
    axes.yaxis.set_label_coords(-distance / axes.bbox.width, 0.5)


def curves(axes: Axes, x: Sequence[float], drawn: Sequence[tuple[str, Any, list]], scale: int) -> None:
    """Curves of (colour, line style, values at x); unknown values interrupt them. `scale` 100 is per cent.

    Points are seen, and read on hover, where they are few or stand alone.
    """
    show = percent if scale == 100 else short
    for colour, line, values in drawn:
        y = [math.nan if value is None else scale * value for value in values]
        axes.plot(x, y, color=colour, ls=line, clip_on=False)
        around = zip([math.nan, *y], [*y[1:], math.nan], strict=False)
        for place, value, (before, after) in zip(x, values, around, strict=True):
            alone = math.isnan(before) and math.isnan(after)
            if value is not None and (alone or len(x) <= DOTS):
                (dot,) = axes.plot(place, scale * value, "o", color=colour, mew=0)
                hint(dot, show(value))
    set_range(axes, [value for *_, values in drawn for value in values], scale)


def set_range(axes: Axes, values: Sequence[float | None], scale: int) -> None:
    """The y axis around values: not so narrow that noise fills the panel, and from 0 to 100 % at most."""
    known = [value for value in values if value is not None] or [0.0]
    least = 0.02 if scale == 100 else 0.02 * max(map(abs, known)) or 0.02
    middle, half = (min(known) + max(known)) / 2, max(max(known) - min(known), least) * 0.58
    low, high = -math.inf if min(known) < 0 else 0, 1 if scale == 100 else math.inf
    axes.set_ylim(scale * max(low, middle - half), scale * min(high, middle + half))
