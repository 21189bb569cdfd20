"""Both published commands on the embedded digits: what they print, leave behind, and do the second time."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest

from secateur import dataloader, exports
from secateur.pruning import Plan
from secateur.runs import load_snapshot, read_json, read_jsonl, sha256
from tests.helpers.forked import REPO

STEPS = ["baseline", "warm_up", "search_ekg", "search_ekg-cut", "bank", "fine_tune"]
STEPS += ["compact", "litert", "report"]
FILES = {
    "config.json", "manifest.json", "plan_ekg.json", "snap_baseline.pkl", "snap_warm.pkl", "search.jsonl",
    "search_state.pkl", "bank.npy", "slimmed_param.pkl", "trained_param.pkl", "metrics.jsonl",
    "compact.keras", "model.tflite", "report.json", "report.html", "tensorboard",
}  # fmt: skip
COMMAND = ["--gpu_id", 0, "--arch", "ResNet-8", "--dataset", "DIGITS", "--target_rate", 0.9]
COMMAND += ["--train_path", "../test", "--baseline_epoch", 2, "--train_epoch", 2]
COMMAND += ["--train_images", 512, "--time_seconds", 0.1]
BARS = ("baseline", "warm_up", "search", "memory bank", "fine_tune")


@pytest.fixture(scope="module")
def report(published) -> dict:
    return read_json(published.folder / "report.json")


@pytest.fixture(scope="module")
def digits() -> dataloader.Splits:
    return dataloader.load("DIGITS")


def test_both_end_well(published):
    assert (published.train.code, published.test.code) == (0, 0), published.test.err


def test_the_run_folder_is_complete_and_holds_no_leftovers(published):
    names = {path.name for path in published.folder.iterdir()} - {".lock"}
    assert names == FILES
    manifest = read_json(published.folder / "manifest.json")["steps"]
    assert list(manifest) == STEPS
    for entry in manifest.values():
        assert sha256(published.folder / entry["file"]) == entry["sha256"]


def test_stderr_is_one_warning_and_progress_bars(published):
    """No line of TensorFlow's, absl's or LiteRT's."""
    lines = [line for line in re.split(r"[\r\n]+", published.train.err) if line.strip()]
    assert lines[0] == "warning: no GPU on this machine, --gpu_id 0 is ignored: running on the CPU"
    assert [line for line in lines[1:] if not line.startswith(BARS)] == []
    assert {bar for line in lines for bar in BARS if line.startswith(bar)} == set(BARS)
    assert published.test.err.splitlines() == lines[:1]


def test_stdout_says_how_long_the_baseline_takes_and_ends_in_a_table(published, report):
    lines = published.train.out.splitlines()
    assert re.fullmatch(
        r"no --trained_param: training the baseline for 2 epochs, about \d:\d\d:\d\d .*", lines[0]
    )
    assert all(
        any(row["name"] in line and f"{row['params']:,}" in line for line in lines) for row in report["rows"]
    )
    assert "report.html" in lines[-1]


def test_test_py_prints_the_accuracy_of_the_report(published, report):
    (line,) = published.test.out.splitlines()
    row = report["rows"][-1]
    assert row["name"] == "trained"
    assert f"accuracy {100 * row['test_accuracy']:.2f} % on 355 test images" in line
    assert f"{row['params']:,} parameters, {row['macs']:,} MACs" in line


def test_the_search_ends_just_below_its_target(report):
    rates = [step["rate"] for step in report["search"]]
    assert rates[0] == 1 and rates == sorted(rates, reverse=True)
    assert 0.87 < rates[-1] <= 0.9 < rates[-2]


def test_the_networks_have_the_widths_of_the_plan(published):
    plan = Plan.from_json(read_json(published.folder / "plan_ekg.json"))
    for name in ("slimmed_param.pkl", "trained_param.pkl"):
        snapshot = load_snapshot(published.folder / name)
        assert snapshot.plan == plan.to_json()
        assert snapshot.arrays["fc/kernel:0"].shape[-1] == 10
        widths = plan.widths()
        assert {widths[layer] for layer in widths if layer == "conv"} == {
            snapshot.arrays["conv/kernel:0"].shape[-1]
        }


def test_the_test_images_were_asked_for_once(report):
    assert report["test_reads"] == 1


