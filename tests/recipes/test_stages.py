"""A folder that goes on with other options does again what depends on them, and nothing else."""

import shutil

import pytest

from secateur.recipes.engine.config import Config
from secateur.recipes.stages import forget_outdated
from secateur.runs import MetricsLog, RunFolder, read_json, read_jsonl, sha256

NETWORK = ["--arch", "ResNet-20", "--dataset", "DIGITS", "--target_rate", 0.9, "--train_epoch", 2]


def again(programs, folder, *options) -> str:
    """Runs the command in `folder`; returns the first line that it prints."""
    done = programs.run("train_cifar.py", *NETWORK, *options, "--train_path", folder, cwd=folder.parent)
    assert done.code == 0, done.err[-2000:]
    return done.out.splitlines()[0]


def times(folder) -> dict[str, str]:
    """When each step was done, and what came out."""
    steps = read_json(folder / "manifest.json")["steps"]
    return {name: (entry["time"], entry["seconds"], entry["sha256"]) for name, entry in steps.items()}


@pytest.mark.slow
def test_after_searching_the_whole_command_goes_on(published, programs, tmp_path):
    """… and ends in the bits of a run that did not stop in between."""
    folder, source = tmp_path / "run", ["--trained_param", published.folder / "snap_baseline.pkl"]
    again(programs, folder, *source, "--searching")
    before = times(folder)
    assert list(before) == ["baseline", "warm-up", "search", "slim", "bank", "report"]
    assert again(programs, folder, *source).endswith("searching=True is now False; to be done again: report")
    after = times(folder)
    assert {name: after[name] for name in before if name != "report"} == {
        name: entry for name, entry in before.items() if name != "report"
    }
    assert sha256(folder / "trained_param.pkl") == sha256(published.folder / "trained_param.pkl")
    report = read_json(folder / "report.json")
    assert [row["name"] for row in report["rows"]] == ["baseline", "slimmed", "fine-tuned"]
    assert report["config"]["searching"] is False
    assert read_json(folder / "config.json")["searching"] is False


def test_without_knowledge_only_the_fine_tuning_is_done_again(published, programs, tmp_path):
    folder = shutil.copytree(published.folder, tmp_path / "run")
    before = times(folder)
    line = again(programs, folder, "--baseline_epoch", 2, "--no-Knowledge")
    expected = "Knowledge=True is now False; to be done again: fine-tune, compact, litert, report"
    assert line == f"{folder}: {expected}"
    after = times(folder)
    redone = {"fine-tune", "compact", "litert", "report"}
    assert set(after) == set(before)
    assert {name for name in after if after[name] != before[name]} == redone
    assert sha256(folder / "trained_param.pkl") != sha256(published.folder / "trained_param.pkl")
    rows = read_jsonl(folder / "metrics.jsonl")
    assert [row["step"] for row in rows if row["phase"] == "fine-tune"] == [1, 2]
    report = read_json(folder / "report.json")
    assert report["bank"] == {} and "bank" not in report["seconds"]  # the one on disk was not used
    assert again(programs, folder, "--baseline_epoch", 2, "--no-Knowledge").lstrip()[0] != "/"  # said once


@pytest.mark.parametrize(
    ("change", "left"),
    [
        ({}, ["search", "bank", "slim", "fine-tune", "report"]),
        ({"setting": "night", "do_log": 1}, ["search", "bank", "slim", "fine-tune", "report"]),
        ({"bn": "batch"}, ["search", "bank", "slim", "fine-tune"]),
        ({"learning_rate": 0.1, "bn": "batch"}, ["search", "bank", "slim"]),
        ({"num_teacher": 3}, ["search", "slim"]),
    ],
)
def test_the_earliest_change_decides(tmp_path, change, left):
    first, second = Config(), Config(**change)
    with RunFolder(tmp_path, first.to_json()) as folder, MetricsLog(folder, tensorboard=False) as log:
        for step in ("search", "bank", "slim", "fine-tune", "report"):
            folder.write(step, b"made")
            folder.record(step, step, 1.0)
        log.log(1, phase="fine-tune", loss=1.0)
        forget_outdated(folder, log, second)
        assert [s for s in ("search", "bank", "slim", "fine-tune", "report") if folder.done(s)] == left
        assert len(log.rows("fine-tune")) == ("fine-tune" in left)
        assert (tmp_path / "fine-tune").read_bytes() == b"made"
