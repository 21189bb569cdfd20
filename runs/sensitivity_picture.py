"""The picture of sensitivity: for each group, the accuracy over the share of its channels that stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from secateur.runs.axes import Axes, frame, percent_ticks, rule, series, svg, text, x_axis
from secateur.runs.markup import Markup, join
from secateur.runs.wording import fit, percent

# Pixels: small panels in rows, one for each group.
COLUMNS, LEFT, TOP, WIDTH, HEIGHT, GAP, FOOT = 5, 56, 34, 130, 70, 24, 30
NAME_SIZE = 20  # characters


def sensitivity_picture(report: Mapping) -> Markup:
    """Curves of a report's `sensitivity`, or of such an object by itself; nothing where there is none.

    It has `ratios`, `whole` (accuracy of the whole network) and `curves` (group → accuracies), as
    `pruning.choose.sensitivity.Sensitivity.to_json` writes them. All panels have the same axes.
    """
    found = report.get("sensitivity") or report
    curves = found.get("curves") or {}
    if not curves:
        return Markup()
    top = max(found["whole"], *(max(row) for row in curves.values()), 1e-3)
    panels = []
    for k, (name, row) in enumerate(curves.items()):
        left = LEFT + (k % COLUMNS) * (WIDTH + GAP)
        above = TOP + (k // COLUMNS) * (HEIGHT + TOP + FOOT)
        axes = Axes((0, 1), (0, 1.05 * top), left, above, WIDTH, HEIGHT)
        points = [*zip(found["ratios"], row, strict=True), (1.0, found["whole"])]
        panels.append(_panel(axes, name, points, labelled=k % COLUMNS == 0))
    rows, columns = -(-len(curves) // COLUMNS), min(COLUMNS, len(curves))
    width, height = LEFT + columns * (WIDTH + GAP), rows * (HEIGHT + TOP + FOOT)
    label = f"Accuracy of {len(curves)} groups as each is narrowed by itself; whole: {found['whole']:.1%}"
    return svg(width, height, label, panels, "wide")


def _panel(axes: Axes, name: str, points: Sequence[tuple[float, float]], labelled: bool) -> Markup:
    marks = percent_ticks(axes.y, 2)
    heights = [axes.at(0, value)[1] for value, _ in marks]
    return join(
        [
            text(axes.left, axes.top - 10, fit(name, NAME_SIZE), class_="name"),
            frame(axes, "", marks)
            if labelled
            else join([rule(axes.left, y, axes.left + axes.width, y) for y in heights]),
            series(axes, points, "one", percent),
            x_axis(axes, [(0.0, "0"), (0.5, "50 %"), (1.0, "kept")]),
        ]
    )