def test_metrics_have_a_line_for_every_epoch(published):
    rows = read_jsonl(published.folder / "metrics.jsonl")
    found = [(row["phase"], row["step"]) for row in rows]
    assert found == [("baseline", 1), ("baseline", 2), ("warm_up", 1), ("fine_tune", 1), ("fine_tune", 2)]
    # 0.01 · 0.2^k: the last step of epoch 2 lies behind all three points.
    assert rows[-1]["learning_rate"] == pytest.approx(0.01 * 0.2**3, rel=1e-6)


def test_the_bank_holds_the_teachers_on_the_training_images(published, report, digits):
    bank = np.load(published.folder / "bank.npy")
    assert bank.shape == (512, 10, len(report["bank"]["teachers"])) and bank.dtype == np.float32
    losses = report["bank"]["losses"]
    assert losses[0] == min(step["loss"] for step in report["search"][:-1])


def test_the_litert_file_computes_what_the_network_does(report):
    assert 0 < report["litert"]["max_difference"] < 1e-5


def test_the_plain_model_needs_nothing_of_the_project(published, digits, report, tmp_path):
    """A fresh process in another folder, with Keras alone."""
    mean, std = np.float32(digits.facts.mean), np.float32(digits.facts.std)
    np.save(tmp_path / "images.npy", (digits.test.images - mean) / std)
    program = (
        "import sys, keras, numpy as np\n"
        f"model = keras.models.load_model({str(published.folder / 'compact.keras')!r})\n"
        "np.save('logits.npy', model.predict(np.load('images.npy'), verbose=0))\n"
        "assert not {'nets', 'pruning', 'recipes', 'runs'} & set(sys.modules)\n"
        "print({type(layer).__module__.split('.')[0] for layer in model.layers})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "{'keras'}\n"
    logits = np.load(tmp_path / "logits.npy")
    accuracy = np.mean(logits.argmax(1) == digits.test.labels)
    assert accuracy == pytest.approx(report["rows"][-1]["test_accuracy"], abs=1e-9)

    lite = (published.folder / "model.tflite").read_bytes()
    images = np.load(tmp_path / "images.npy")
    np.testing.assert_allclose(exports.litert_runner(lite, len(images))(images), logits, atol=1e-4)


def test_the_same_command_again_only_prints_the_table(published, programs):
    before = {
        path.name: path.stat().st_mtime_ns for path in published.folder.glob("*.*") if path.suffix != ".lock"
    }
    again = programs.run("train_cifar.py", *COMMAND, cwd=published.cwd)
    assert again.code == 0, again.err
    assert published.train.out.endswith(again.out) and "trained" in again.out
    assert len(again.err.splitlines()) == 1
    untouched = set(before) - {"plan_ekg.json", ".lock"}
    assert {n for n in untouched if (published.folder / n).stat().st_mtime_ns != before[n]} == set()


def test_a_page_that_was_deleted_is_made_again(published, programs):
    page = published.folder / "report.html"
    before = page.read_bytes()
    page.unlink()
    again = programs.run("train_cifar.py", *COMMAND, cwd=published.cwd)
    assert again.code == 0 and page.read_bytes() == before


def test_several_snapshots_are_an_ensemble(published, programs):
    names = [published.folder / name for name in ("snap_baseline.pkl", "trained_param.pkl")]
    options = ["--arch", "ResNet-8", "--dataset", "DIGITS", "--trained_param", *names]
    done = programs.run("test.py", *options, cwd=published.cwd)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert [line.split(":")[0] for line in lines] == [*map(str, names), "ensemble of 2 (mean of softmax)"]


def test_report_json_is_json_of_numbers(published):
    def refuse(name):
        raise AssertionError(name)

    json.loads((published.folder / "report.json").read_text(), parse_constant=refuse)
    assert (REPO / "train_cifar.py").is_file()


def test_a_reader_who_leaves_before_the_table_is_code_141(programs, published):
    code = """
import os, sys
from secateur.recipes.engine.report import print_table
from secateur.runs import cli, read_json
end, start = os.pipe()
os.dup2(start, 1)
os.close(end)  # nobody reads any more
sys.exit(cli(lambda: print_table(read_json(sys.argv[1]))))
"""
    done = programs.run_code(code, published.folder / "report.json", cwd=published.cwd)
    assert (done.code, "Traceback" in done.err) == (141, False), done.err
