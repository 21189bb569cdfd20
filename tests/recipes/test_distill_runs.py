"""Distillation on the digits: killed and continued, and from teachers of other architectures."""

import os
import signal

import numpy as np
import pytest

from secateur.runs import read_json, read_jsonl, sha256
from tests.recipes.test_interrupted import metrics, seen

SMALL = ["--recipe", "distill", "--arch", "ResNet-8", "--dataset", "DIGITS", "--train_images", 64]
SMALL += ["--batch_size", 32, "--train_epoch", 2, "--time_seconds", 0.05, "--train_path", "run"]


def run(programs, folder, *words):
    done = programs.run("train_cifar.py", *SMALL, *words, cwd=folder)
    assert done.code == 0, done.err[-2000:]
    return folder / "run", done


@pytest.mark.slow  # kills are those of test_interrupted, weights of a loss those of test_lesson
def test_killed_in_the_training_it_ends_in_the_same_bits(programs, untrained, tmp_path):
    """`afd` has weights of its own, which a checkpoint must hold too. Eight epochs: one is over at once."""
    words = ["--distill", "kd+afd", "--teacher", untrained("ResNet-8"), "--seed", 3, "--train_epoch", 8]
    folders = [tmp_path / name for name in ("whole", "killed")]
    for folder in folders:
        folder.mkdir()
    whole, _ = run(programs, folders[0], *words)
    process = programs.start("train_cifar.py", *SMALL, *words, cwd=folders[1])
    assert seen(folders[1] / "run", "checkpoint_fine_tune-*.pkl", process)
    os.kill(process, signal.SIGKILL)
    assert programs.wait().code == -signal.SIGKILL
    assert not (folders[1] / "run" / "trained_param.pkl").exists()
    killed, done = run(programs, folders[1], *words)
    assert "fine_tune: continuing after epoch " in done.out + done.err
    assert sha256(killed / "trained_param.pkl") == sha256(whole / "trained_param.pkl")
    assert metrics(killed) == metrics(whole)


@pytest.mark.slow
def test_a_deeper_teacher_is_learnt_from_and_the_report_says_how(programs, untrained, tmp_path):
    """The parts of the loss in metrics.jsonl, by the weights in report.json, add up to the loss."""
    path = untrained("ResNet-14")
    words = ["--distill", "kd+at", "--betas", 10, "--label_weight", 0.5, "--train_epoch", 1, "--accum", 2]
    folder, done = run(programs, tmp_path, *words, "--teacher", path)
    learning = read_json(folder / "report.json")["learning"]
    assert learning["teachers"] == [{"file": str(path), "sha256": sha256(path), "arch": "ResNet-14"}]
    weights = {"cross_entropy": learning["label_weight"]}
    weights |= {loss["name"]: loss["weight"] for loss in learning["losses"]}
    assert weights == {"cross_entropy": 0.5, "kd": 0.9, "at": 10.0}
    (epoch,) = read_jsonl(folder / "metrics.jsonl")
    parts = {name: epoch[f"unweighted_{name}"] for name in weights}
    assert min(parts.values()) > 0
    assert np.dot([*weights.values()], [*parts.values()]) == pytest.approx(epoch["loss"], rel=1e-5)
    line = f"fine_tune: learning from {path} (ResNet-14): cross-entropy ×0.5 + kd ×0.9 (T 4, T²) + at ×10"
    assert line in done.out.splitlines()
    assert "It is as large" not in (folder / "report.html").read_text()


@pytest.mark.slow
def test_a_teacher_of_another_family_is_learnt_from(programs, untrained, tmp_path):
    """Gram matrices are of one size whatever a network's resolutions and widths are."""
    words = ["--distill", "kd+hap", "--train_epoch", 1, "--teacher", untrained("VGG-11")]
    folder, _ = run(programs, tmp_path, *words)
    (epoch,) = read_jsonl(folder / "metrics.jsonl")
    assert epoch["unweighted_hap"] > 0


def test_a_teacher_with_other_classes_is_refused(programs, untrained, tmp_path):
    path = untrained("ResNet-8", 100)
    done = programs.run("train_cifar.py", *SMALL, "--teacher", path, cwd=tmp_path)
    assert done.code == 4 and len(done.err.strip().splitlines()) <= 3
    assert f"{path} does not fit --dataset DIGITS, whose classes is 10. Received: classes=100" in done.err
    assert not (tmp_path / "run").exists()
