"""A picture of a report as a stand-alone SVG file: python -m secateur.runs.svg REPORT.json widths OUT.svg"""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from xml.etree import ElementTree

from secateur.runs.errors import UsageError, cli
from secateur.runs.files import read_json, write_atomic
from secateur.runs.markup import Markup, element, join
from secateur.runs.page_style import COLOURS, PICTURES
from secateur.runs.pictures import WIDTHS_KEY, widths_picture
from secateur.runs.search_picture import search_picture, teachers
from secateur.runs.sensitivity_picture import sensitivity_picture
from secateur.runs.suggest import nearest

NAMES: dict[str, Callable[[dict], Markup]] = {
    "widths": lambda report: widths_picture(report.get("widths") or []),
    "search": search_picture,
    "sensitivity": sensitivity_picture,
}
FONT = 'svg { font-family: system-ui, "Segoe UI", Roboto, sans-serif; }\n'
# Pixels: panels in rows of three, the meaning of the colours below them.
MARGIN, GAP, PANELS_A_ROW = 16, 28, 3
KEY_HEIGHT, KEY_STEP = 30, 150


def write_svg(report: dict, name: str, path: str | os.PathLike) -> str:
    """Write the picture `name` of a report to a file, atomically; return its SHA-256.

    Raises:
        UsageError: there is no such picture, or the run had nothing to show in it.
        RunFolderError: the file cannot be written.
    """
    return write_atomic(path, render_svg(report, name).encode())


def render_svg(report: dict, name: str) -> str:
    """The picture `name` (one of `NAMES`) of what report.json holds, in light colours on white.

    A page that shows an image lends it no style, and may be dark: colours, font and ground are in the file.
    """
    if name not in NAMES:
        raise UsageError(f"there is no such picture. Received: {name}\n{nearest(name, NAMES)}")
    picture = NAMES[name](report)
    if not picture:
        raise UsageError(f"this run has nothing to show in the picture. Received: {name}\nchoose another run")
    panels, width, height = _arranged(picture)
    key = _key(report, name, height)
    height += KEY_HEIGHT if key else 0
    config = report.get("config") or {}
    title = f"{name} of {config.get('arch', 'a network')} on {config.get('dataset', 'its data')}"
    image = element(
        "svg",
        element("title", title),
        element("style", Markup(FONT + _plain_colours(PICTURES))),
        element("rect", width=width, height=height, fill=COLOURS["card"]),
        *panels,
        key,
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {width:g} {height:g}",
        width=width,
        height=height,
        role="img",
    )
    return f"{image}\n"


def _plain_colours(style: str) -> str:
    # Not every program that draws SVG knows the variables of CSS.
    return re.sub(r"var\(--(\w+)\)", lambda name: COLOURS[name[1]], style)


def _arranged(picture: Markup) -> tuple[list[Markup], float, float]:
    """The panels of a picture with places in rows, and the size of it all with its margin."""
    panels = list(ElementTree.fromstring(element("g", picture)))
    y, right = MARGIN, 0.0
    for start in range(0, len(panels), PANELS_A_ROW):
        x, row = MARGIN, panels[start : start + PANELS_A_ROW]
        for panel in row:
            panel.attrib |= {"x": f"{x:g}", "y": f"{y:g}"}
            x += float(panel.attrib["width"]) + GAP
        right = max(right, x - GAP + MARGIN)
        y += max(float(panel.attrib["height"]) for panel in row) + MARGIN
    return [Markup(ElementTree.tostring(panel, "unicode")) for panel in panels], right, y


def _key(report: dict, name: str, top: float) -> Markup:
    """What the colours mean, where the picture does not say it itself."""
    rings = (("ring", "teaches in the fine-tuning"),) if teachers(report) else ()
    entries = WIDTHS_KEY if name == "widths" else rings
    parts = []
    for k, (kind, words) in enumerate(entries):
        x, y = MARGIN + KEY_STEP * k, top + 4
        mark = (
            element("circle", cx=x + 7, cy=y + 5, r=5, class_=kind)
            if kind == "ring"
            else element("rect", x=x, y=y, width=14, height=10, class_=f"bar {kind}")
        )
        parts += [mark, element("text", words, x=x + 21, y=y + 10)]
    return join(parts)


def main(argv: Sequence[str] | None = None) -> None:
    """argv → report → file."""
    parser = argparse.ArgumentParser(
        prog="python -m secateur.runs.svg", description="A picture of a run, as SVG."
    )
    parser.add_argument("report", type=Path, help="the report.json of a run folder")
    parser.add_argument("picture", choices=NAMES)
    parser.add_argument("out", type=Path, help="the file to write")
    options = parser.parse_args(argv)
    if not options.report.is_file():
        raise UsageError(f"there is no such report. Received: {options.report}\ngive a run's report.json")
    report = read_json(options.report)
    if not isinstance(report, dict):
        raise UsageError(f"this is not a report. Received: {options.report}\ngive a run's report.json")
    write_svg(report, options.picture, options.out)


if __name__ == "__main__":
    sys.exit(cli(main))
