"""Matplotlib figures as SVG for a page: colours of its style sheet, values on hover, no ids, no links.

Only matplotlib's objects are used: no pyplot, no display, no file of settings; what is set here holds while
one picture is drawn. The import takes a second, so commands that draw nothing must not import this module.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

STYLE_SHEET = Path(__file__).parent / "templates" / "style.css"
LIGHT = STYLE_SHEET.read_text(encoding="utf-8").split("}")[0]  # its first rule
COLOURS = dict(re.findall(r"--(\w+): (#\w{6})", LIGHT))  # by the names that the style sheet uses
FONTS = {
    "'DejaVu Sans'": "system-ui, 'Segoe UI', Roboto, sans-serif",
    "'DejaVu Sans Mono'": "ui-monospace, Menlo, Consolas, monospace",
}  # matplotlib measures in its own fonts, which are wide; a page shows those of its reader
THEME = {value: f"var(--{name})" for name, value in COLOURS.items()}
GREEN, BLUE, AMBER = (COLOURS[name] for name in ("green", "blue", "amber"))
SOFT = {"color": COLOURS["soft"]}
MONO = {"family": "DejaVu Sans Mono", "size": 10.5} | SOFT  # names of groups
HINT = "hint: "  # begins the gid of an artist that has a text on hover
SVG, LINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
SETTINGS = {
    "figure.dpi": 72,  # a point is a pixel
    "svg.fonttype": "none",
    "svg.hashsalt": "secateur",
    "text.parse_math": False,  # a name may hold dollars
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "text.color": COLOURS["ink"],
    "axes.facecolor": "none",
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.edgecolor": COLOURS["stone"],
    "axes.labelcolor": COLOURS["soft"],
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": COLOURS["line"],
    "grid.linewidth": 1,
    "xtick.color": COLOURS["stone"],
    "xtick.labelcolor": COLOURS["soft"],
    "ytick.labelcolor": COLOURS["soft"],
    "ytick.major.size": 0,
    "lines.linewidth": 2,
    "lines.solid_joinstyle": "round",
    "lines.markersize": 6,
    "legend.frameon": False,
    "legend.borderpad": 0,
    "legend.borderaxespad": 0.2,
}


@dataclass(frozen=True)
class Picture:
    """`body` is what an SVG of `width` × `height` pixels holds; `label` says what it shows."""

    kind: str  # panel, or key: what colours mean
    body: str
    width: int
    height: int
    label: str


@contextmanager
def settings() -> Iterator[None]:
    """Matplotlib as it comes, with `SETTINGS`, whatever its user has set; afterwards as it was."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # the reader's fonts have it
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(SETTINGS)
        yield


def figure(width: float, height: float, label: str) -> Figure:
    """An empty figure of that many pixels."""
    return Figure((width / 72, height / 72), frameon=False, label=label)


def picture(drawn: Figure, themed: bool) -> Picture:
    """The figure as SVG. Equal figures give equal bytes, in every process.

    A `themed` picture has the colours of the page around it, light or dark. Else they are light, as plain
    numbers: not every program that draws SVG knows the variables of CSS.
    """
    file = io.StringIO()
    drawn.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    root = ElementTree.fromstring(file.getvalue())
    marks = {part.get("id"): part for part in root.iter(f"{SVG}path") if part.get("id")}
    parts = [_plain(part, marks, FONTS | THEME if themed else FONTS) for part in root]
    width, height = drawn.get_size_inches() * 72
    body = "".join(ElementTree.tostring(part, "unicode") for part in parts if part.tag != "defs")
    return Picture(drawn.get_gid() or "panel", body, round(width), round(height), drawn.get_label())


def _plain(
    part: ElementTree.Element, marks: dict[str, ElementTree.Element], names: dict[str, str]
) -> ElementTree.Element:
    """The element without namespace, ids and links: what was linked stands in its place."""
    tag, given = part.tag.removeprefix(SVG), dict(part.attrib)
    name = given.pop("id", "")
    given.pop("clip-path", None)  # nothing is drawn outside of its axes
    if tag == "use":
        mark, place = marks[given[LINK][1:]], f"translate({given['x']} {given['y']})"
        tag, given = "path", {"d": mark.get("d"), "style": given["style"], "transform": place}
    new = ElementTree.Element(tag, {key: _short(value) for key, value in given.items()})
    for old, better in names.items() if "style" in given else ():
        new.set("style", new.get("style").replace(old, better))
    if name.startswith(HINT):
        ElementTree.SubElement(new, "title").text = name.removeprefix(HINT)
    new.extend(_plain(child, marks, names) for child in part if child.tag != f"{SVG}defs")
    new.text = (part.text or "").strip() or None
    return new


def _short(value: str) -> str:
    """Hundredths of a pixel are enough."""
    return re.sub(r"\d+\.\d{3,}", lambda found: f"{float(found[0]):.2f}", " ".join(value.split()))
