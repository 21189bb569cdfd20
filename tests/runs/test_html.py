"""The report page stands alone, shows every number of the run, and turns no text into markup."""

import copy
import json
import math
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.runs.axes import ticks
from secateur.runs.html import render_html, summary
from tests.helpers.pages import Page, drawn, texts
from tests.helpers.reports import full, minimal, parts_missing

REPO = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("report", [full(), minimal(), {"rows": []}, *parts_missing()])
def test_page_is_well_formed_as_html_and_as_xml(report):
    text = render_html(report)
    page = Page(text)
    ElementTree.fromstring(text)
    assert page.tags.count("h1") == page.tags.count("main") == page.tags.count("footer") == 1


@pytest.mark.parametrize("report", [full(), minimal()])
def test_every_number_of_the_rows_appears(report):
    seen = Page(render_html(report)).text
    for entry in report["rows"]:
        for key in ("params", "macs", "flops_ekg", "file_bytes"):
            assert f"{entry[key]:,}" in seen
        for key in ("ms_frozen", "ms_litert"):
            assert f"{entry[key]:.1f}" in seen
        for key in ("holdout_accuracy", "test_accuracy"):
            assert f"{100 * entry[key]:.2f} %" in seen
        assert entry["name"] in seen


def test_summary_says_what_became_of_the_network():
    assert summary(full()).replace("\u00a0", " ") == (
        "272,474 → 165,988 parameters (61 %), 40.8 M → 32.5 M MACs (80 %), 28.8 → 51.6 ms per batch of 128 "
        "on LiteRT (179 %), test accuracy 93.82 → 93.41 %. Of 691,337 bytes in float32 there are left "
        "312,384 as int8.tflite (45 %) and 99,001 as small.kpz (14 %)."
    )
    assert "not fine-tuned" in summary(minimal())


def test_stages_epochs_cuts_and_widths_are_there_as_text():
    seen = Page(render_html(full())).text
    for text in (
        "91.23 %",
        "31.87 %",
        "87.41 %",
        "2 h 7 min",
        "3 min 5 s",
        "13 / 16",
        "20 / 32",
        "79.00 %",
        "0.0900",
    ):
        assert text in seen
    for phase in ("baseline", "warm-up", "fine-tune"):
        assert phase in seen


def test_files_and_what_taught_a_step_are_there_as_text():
    seen = Page(render_html(full())).text
    for text in (
        "small.kpz",
        "99,001",
        "14 %",
        "7.8",
        "95.55 %",
        "snap_dense.pkl (ResNet-20)",
        "kd ×1 (T 5)",
        "94.12 % in whole numbers, 95.11 % trained so",
        "conv/kernel",
        "0.0123",
    ):
        assert text in seen, text
    assert "int8.tflite" not in Page(render_html(minimal())).text


def test_sections_of_missing_parts_are_left_out():
    whole, part = Page(render_html(full())).text, Page(render_html(minimal())).text
    for title in ("Search", "Widths", "Training", "Time", "From search to slimmed network"):
        assert title in whole.split("\n") and title not in part.split("\n")


def test_twins_that_were_timed_apart_are_called_noise():
    """The slimmed and the fine-tuned network are one architecture: only noise tells their times apart."""
    report = full()
    assert "25.9 and 51.6 ms" in Page(render_html(report)).text
    report["rows"][2] |= {"ms_litert": 26.0, "ms_frozen": 39.0}
    assert "same architecture" not in Page(render_html(report)).text


def test_pictures_have_a_description_and_figures_a_caption():
    page = Page(render_html(full()))
    pictures = [attributes for tag, attributes in page.attributes if tag == "svg"]
    assert len(pictures) == 2 + 1 + 2 * 3 + 3 + 1  # stages, search, two phases with curves, costs, time
    assert all(p["role"] == "img" and len(p["aria-label"]) > 10 for p in pictures)
    assert page.tags.count("figure") == page.tags.count("figcaption") == 6


def test_coordinates_stay_inside_their_picture():
    for svg in ElementTree.fromstring(render_html(full())).iter("svg"):
        width, height = float(svg.get("width")), float(svg.get("height"))
        for part in svg.iter():
            for names, limit in ((("x", "x1", "x2", "cx"), width), (("y", "y1", "y2", "cy"), height)):
                values = [float(part.get(name)) for name in names if part.get(name)]
                assert all(0 <= value <= limit for value in values), (part.tag, part.attrib)


def test_no_text_of_a_run_becomes_markup():
    evil = "</style><script>alert(1)</script><img src=x onerror='a' \"&amp;"
    report = full()
    wanted = Page(render_html(report)).tags
    report["setting"] = "a label"
    for container, key in list(texts(report)):
        changed = container[key]
        container[key] = changed + evil
        page = Page(render_html(report))
        container[key] = changed
        assert not {"script", "img"} & set(page.tags), key
        assert not any(name.startswith("on") for _, attributes in page.attributes for name in attributes)
    assert "script" not in wanted
    report["setting"] = "<script>"
    assert "<script>" in Page(render_html(report)).seen


def test_nothing_is_fetched_and_nothing_runs():
    page = Page(render_html(full()))
    assert not {"script", "link", "img", "iframe", "object", "base"} & set(page.tags)
    assert not any({"src", "href"} & set(attributes) for _, attributes in page.attributes)
    style = render_html(full()).split("<style>")[1].split("</style>")[0]
    assert "url(" not in style and "@import" not in style


def test_unknown_numbers_are_dashes():
    """Infinities are null in the strict JSON that the page is made from."""
    report = json.loads(json.dumps(full()))
    report["epochs"][1] |= {"loss": None, "holdout_loss": None}
    report["search"][2]["loss"] = None
    report["rows"][2] |= {"ms_litert": None, "test_accuracy": None}
    page = Page(render_html(report))
    assert (
        page.seen.count("–") == 5 + 2
    )  # the full network has no width of its own, a .kpz file no milliseconds
    assert "nan" not in page.text and "None" not in page.text


@settings(max_examples=100, deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 10))
def test_ticks_are_round_few_and_inside(low, width, count):
    found = ticks(low, low + width, count)
    assert all(low - 1e-6 * width - 1e-9 <= t <= low + width * (1 + 1e-6) + 1e-9 for t in found)
    assert 0 <= len(found) <= count + 1
    gaps = np.diff(found)
    if len(gaps) and width > 1e-3:
        leading = gaps[0] / 10 ** math.floor(math.log10(gaps[0]) + 1e-6)
        assert np.isclose(leading, [1, 2, 5], rtol=1e-3).any()


def test_writing_changes_nothing_and_needs_neither_tensorflow_nor_matplotlib():
    report = full()
    before = copy.deepcopy(report)
    assert render_html(report) == render_html(report) and report == before
    heavy = "{'tensorflow', 'matplotlib', 'keras'}"
    code = f"import sys, secateur.runs.html; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPO, check=False).returncode == 0


def test_a_real_browser_draws_it(tmp_path):
    pixels = drawn(render_html(full()), tmp_path)
    green, amber = (
        (np.abs(pixels - colour).max(1) < 12).sum() for colour in ((0x2F, 0x7D, 0x4F), (0xA8, 0x66, 0x0F))
    )
    assert green > 5000 and amber > 200  # bars and curves, not only text
    assert len(np.unique(pixels, axis=0)) > 100
