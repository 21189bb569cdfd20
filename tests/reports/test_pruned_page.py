"""The page of `python -m pruning` shows every number, draws its pictures, and turns no text into markup."""

from xml.etree import ElementTree

import pytest

from secateur.reports.page import run_page
from tests.helpers.pages import EVIL, Page, hostile
from tests.helpers.reports import pruned

LESS = {
    "sensitivity": {"sensitivity": None},
    "dry run": {"parities": {}},
    "all groups understood": {"untouched": []},
    "a plan from a file": {"target": {"plan": "plan.json"}, "criterion": None, "sensitivity": None},
    "operations of EKG": {"convention": "ekg"},
}


@pytest.mark.parametrize("changes", [{}, *LESS.values()], ids=["all", *LESS])
def test_page_is_well_formed_as_html_and_as_xml(changes):
    text = run_page(pruned() | changes)
    ElementTree.fromstring(text)
    assert Page(text).tags.count("h1") == 1


def test_every_number_is_there_as_text():
    report = pruned()
    seen = Page(run_page(report)).text
    before, after = report["costs"]
    for row in (before, after):
        assert all(f"{row[key]:,}" in seen for key in ("params", "macs", "bytes"))
        assert f"{row['ms']:.3f}" in seen
    curves = report["sensitivity"]["curves"]
    assert all(f"{100 * value:.2f} %" in seen for row in curves.values() for value in row)
    assert all(name in seen for name in curves) and "200 images that score candidates" in seen


def test_what_depends_on_an_open_size_is_a_dash():
    report = pruned()
    report["costs"] = [row | {"macs": None, "ms": None} for row in report["costs"]]
    page = Page(run_page(report))
    assert page.seen.count("–") == 6  # two lines of three
    assert "leaves open" in page.text and "of the MACs" not in page.text and "None" not in page.text


def test_a_plan_from_a_file_is_no_choice_of_the_criterion_but_curves_are():
    seen = Page(run_page(pruned() | {"target": {"plan": "plan.json"}})).text
    assert "Criterion: taylor" not in seen and "chosen by taylor" in seen
    assert "taylor" not in Page(run_page(pruned() | LESS["a plan from a file"])).text


def test_a_dry_run_says_that_no_model_was_written():
    assert "no model was written" in Page(run_page(pruned() | {"parities": {}})).text


def test_operations_are_called_by_what_is_counted():
    page = Page(run_page(pruned() | {"convention": "ekg"}))
    assert "operations (ekg)" in page.seen and "MACs" not in page.text


def test_no_text_of_a_report_becomes_markup():
    report = hostile(pruned())
    report["sensitivity"]["curves"][f"curve{EVIL}"] = [0.1, 0.2]
    report["parities"][f"file{EVIL}"] = report["parities"]["masked model"]
    for target in ({f"keep{EVIL}": f"plan.json{EVIL}"}, {f"keep_macs{EVIL}": 0.4}):
        page = Page(run_page(report | {"target": target, "convention": f"mac{EVIL}"}))
        assert not {"script", "img"} & set(page.tags) and page.text.count(EVIL) > 20
        assert not any(name.startswith("on") for _, attributes in page.attributes for name in attributes)
