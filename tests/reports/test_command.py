"""`secateur report` writes a page or a picture of a report.json, and refuses what is none."""

import json
import re

import pytest

from secateur.__main__ import dispatch
from secateur.reports.command import picture_file
from secateur.reports.page import run_page
from secateur.runs import UsageError, write_json
from secateur.runs.seal import sealed
from tests.helpers.reports import full, pruned


@pytest.mark.parametrize("report", [full(), pruned()])
def test_a_page_is_written_beside_its_report(report, tmp_path):
    (tmp_path / "report.json").write_text(json.dumps(report))
    dispatch(["report", str(tmp_path / "report.json")], "secateur")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == run_page(report)


def test_a_picture_is_written_where_it_is_asked_for(tmp_path):
    (tmp_path / "report.json").write_text(json.dumps(full()))
    dispatch(
        ["report", str(tmp_path / "report.json"), "--picture", "widths", "--output", str(tmp_path / "x.svg")],
        "secateur",
    )
    assert (tmp_path / "x.svg").read_text(encoding="utf-8") == picture_file(full(), "widths")


@pytest.mark.parametrize("content", [None, "[]", '{"arch": "ResNet-8"}', "<!doctype html>"])
def test_what_is_no_report_is_refused(content, tmp_path):
    file = tmp_path / "report.json"
    if content:
        file.write_text(content)
    with pytest.raises(UsageError, match="Received: .*report.json\ngive"):
        dispatch(
            ["report", str(file), "--picture", "search", "--output", str(tmp_path / "out.svg")], "secateur"
        )
    assert not (tmp_path / "out.svg").exists()


@pytest.mark.parametrize("change", [{"rows": 5}, {"rows": [{}]}, {"epochs": 1}, {"learning": {"a": 1}}])
def test_a_report_that_no_run_has_written_is_refused(change, tmp_path):
    file = tmp_path / "report.json"
    file.write_text(json.dumps(full() | change))
    with pytest.raises(UsageError, match="no run has written this report .*Received: .*report.json"):
        dispatch(["report", str(file)], "secateur")
    assert not (tmp_path / "report.html").exists()


def test_a_defect_on_a_report_that_a_run_has_written_is_not_blamed_on_the_report(tmp_path, monkeypatch):
    """The same exception on the same report: once as written, once with a number changed."""
    file = tmp_path / "report.json"

    def broken(report):
        raise KeyError("a defect")

    monkeypatch.setattr("secateur.reports.command.run_page", broken)
    for report, error in ((sealed(full()), KeyError), (sealed(full()) | {"bn": "other"}, UsageError)):
        write_json(file, report)
        with pytest.raises(error):
            dispatch(["report", str(file)], "secateur")


@pytest.mark.parametrize(
    ("words", "message"),
    [([], "Which report"), (["x.json", "--pictur", "widths"], "Did you mean '--picture'?")],
)
def test_its_words_are_read_like_those_of_all_commands(words, message):
    with pytest.raises(UsageError, match=re.escape(message)):
        dispatch(["report", *words], "secateur")
