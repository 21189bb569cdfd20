"""The recipes distill and hap on the digits."""

import shutil

import numpy as np
import pytest

from secateur import dataloader, nets
from secateur.dataloader.augment import normalise
from secateur.pruning import Plan
from secateur.recipes.training.scoring import score_logits
from secateur.runs import load_snapshot, read_json, read_jsonl, sha256

BASE = ["--arch", "ResNet-8", "--dataset", "DIGITS", "--train_epoch", 1, "--time_seconds", 0.1]
HAP = "--t-model resnet8 --s-copy-t --dataset digits --prune-rates 0.6 --prune-mode filter-nggm --distill hap"
SHORT = ["--train_epoch", 1, "--train_images", 256]


@pytest.fixture(scope="module")
def run(programs, tmp_path_factory):
    """Runs `train_cifar.py` with these words in a new folder; returns that and what the program said."""

    def start(*words, folder=None):
        folder = folder or tmp_path_factory.mktemp("distill") / "run"
        return folder, programs.run("train_cifar.py", *words, "--train_path", folder, cwd=folder.parent)

    return start


@pytest.fixture(scope="module")
def hap(run, untrained):
    """HAP's own command, with NGGM and HAP's loss."""
    words = [*HAP.split(), "--t-path", untrained(), "--betas", 700]
    folder, done = run("--recipe", "hap", *words, *SHORT)
    assert done.code == 0, done.err[-2000:]
    return folder


def test_haps_command_ends_in_a_smaller_plain_network(hap, untrained):
    report = read_json(hap / "report.json")
    assert [row["name"] for row in report["rows"]] == ["teacher", "slimmed", "trained"]
    assert report["rows"][-1]["params"] < 0.4 * report["rows"][0]["params"]
    assert {"compact.keras", "model.tflite", "report.html"} <= {path.name for path in hap.iterdir()}
    plan = Plan.from_json(read_json(hap / "plan_nggm.json"))
    assert all(abs(width / plan.sizes[name] - 0.6) < 0.04 for name, width in plan.widths().items())
    assert report["test_reads"] == 1
    learning = report["learning"]
    teacher = {"file": str(untrained()), "arch": "ResNet-8"}
    assert learning["teachers"] == [teacher | {"sha256": sha256(teacher["file"])}]
    assert learning["student"] == {"arch": "ResNet-8", "start": f"a copy of {teacher['file']}"}


@pytest.mark.slow
def test_a_folder_goes_on_with_another_beta_and_does_only_the_training_again(hap, run, untrained):
    before = read_json(hap / "manifest.json")["steps"]
    words = [*HAP.split(), "--t-path", untrained(), "--betas", 70]
    _, done = run("--recipe", "hap", *words, *SHORT, folder=hap)
    assert "betas=[700.0] is now [70.0]; to be done again: fine_tune, compact, litert, report" in done.out
    after = read_json(hap / "manifest.json")["steps"]
    assert {name for name in before if before[name] != after[name]} == {
        "fine_tune",
        "compact",
        "litert",
        "report",
    }


@pytest.mark.slow
def test_a_teacher_that_was_replaced_is_another_run(run, untrained, tmp_path):
    teacher = tmp_path / "teacher.pkl"
    shutil.copy(untrained(), teacher)
    words = ["--recipe", "distill", *BASE, "--teacher", teacher, "--train_images", 64, "--batch_size", 32]
    folder, done = run(*words)
    assert done.code == 0, done.err[-2000:]
    shutil.copy(untrained(seed=1), teacher)
    _, done = run(*words, folder=folder)
    assert done.code == 5 and "sha256" in done.err and len(done.err.strip().splitlines()) <= 3


def test_a_batch_larger_than_the_images_is_refused_at_once(run, untrained):
    words = ["--recipe", "distill", *BASE, "--teacher", untrained()]
    folder, done = run(*words, "--train_images", 50)
    assert done.code == 3 and "Received: batch_size=128" in done.err and not folder.exists()


def test_stored_logits_are_those_of_the_teachers(run, untrained):
    teachers = [untrained(), untrained(seed=1)]
    words = ["--recipe", "distill", *BASE, "--no-augment", "--teacher", *teachers, "--mean", "logits"]
    folder, done = run(*words, "--bank_dtype", "float16", "--train_images", 320, "--teacher_filter", "sample")
    assert done.code == 0, done.err[-2000:]
    logits = np.load(folder / "bank.npy")
    assert (logits.shape, logits.dtype) == ((320, 10, 2), np.float16)
    report = read_json(folder / "report.json")
    assert [row["name"] for row in report["rows"]] == ["teacher 1", "teacher 2", "trained"]
    assert "bank" in report["seconds"]


@pytest.mark.slow
def test_teachers_farther_from_the_best_than_the_student_are_left_out(run, untrained):
    """A copy of the first teacher leaves no room: of all teachers only the first one stays."""
    teachers = [untrained(), untrained(seed=1)]
    copied = ["--trained_param", teachers[0], "--arch", "ResNet-8", *BASE[2:], "--train_images", 320]
    words = [*copied, "--teacher", *teachers, "--teacher_filter", "dataset"]
    _, done = run("--recipe", "distill", *words)
    assert done.code == 0, done.err[-2000:]
    line = next(line for line in done.out.splitlines() if line.startswith("teachers nearer"))
    assert line.split(": ")[1] == "1 of 2"


def test_the_teacher_may_be_another_network_and_stays_as_it_was(run, untrained):
    teacher = untrained()
    before = sha256(teacher)
    words = [
        "--recipe",
        "distill",
        "--arch",
        "ResNet-14",
        *BASE[2:],
        "--distill",
        "kd+sp",
        "--teacher",
        teacher,
        "--train_images",
        128,
    ]
    folder, done = run(*words)
    assert done.code == 0, done.err[-2000:]
    assert load_snapshot(folder / "trained_param.pkl").spec["arch"] == "ResNet-14"
    assert sha256(teacher) == before


@pytest.mark.slow
def test_filters_that_a_loss_moves_are_those_that_are_kept(run, untrained):
    """What the holdout was shown behind the last epoch is the network that is saved, cut to size."""
    words = ["--t-path", untrained(), "--train_images", 320, "--no-augment"]
    folder, done = run(
        "--recipe", "hap", *BASE, *words, "--distill", "fad", "--betas", 300, "--prune-rates", 0.6
    )
    assert done.code == 0, done.err[-2000:]
    splits = dataloader.load("DIGITS")
    logits = nets.load_params(None, folder / "trained_param.pkl")(
        normalise(splits.holdout.images, splits.facts.mean, splits.facts.std), training=False
    )
    shown = read_jsonl(folder / "metrics.jsonl")[-1]
    assert shown["holdout_loss"] == pytest.approx(
        score_logits(logits.numpy(), splits.holdout.labels).loss, rel=1e-4
    )


@pytest.mark.parametrize(
    ("words", "received"),
    [
        (["--distill", "kd+hop", "--teacher", "x.pkl"], "loss='hop'"),
        (["--distill", "at", "--teacher", "x.pkl", "y.pkl"], "add kd"),
        (["--distill", "kd", "--teacher", "nowhere.pkl"], "nowhere.pkl"),
    ],
)
def test_what_does_not_exist_is_named_before_anything_is_written(run, words, received):
    folder, done = run("--recipe", "distill", *BASE, *words)
    assert done.code != 0 and received in done.err and len(done.err.strip().splitlines()) <= 2
    assert not folder.exists()
