"""The page of `python -m pruning` shows every number, draws its pictures, and turns no text into markup."""

from xml.etree import ElementTree

import numpy as np
import pytest

from secateur.runs.page_pruned import render_pruned
from tests.helpers.pages import Page, drawn, texts
from tests.helpers.reports import pruned

EVIL = "</style><script>alert(1)</script><img src=x onerror='a' \"&amp;"
LESS = {
    "sensitivity": {"sensitivity": None},
    "dry run": {"parities": {}},
    "all groups understood": {"untouched": []},
    "a plan from a file": {"target": {"plan": "plan.json"}, "criterion": None, "sensitivity": None},
    "operations of EKG": {"convention": "ekg"},
}


@pytest.mark.parametrize("changes", [{}, *LESS.values()], ids=["all", *LESS])
def test_page_is_well_formed_as_html_and_as_xml(changes):
    text = render_pruned(pruned() | changes)
    ElementTree.fromstring(text)
    assert Page(text).tags.count("h1") == 1


def test_every_number_is_there_as_text():
    report = pruned()
    seen = Page(render_pruned(report)).text
    before, after = report["rows"]
    for row in (before, after):
        assert all(f"{row[key]:,}" in seen for key in ("params", "macs", "bytes"))
        assert f"{row['ms']:.3f}" in seen and f"{100 * row['holdout_accuracy']:.2f} %" in seen
    curves = report["sensitivity"]["curves"]
    assert all(f"{100 * value:.2f} %" in seen for row in curves.values() for value in row)
    assert all(name in seen for name in curves) and "200 training images" in seen


def test_what_depends_on_an_open_size_is_a_dash():
    report = pruned()
    report["rows"] = [row | {"macs": None, "ms": None} for row in report["rows"]]
    page = Page(render_pruned(report))
    assert page.seen.count("–") == 6  # two lines of three
    assert "leaves open" in page.text and "of the MACs" not in page.text and "None" not in page.text


def test_a_plan_from_a_file_is_no_choice_of_the_criterion_but_curves_are():
    seen = Page(render_pruned(pruned() | {"target": {"plan": "plan.json"}})).text
    assert "Criterion: taylor" not in seen and "chosen by taylor" in seen
    assert "taylor" not in Page(render_pruned(pruned() | LESS["a plan from a file"])).text


def test_a_dry_run_says_that_no_model_was_written():
    assert "no model was written" in Page(render_pruned(pruned() | {"parities": {}})).text


def test_operations_are_called_by_what_is_counted():
    page = Page(render_pruned(pruned() | {"convention": "ekg"}))
    assert "operations (ekg)" in page.seen and "MACs" not in page.text


def test_no_text_of_a_report_becomes_markup():
    report = pruned()
    report["sensitivity"]["curves"][f"curve{EVIL}"] = [0.1, 0.2]
    report["parities"][f"file{EVIL}"] = report["parities"]["masked model"]
    report["target"] = {f"keep{EVIL}": "plan.json"}
    for container, key in list(texts(report)):
        changed = container[key]
        container[key] = changed + EVIL
        page = Page(render_pruned(report))
        container[key] = changed
        assert not {"script", "img"} & set(page.tags), key
        assert not any(name.startswith("on") for _, attributes in page.attributes for name in attributes)


def test_a_real_browser_draws_widths_and_curves(tmp_path):
    whole = drawn(render_pruned(pruned()), tmp_path)
    without = drawn(render_pruned(pruned() | {"sensitivity": None}), tmp_path)

    def green(pixels: np.ndarray) -> int:
        return int((np.abs(pixels - (0x2F, 0x7D, 0x4F)).max(1) < 12).sum())

    bars = green(without)
    assert bars > 2000 and green(whole) > bars + 300  # and curves beside them
