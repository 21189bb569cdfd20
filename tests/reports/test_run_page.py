"""The page of a run stands alone, shows every number, and turns no text into markup."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from secateur.reports.page import run_page
from secateur.reports.words import summary
from tests.helpers.pages import EVIL, Page, hostile
from tests.helpers.reports import full, minimal, parts_missing

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def whole() -> str:
    return run_page(full())


@pytest.mark.parametrize("report", [full(), minimal(), {"rows": []}, *parts_missing()])
def test_page_is_well_formed_as_html_and_as_xml(report):
    text = run_page(report)
    page = Page(text)
    ElementTree.fromstring(text)
    assert page.tags.count("h1") == page.tags.count("main") == page.tags.count("footer") == 1


@pytest.mark.parametrize("report", [full(), minimal()])
def test_every_number_of_the_rows_appears(report):
    seen = Page(run_page(report)).text
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


def test_stages_epochs_cuts_and_widths_are_there_as_text(whole):
    seen = Page(whole).text
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
    for phase in ("Baseline training, 4 epochs", "Warm-up before the search", "fine_tune"):
        assert phase in seen


def test_averages_that_were_estimated_behind_the_last_epoch_are_named(whole):
    """An epoch's accuracy was 58 %, the row of the same network 90 %, and nobody said why."""
    again = run_page(full() | {"reestimated": ["fine_tune"]})
    assert "estimated again behind the last epoch of fine_tune" in Page(again).text
    assert "estimated again behind the last epoch" not in Page(whole).text


def test_what_was_done_without_labels_or_time_is_said():
    """A training whose network was dropped had a row like any other; rounding without labels had a dash."""
    report = full() | {
        "dropped": {"train": {"holdout_untrained": 0.9194, "holdout_trained": 0.5933}},
        "rounded": {"int8": {"float32": None, "rounded": None, "apart": 0.0123}},
    }
    seen = Page(run_page(report)).text.replace("\u00a0", " ")
    assert "59.33 % behind this training. The network before it stays, with 91.94 %" in seen
    assert "int8: outputs for the hold-out images are on average 1.23 % of their range away" in seen


def test_held_out_images_have_chosen_between_int8_files_where_there_were_two():
    report = full() | {"test_reads": 0, "rounded": {"int8": {"float32": 0.9, "rounded": 0.89}}}
    words = "the better of two int8 files"
    assert words not in Page(run_page(report)).text
    report["rounded"] = {"int8": {"float32": 0.9, "rounded": 0.8, "trained": 0.89}}
    assert words in Page(run_page(report)).text
    report["rows"] = [row | {"holdout_accuracy": None} for row in report["rows"]]
    assert "no labels that the model learns" in Page(run_page(report)).text


def test_what_was_not_finite_is_said_and_an_epoch_without_a_loss_is_a_gap():
    report = full() | {"not_finite": {"baseline": {"skipped": 4}, "fine_tune": {"rewinds": 2}}}
    report["epochs"][1] |= {"loss": None, "accuracy": None, "skipped": 4}
    seen = Page(run_page(report)).text.replace("\u00a0", " ")
    assert "baseline: 4 steps whose loss or gradient was not finite were skipped." in seen
    assert "fine_tune: the loss stopped being finite 2 times" in seen
    assert "to 0.25 of what was asked" in seen


def test_files_and_what_taught_a_step_are_there_as_text(whole):
    seen = Page(whole).text
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
    assert "int8.tflite" not in Page(run_page(minimal())).text


def test_sections_of_missing_parts_are_left_out(whole):
    whole, part = Page(whole).text, Page(run_page(minimal())).text
    for title in ("Search", "Widths", "Training", "Time", "From search to slimmed network"):
        assert title in whole.split("\n") and title not in part.split("\n")


