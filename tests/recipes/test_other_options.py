"""What the run looks like with other criteria and switches, from a baseline that is there already."""

import numpy as np
import pytest

from secateur.pruning import Plan
from secateur.runs import load_snapshot, read_json

BASE = ["--arch", "ResNet-8", "--dataset", "DIGITS", "--train_epoch", 1, "--time_seconds", 0.1]


@pytest.fixture(scope="module")
def run(untrained, programs, tmp_path_factory):
    """Runs `train_cifar.py` from a baseline that is there already; returns folder and report."""

    def start(*options):
        folder = tmp_path_factory.mktemp("other") / "run"
        source = ["--trained_param", untrained(), "--train_path", folder]
        done = programs.run("train_cifar.py", *BASE, *source, *options, cwd=folder.parent)
        assert done.code == 0, done.err[-2000:]
        return folder, read_json(folder / "report.json")

    return start


def widths(folder, criterion: str) -> dict[str, int]:
    plan = Plan.from_json(read_json(folder / f"plan_{criterion}.json"))
    stored = load_snapshot(folder / "slimmed_param.pkl")
    assert stored.arrays["conv/kernel:0"].shape[-1] == plan.widths()["conv"]
    return plan.widths()


@pytest.mark.slow
def test_l1_prunes_uniformly_without_search_or_bank(run):
    folder, report = run("--criterion", "l1", "--target_rate", 0.5, "--accum", 2)
    names = {path.name for path in folder.iterdir()}
    assert not {"search_state.pkl", "bank.npy", "snap_warm.pkl", "plan_ekg.json"} & names
    assert {"plan_l1.json", "trained_param.pkl", "compact.keras", "model.tflite"} <= names
    kept = {
        round(width / size, 1)
        for width, size in zip(widths(folder, "l1").values(), sizes(report), strict=True)
    }
    assert len(kept) <= 2  # one ratio, rounded to whole channels
    rows = report["rows"]
    assert 0.4 < rows[1]["flops_ekg"] / rows[0]["flops_ekg"] <= 0.5
    assert [row["name"] for row in rows] == ["baseline", "slimmed", "trained"]


def sizes(report: dict) -> list[int]:
    return [row["before"] for row in report["widths"]]


def test_searching_stops_behind_the_slimmed_network(run):
    options = ["--criterion", "random", "--target_rate", 0.5, "--normalisation", "bgr"]
    folder, report = run(*options, "--searching")
    names = {path.name for path in folder.iterdir()}
    assert "slimmed_param.pkl" in names and not {"trained_param.pkl", "compact.keras"} & names
    assert [row["name"] for row in report["rows"]] == ["baseline", "slimmed"]
    assert (
        report["test_reads"] == 1 and report["system"] == "ekg --no-Knowledge --criterion random --searching"
    )
    # Its constants are the same in both orders; the name is kept all the same.
    assert load_snapshot(folder / "slimmed_param.pkl").facts["normalisation"] == "bgr"


@pytest.mark.slow
def test_a_search_in_steps_of_eight_without_knowledge(run):
    options = ["--no-Knowledge", "--round_to", 8, "--bn", "batch", "--target_rate", 0.95]
    folder, report = run(*options, "--searching")
    assert {width % 8 for width in widths(folder, "ekg").values()} == {0}
    assert not (folder / "bank.npy").exists() and report["bank"] == {}
    assert report["bn"] == "batch"
    assert report["search"][-1]["rate"] <= 0.95
    assert report["rows"][0]["params"] == 75_290
    assert np.isfinite([row["test_accuracy"] for row in report["rows"]]).all()


def test_test_py_evaluates_with_batch_statistics_too(untrained, programs, tmp_path):
    options = ["--arch", "ResNet-8", "--dataset", "DIGITS", "--bn", "batch", "--val_batch_size", 64]
    done = programs.run("test.py", *options, "--trained_param", untrained(), cwd=tmp_path)
    assert done.code == 0 and "(batch statistics of 64)" in done.out


def test_ekgs_own_bank_computes_in_the_runs_type(run):
    """Logits of bfloat16 have 16 bits, wherever they are stored; the search stays in float32."""
    options = ["--target_rate", 0.9, "--train_images", 256, "--until", "bank"]
    folder, _ = run(*options, "--dtype", "mixed_bfloat16")
    assert not (np.load(folder / "bank.npy").view(np.uint32) & 0xFFFF).any()
    searched = load_snapshot(folder / "search_state.pkl")
    assert searched.facts["settings"]["dtype"] == "float32"
    assert (searched.arrays["teacher"].view(np.uint32) & 0xFFFF).any()
