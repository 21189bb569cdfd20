"""A picture of a run as a file: it stands alone, is drawn on white, and shows what the report says."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from secateur.runs import UsageError, sha256
from secateur.runs.svg import NAMES, render_svg, write_svg
from tests.helpers.reports import full, minimal

REPO = Path(__file__).resolve().parents[2]
SVG = "{http://www.w3.org/2000/svg}"


def parsed(report: dict, name: str) -> ElementTree.Element:
    return ElementTree.fromstring(render_svg(report, name))


def many_stages() -> dict:
    widths = [
        {"group": f"Block{k}.0_conv{j}", "before": 64, "after": 9 * k + j} for k in range(7) for j in (1, 2)
    ]
    return full() | {"widths": widths}


def boxes(root: ElementTree.Element) -> list[tuple[float, ...]]:
    """left, top, right, bottom of the panels."""
    sides = [
        [float(panel.get(key)) for key in ("x", "y", "width", "height")]
        for panel in root.findall(f"{SVG}svg")
    ]
    return [(x, y, x + width, y + height) for x, y, width, height in sides]


@pytest.mark.parametrize(
    ("report", "name", "count"),
    [
        (full(), "widths", 2),
        (many_stages(), "widths", 7),
        (full(), "search", 1),
        (full(), "sensitivity", 1),
    ],
)
def test_panels_lie_side_by_side_on_white(report, name, count):
    root = parsed(report, name)
    size = (float(root.get("width")), float(root.get("height")))
    assert root.tag == f"{SVG}svg" and root.get("viewBox") == f"0 0 {size[0]:g} {size[1]:g}"
    ground = root.find(f"{SVG}rect")
    assert (float(ground.get("width")), float(ground.get("height"))) == size
    assert ground.get("fill") == "#ffffff" and list(root).index(ground) < list(root).index(
        root.find(f"{SVG}svg")
    )
    panels = boxes(root)
    assert len(panels) == count
    for k, (left, top, right, bottom) in enumerate(panels):
        assert 0 < left < right < size[0] and 0 < top < bottom < size[1]
        for other in panels[:k]:
            assert left >= other[2] or right <= other[0] or top >= other[3] or bottom <= other[1]


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_lent_by_a_page_or_fetched(name):
    text = render_svg(full(), name)
    style = ElementTree.fromstring(text).find(f"{SVG}style").text
    assert "var(" not in text and "url(" not in text and "@import" not in text and "href" not in text
    for kind in re.findall(r'class="(?:bar|dot|curve) (\w+)"', text):
        assert re.search(rf"\.{kind}\b[^}}]*#[0-9a-f]{{6}}", style), kind
    assert "font-family" in style


def test_the_numbers_of_the_report_are_there_as_text():
    widths = {part.text for part in parsed(full(), "widths").iter(f"{SVG}text")}
    assert {"13 / 16", "20 / 32", "BasicBlock0.0_conv1", "stays", "removed", "group left whole"} <= widths
    search = parsed(full(), "search")
    hints = [part.text for part in search.iter(f"{SVG}title")]
    assert "step 3: BasicBlock1.0_conv1 to 20 channels, 79.0% left" in hints
    assert "teacher: step 1, loss 0.0300" in hints
    assert "teaches in the fine-tuning" in {part.text for part in search.iter(f"{SVG}text")}
    for report in (full(), full()["sensitivity"]):  # a report, or the numbers by themselves
        curves = parsed(report, "sensitivity")
        assert {"BasicBlock0.0_conv1", "BasicBlock1.0_conv1"} <= {t.text for t in curves.iter(f"{SVG}text")}
        hints = [part.text for part in curves.iter(f"{SVG}title")]
        assert [hint for hint in hints if hint.endswith(" %")] == [
            "31.00 %", "91.07 %", "94.12 %", "80.00 %", "93.00 %", "94.12 %",
        ]  # fmt: skip


def test_no_name_of_a_run_becomes_markup():
    report = full()
    report["widths"][1]["group"] = "<script>&amp;\"'"
    report["config"]["arch"] = "</title><script>"
    root = parsed(report, "widths")
    assert not list(root.iter(f"{SVG}script"))
    assert root.find(f"{SVG}title").text == "widths of </title><script> on DIGITS"


@pytest.mark.parametrize(
    ("report", "name"),
    [(full(), "width"), (minimal(), "widths"), (minimal(), "search"), (minimal(), "sensitivity")],
)
def test_a_picture_that_there_is_not_is_a_usage_error(report, name, tmp_path):
    (tmp_path / "old.svg").write_text("old")
    with pytest.raises(UsageError, match=f"Received: {name}") as caught:
        write_svg(report, name, tmp_path / "old.svg")
    assert len(str(caught.value).splitlines()) == 2
    assert os.listdir(tmp_path) == ["old.svg"] and (tmp_path / "old.svg").read_text() == "old"


def command(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "secateur.runs.svg", *map(str, arguments)],
        cwd=REPO,
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )


def test_the_command_writes_the_same_file(tmp_path):
    (tmp_path / "report.json").write_text(json.dumps(full()))
    done = command(tmp_path / "report.json", "widths", tmp_path / "command.svg")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert write_svg(full(), "widths", tmp_path / "function.svg") == sha256(tmp_path / "command.svg")


@pytest.mark.parametrize("content", [None, "[]"])
def test_the_command_refuses_what_is_no_report(content, tmp_path):
    file = tmp_path / "report.json"
    if content:
        file.write_text(content)
    done = command(file, "search", tmp_path / "out.svg")
    assert done.returncode == 2 and f"Received: {file}" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "out.svg").exists()