def test_twins_that_were_timed_apart_are_called_noise(whole):
    """The slimmed and the fine-tuned network are one architecture: only noise tells their times apart."""
    assert "25.90 and 51.60 ms" in Page(whole).text
    report = full()
    report["rows"][2] |= {"ms_litert": 26.0, "ms_frozen": 39.0}
    assert "same architecture" not in Page(run_page(report)).text


def test_pictures_have_a_description_and_figures_a_caption(whole):
    page = Page(whole)
    pictures = [attributes for tag, attributes in page.attributes if tag == "svg"]
    assert (
        sum(p["class"] == "panel" for p in pictures) == 2 + 2 + 1 + 2 + 2 * 3 + 3
    )  # stages, sensitivity, search, landscape, phases, costs
    assert sum(p["class"] == "key" for p in pictures) == 3  # colours of widths, of teachers, of the curves
    assert all(p["role"] == "img" and len(p["aria-label"]) > 10 for p in pictures)
    assert page.tags.count("figure") == page.tags.count("figcaption") == 8


def test_no_text_of_a_run_becomes_markup(whole):
    page = Page(run_page(hostile(full()) | {"setting": f"a label{EVIL}"}))
    assert not {"script", "img"} & set(page.tags) and page.text.count(EVIL) > 50
    assert not any(name.startswith("on") for _, attributes in page.attributes for name in attributes)
    assert page.tags.count("section") == Page(whole).tags.count("section")
    assert "<script>" in Page(run_page(full() | {"setting": "<script>"})).seen


def test_characters_that_no_page_can_hold_are_replaced():
    report = full()
    report["widths"][1]["group"] = report["search"][2]["group"] = "a\x00\x1b\ud800 $x$ \\frac 层"
    text = run_page(report)
    assert ElementTree.fromstring(text.encode()) is not None and "a��� $x$ \\frac 层" in Page(text).text


def test_nothing_is_fetched_and_nothing_runs(whole):
    page = Page(whole)
    assert not {"script", "link", "img", "iframe", "object", "base", "use"} & set(page.tags)
    assert not any({"src", "href", "xlink:href"} & set(attributes) for _, attributes in page.attributes)
    assert whole.count("<style") == 1 and "url(" not in whole and "@import" not in whole


def test_unknown_numbers_are_dashes():
    """Infinities are null in the strict JSON that the page is made from."""
    report = json.loads(json.dumps(full()))
    report["epochs"][1] |= {"loss": None, "holdout_loss": None}
    report["search"][2]["loss"] = None
    report["rows"][2] |= {"ms_litert": None, "test_accuracy": None}
    page = Page(run_page(report))
    # The full network has no width of its own, a .kpz file no milliseconds.
    assert page.seen.count("–") == 5 + 2
    assert "nan" not in page.text and "None" not in page.text


def test_writing_changes_nothing_and_needs_neither_tensorflow_nor_a_display():
    report = full()
    before = copy.deepcopy(report)
    page = run_page(report)
    assert report == before
    code = (
        "import sys, secateur.reports.page as page, tests.helpers.reports as reports\n"
        "page.run_page({'rows': []})\n"
        "assert not {'tensorflow', 'keras', 'matplotlib'} & set(sys.modules)\n"
        "sys.stdout.buffer.write(page.run_page(reports.full()).encode())\n"
        "assert not {'tensorflow', 'keras', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, check=True, capture_output=True)
    assert done.stdout.decode() == page and not done.stderr


def test_a_metric_that_is_no_ratio_is_a_plain_number():
    report = full() | {"metric": "−loss", "in_percent": False}
    for row in (*report["rows"], *report["epochs"]):
        row |= {key: -0.5 * row[key] for key in row if key.endswith("accuracy") and row[key] is not None}
    first = report["rows"][0]["test_accuracy"]
    seen = Page(run_page(report)).text
    for text in ("accuracy stands for −loss.", f"−{-first:.4g}", f"test accuracy −{-first:.4g} → −"):
        assert text in seen.replace("\u00a0", " ")
    assert f"{100 * -first:.2f}" not in seen and "% of the images" not in seen
