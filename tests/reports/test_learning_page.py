"""The page of a distillation: it says what was learnt from whom, and nothing that did not happen."""

import json
from functools import cache
from xml.etree import ElementTree

import pytest

from secateur.reports.page import run_page
from secateur.reports.words import summary
from tests.helpers.pages import Page
from tests.helpers.reports import full, learnt, learnt_by_slimmed


def seen(report: dict) -> str:
    return _seen(json.dumps(report))


@cache
def _seen(report: str) -> str:
    return Page(run_page(json.loads(report))).text


def sentence(report: dict) -> str:
    return summary(report).replace("\u00a0", " ")


def test_the_headline_compares_student_and_teacher():
    assert sentence(learnt()) == (
        "The student reaches 93.82 % on the test images (teacher 95.07 %, student before 80.28 %). Beside "
        "the teacher it has 272,474 parameters (58 %), 40.8 M MACs (59 %) and 28.8 ms per batch of 128 on "
        "LiteRT (72 %)."
    )
    assert "(teacher 95.07 %, slimmed 41.00 %)" in sentence(learnt_by_slimmed())


def test_networks_of_one_shape_are_not_compared_by_their_times():
    report = learnt()
    report["rows"][0] |= {key: report["rows"][1][key] for key in ("params", "macs")}
    text = sentence(report)
    assert "It is as large as the teacher: 272,474 parameters, 40.8 M MACs." in text and " ms " not in text
    assert "Accuracy and cost" not in seen(report) and "Accuracy and cost" in seen(learnt())


def test_without_a_teacher_there_is_nobody_to_compare_with():
    report = learnt()
    report["rows"] = report["rows"][-1:]
    report["learning"] |= {"teachers": [], "losses": []}
    assert sentence(report) == (
        "The student reaches 93.82 % on the test images. It has 272,474 parameters and 40.8 M MACs."
    )
    assert "SHA-256 begins" in seen(learnt()) and "SHA-256 begins" not in seen(report)


def test_nothing_is_called_slimmed_or_searched_that_was_not():
    words = ("slimmed", "search", "arm-up", "EKG")
    assert not [word for word in words if word in seen(learnt())]
    text = seen(learnt_by_slimmed())
    assert "From whole to slimmed network" in text and "Fine-tuning of the slimmed network" in text
    assert not [word for word in ("From search", "arm-up", "EKG") if word in text]
    assert "From search to slimmed network" in seen(full()) and "Learning" not in seen(full()).split("\n")


def test_losses_have_their_weights_options_and_last_means():
    rows = ElementTree.fromstring(run_page(learnt())).iter("tr")
    cells = {line[0]: line[1:] for tr in rows if (line := ["".join(cell.itertext()) for cell in tr])}
    assert cells["cross_entropy"] == ["0.5", "–", "0.25", "0.125"]
    assert cells["kd"] == ["0.9", "T 4, T²", "0.1", "0.09"]
    assert cells["hap"] == ["700", "3 teacher blocks", "0.0002", "0.14"]
    assert cells["fad"] == ["300", "units 128, moves filters", "–", "–"]
    assert cells["ResNet-32"] == ["res32.pkl", "0123abcd0123"]
    assert "The student, ResNet-20, began with small.pkl." in seen(learnt())


def test_every_epoch_has_the_parts_of_its_loss():
    text = seen(learnt())
    for name in ("cross_entropy", "kd", "hap"):
        assert f"{name}, unweighted" in text
    assert "unweighted" not in seen(full())


def test_teachers_that_a_filter_left_out_are_told():
    report = learnt()
    report["learning"] |= {
        "filter": {"by": "dataset", "mean": "logits", "temperature": 4.0}, "stored": True,
        "kept_teachers": [1.0, 0.0, 1.0],
    }  # fmt: skip
    text = seen(report)
    assert "by dataset (T 4, mean of logits)" in text and "Teachers that stayed: 1 and 3." in text
    assert "stored logits" in text


@pytest.mark.parametrize("report", [learnt(), learnt_by_slimmed()])
def test_the_page_is_well_formed(report):
    ElementTree.fromstring(run_page(report))
