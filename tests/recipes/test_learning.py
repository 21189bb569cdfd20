"""What report.json says of the objective is what is minimised, and the sentence says it in words."""

import pytest

from secateur.distillation import build
from secateur.recipes.engine.command import choose
from secateur.recipes.engine.program import program_of
from secateur.recipes.training.learning import LearningOptions, learning_of, losses_of
from secateur.reports.words import learning_text, objective_text


@pytest.fixture
def described(tmp_path):
    """Command line behind two teachers' files → what is said of it."""

    def describe(words: str, teachers: int = 1, recipe: str = "distill") -> dict:
        files = [str(tmp_path / name) for name in ("a.pkl", "b.pkl")][:teachers]
        given = ["--teacher", *files] if files else []
        step = program_of(choose(["--recipe", recipe, *given, *words.split()])).steps[-1]
        archs = zip(files, ("ResNet-56", "VGG-16"), strict=False)
        known = [{"file": path, "sha256": "ab", "arch": arch} for path, arch in archs]
        return learning_of(step.settled(10), losses_of(step, len(files), "fine_tune"), known)

    return describe


def test_hap_without_a_word_is_its_published_objective(described):
    found = described("", recipe="hap")
    assert [(loss["name"], loss["weight"]) for loss in found["losses"]] == [("kd", 0.9), ("hap", 700.0)]
    assert found["losses"][1]["options"] == {"teacher_blocks": 3}
    assert objective_text(found) == "cross-entropy ×1 + kd ×0.9 (T 4, T²) + hap ×700 (3 teacher blocks)"


def test_every_option_of_every_loss_is_there_as_it_is_used(described):
    words = "--distill kd+crd+kd_std --betas 5 7 --temperature 3 --kd_factor T --kd_over_classes --hap_ts 9"
    losses = {loss["name"]: loss for loss in described(f"{words} --label_weight 0.5")["losses"]}
    assert [loss["weight"] for loss in losses.values()] == [0.9, 5.0, 7.0]
    assert losses["kd"]["options"] == {
        "temperature": 3.0, "factor": "T", "mean": "kl", "over_classes": True, "weights": None
    }  # fmt: skip
    assert losses["crd"]["options"] == {"temperature": 0.07, "size": 128, "ratio": 16_384 / 50_000}
    assert losses["kd_std"]["options"]["temperature"] == build("kd_std").temperature == 2.0


def test_several_teachers_and_their_filter_are_named(described):
    found = described("--mean tempered --teacher_filter sample --temperature 2", teachers=2)
    assert found["filter"] == {"by": "sample", "mean": "tempered", "temperature": 2.0}
    assert [teacher["arch"] for teacher in found["teachers"]] == ["ResNet-56", "VGG-16"]
    text = learning_text(found)
    assert "a.pkl (ResNet-56), " in text and "by sample (T 2, mean of tempered)" in text
    weighted = described("--teacher_weights 1 3", teachers=2)
    assert weighted["losses"][0]["options"]["weights"] == [1.0, 3.0]
    assert "kd ×0.9 (T 4, T², mean of divergences, teachers weighted 1, 3)" in learning_text(weighted)


def test_kernels_that_a_loss_moves_are_no_part_of_the_sum(described):
    text = objective_text(described("--distill kd+fad --betas 300"))
    assert text.startswith("cross-entropy ×1 + kd ×0.9 (T 4, T²); filters moved by fad ×300 (")


def test_the_loss_on_labels_and_numbers_have_their_names():
    losses = [(build("kd", temperature=5.0), 1.0), (build("hap", teacher_blocks=3), 7.0)]
    found = learning_of(LearningOptions(teacher="dense"), losses, [], "mean_squared_error", numbers=True)
    assert objective_text(found) == "mean_squared_error ×1 + kd ×1 + hap ×7 (3 teacher blocks)"


def test_labels_alone(described):
    found = described("--distill none", teachers=0)
    assert (found["losses"], found["teachers"], found["filter"]) == ([], [], None)
    assert learning_text(found) == "learning from the labels alone: cross-entropy ×1"
