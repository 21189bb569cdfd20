"""A picture of a run as a file: it stands alone, is drawn on white, and shows what the report says."""

import json
import os
import warnings
from xml.etree import ElementTree

import matplotlib
import pytest

from secateur.__main__ import dispatch
from secateur.reports.command import picture_file
from secateur.reports.pictures import PICTURES, draw
from secateur.runs import UsageError
from tests.helpers.pages import EVIL, hostile
from tests.helpers.reports import full, minimal

SVG = "{http://www.w3.org/2000/svg}"


def parsed(report: dict, name: str) -> ElementTree.Element:
    return ElementTree.fromstring(picture_file(report, name))


def texts(root: ElementTree.Element, tag: str = "text") -> list[str]:
    return [part.text for part in root.iter(SVG + tag)]


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
        (full(), "widths", 1 + 2),
        (many_stages(), "widths", 1 + 7),
        (full(), "search", 1 + 1),
        (full(), "sensitivity", 2),
        (full(), "costs", 3),
        (full(), "training", 1 + 2 * 3),
        (full(), "landscapes", 2),
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


@pytest.mark.parametrize("name", PICTURES)
def test_texts_stay_inside_their_panel(name):
    for panel in parsed(full(), name).findall(f"{SVG}svg"):
        width, height = (float(panel.get(side)) for side in ("width", "height"))
        for text in panel.iter(f"{SVG}text"):
            assert 0 <= float(text.get("x")) <= width and 0 <= float(text.get("y")) <= height, text.text


@pytest.mark.parametrize("name", PICTURES)
def test_nothing_is_lent_by_a_page_or_fetched(name):
    text = picture_file(full(), name)
    assert not [word for word in ("var(", "url(", "@import", "href", "<style", " id=") if word in text]
    assert "font-family: system-ui" in text and "DejaVu" not in text


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_of_a_page_takes_every_colour_from_its_style_sheet(name):
    assert "#" not in "".join(panel.body for panel in draw(name, full())).replace("&#", "")


def test_the_numbers_of_the_report_are_there_as_text():
    widths = texts(parsed(full(), "widths"))
    assert {"13 / 16", "20 / 32", "BasicBlock0.0_conv1", "stays", "removed", "group left whole"} <= {*widths}
    search = parsed(full(), "search")
    assert "step 3: BasicBlock1.0_conv1 to 20 channels, 79.0% left" in texts(search, "title")
    assert "teacher: step 1, loss 0.0300" in texts(search, "title")
    assert "teaches in the fine-tuning" in texts(search)
    for report in (full(), full()["sensitivity"]):  # a report, or the numbers by themselves
        curves = parsed(report, "sensitivity")
        assert {"BasicBlock0.0_conv1", "BasicBlock1.0_conv1"} <= {*texts(curves)}
        assert [hint for hint in texts(curves, "title") if hint.endswith(" %")] == [
            "31.00 %", "91.07 %", "94.12 %", "80.00 %", "93.00 %", "94.12 %",
        ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("widths", ["Stage 0", "29 of 32 channels"]),
        (
            "search",
            ["Loss on the search images", "mean per image", "operations left, % of the whole network →"],
        ),
        (
            "training",
            [
                "Loss, baseline",
                "Accuracy, baseline",
                "Learning rate, baseline",
                "epoch",
                "mean per image",
                "% of the images",
            ],
        ),
        ("costs", ["Accuracy and MACs", "MACs per image", "ms per batch", "% of the test images"]),
        ("sensitivity", ["BasicBlock0.0_conv1", "channels kept, %", "accuracy, %"]),
    ],
)
def test_pictures_have_a_title_axes_and_units(name, words):
    assert set(words) <= set(texts(parsed(full(), name)))


def test_an_unknown_value_interrupts_its_curve():
    epochs = [{"phase": "x", "step": k, "loss": None if k == 30 else 1.0} for k in range(1, 60)]
    epochs[0]["loss"] = epochs[1]["loss"] = None
    epochs[3]["loss"] = None  # so that the third value stands alone
    loss = ElementTree.fromstring(f"<svg>{draw('training', {'epochs': epochs})[1].body}</svg>")
    (curve,) = [p for p in loss.iter("path") if "--blue" in p.get("style") and "dash" in p.get("style")]
    assert curve.get("d").count("M") == 3 and len(list(loss.iter("title"))) == 1  # a point, two lines


@pytest.mark.parametrize("name", PICTURES)
def test_no_name_of_a_run_becomes_markup(name):
    root = parsed(hostile(full()), name)
    assert not [part for part in root.iter() if part.tag in (f"{SVG}script", f"{SVG}img")]
    report = hostile(full())
    assert parsed(report, "costs").find(f"{SVG}title").text == f"costs of ResNet-20{EVIL} on DIGITS{EVIL}"


@pytest.mark.parametrize("name", PICTURES)
def test_settings_of_the_user_change_no_picture_and_are_left_as_they_were(name):
    wanted = draw(name, full())
    with matplotlib.rc_context({"font.size": 40, "svg.fonttype": "path", "axes.grid": False}):
        before = dict(matplotlib.rcParams)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert draw(name, full()) == wanted
        assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("report", "name"),
    [(full(), "width"), (minimal(), "widths"), (minimal(), "search"), (minimal(), "sensitivity")],
)
def test_a_picture_that_there_is_not_is_a_usage_error(report, name, tmp_path):
    (tmp_path / "old.svg").write_text("old")
    (tmp_path / "report.json").write_text(json.dumps(report))
    with pytest.raises(UsageError, match=f"Received: {name}") as caught:
        dispatch(
            [
                "report",
                str(tmp_path / "report.json"),
                "--picture",
                name,
                "--output",
                str(tmp_path / "old.svg"),
            ],
            "secateur",
        )
    assert len(str(caught.value).splitlines()) == 2
    assert sorted(os.listdir(tmp_path)) == ["old.svg", "report.json"]
    assert (tmp_path / "old.svg").read_text() == "old"
