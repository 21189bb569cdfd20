"""`secateur report`: the page of a report.json made again, or one of its pictures as an SVG file."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import TemplateError

from secateur.reports.page import render, run_page
from secateur.reports.words import Report
from secateur.runs.errors import RunFolderError, UsageError, first_line
from secateur.runs.files import read_json, write_atomic
from secateur.runs.seal import is_sealed
from secateur.runs.suggest import nearest

if TYPE_CHECKING:
    from secateur.reports.drawing import Picture

MARGIN, GAP, ROW = 16, 28, 960  # pixels: around all panels, between them, and how wide a row of them is


def run(options: Any) -> None:
    """Writes the page of a report, or one of its pictures.

    `options` are a `recipes.commands.options.ReportOptions`, a room that stands above this one.

    Raises:
        UsageError: the file is no report, there is no such picture, or the run had nothing to show in it.
            What fails on a report as a run has written it is a defect, and is raised as it is.
        RunFolderError: the file cannot be written.
    """
    file = Path(options.report)
    report = _read(file)
    name = f"{options.picture}.svg" if options.picture else file.with_suffix(".html").name
    try:
        text = picture_file(report, options.picture) if options.picture else run_page(report)
    except (TemplateError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        if is_sealed(report):  # then the fault is not in the report
            raise
        raise UsageError(
            f"no run has written this report ({first_line(error)}). Received: {file}\n"
            "give a run's report.json"
        ) from error
    write_atomic(options.output or file.with_name(name), text.encode())


def picture_file(report: Report, name: str) -> str:
    """The picture `name` as an SVG file that stands alone, in light colours on white.

    A page that shows an image lends it no style and may be dark: the file holds its colours and its ground.
    """
    from secateur.reports.pictures import PICTURES, draw  # matplotlib: a second to import

    if name not in PICTURES:
        raise UsageError(f"there is no such picture. Received: {name}\n{nearest(name, PICTURES)}")
    panels = draw(name, report, themed=False)
    if not panels:
        raise UsageError(f"this run has nothing to show in the picture. Received: {name}\nchoose another run")
    config = report.get("config") or {}
    subject = f"{config.get('arch', 'a network')} on {config.get('dataset', 'its data')}"
    return sheet(panels, f"{name} of {subject}", report)


def sheet(panels: Sequence[Picture], title: str, report: Report | None = None) -> str:
    """Panels in rows, as an SVG file; `title` is what is read aloud, `report` where the panels are from."""
    places, width, height = _arranged(panels)
    placed = zip(panels, places, strict=True)
    return render("picture.svg.j2", report or {}, title=title, placed=placed, width=width, height=height)


def _read(file: Path) -> dict:
    if not os.path.isfile(file):
        raise UsageError(f"there is no such report. Received: {file}\ngive a run's report.json")
    try:
        report = read_json(file)
    except RunFolderError:  # the page, for one
        report = None
    if not isinstance(report, dict) or "rows" not in report:
        raise UsageError(f"this is not a report. Received: {file}\ngive a run's report.json")
    return report


def _arranged(panels: Sequence) -> tuple[list[tuple[int, int]], int, int]:
    """Left and top of every panel, in rows; the size of it all with its margin."""
    places, x, y, row, right = [], MARGIN, MARGIN, 0, 0
    for panel in panels:
        if x > MARGIN and x + panel.width > ROW + MARGIN:
            x, y, row = MARGIN, y + row + MARGIN, 0
        places.append((x, y))
        right, row = max(right, x + panel.width), max(row, panel.height)
        x = ROW + MARGIN if panel.kind == "key" else x + panel.width + GAP  # nothing stands beside a key
    return places, right + MARGIN, y + row + MARGIN
