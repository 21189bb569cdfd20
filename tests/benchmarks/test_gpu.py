"""What JAX trains without TensorFlow is what the TensorFlow loop trains; a failure costs no other run."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gpu import run
from benchmarks.gpu.folder import Folder
from benchmarks.gpu.images import read_mosaics, write_mosaics
from secateur.runs import load_snapshot
from tests.helpers.forked import REPO, shell

BATCH, STEPS = 32, 8  # an epoch of 256 images
# Shortcut A': no residual branch starts at zero, so that every weight moves from the first step on.
TRAIN = (
    'python train_cifar.py --arch ResNet-8 --dataset DIGITS --shortcut "A\'" --baseline_epoch 0'
    f" --target_rate 0.8 --train_epoch 1 --time_seconds 0.05 --train_images 256 --batch_size {BATCH}"
    " --train_path"
)
RUNS = """
[[runs]]
name = "bank"
network = "small"
bank = "interim"
seeds = [1]

[[runs]]
name = "labels"
network = "small"
schedule = "one_cycle"
learning_rate = 0.05
seeds = [1]

[[runs]]
name = "dense"
network = "small-dense"
seeds = [1]

[[runs]]
name = "bank-bf16"
network = "small"
bank = "interim"
dtype = "mixed_bfloat16"
seeds = [1]
"""


# --- beside TensorFlow --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with `run`, trained by TensorFlow, and `results`: the same from its search on, by JAX."""
    if importlib.util.find_spec("jax") is None:
        pytest.skip("JAX is not installed: pip install jax (a development dependency)")
    folder = tmp_path_factory.mktemp("gpu")
    (folder / "runs.toml").write_text(RUNS)
    (folder / "without").mkdir()
    for name in ("tensorflow", "keras"):  # importing it raises ImportError
        (folder / "without" / f"{name}.py").write_text(f"raise ImportError('no {name} here')")
    _done(f"{TRAIN} {folder}/run --until search_ekg")
    module = "python -m benchmarks.gpu"
    _done(f"{module}.export --run small={folder}/run --runs {folder}/runs.toml --out {folder}/export")
    words = ["export", "--work", "work", "--out", "out", "--precision", "float32", "--probe_s", "400"]
    paths = [str(folder / "without"), str(REPO), *filter(None, [os.environ.get("PYTHONPATH")])]
    there = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "benchmarks.gpu.run", *words]
    subprocess.run(command, cwd=folder, env=there, check=True, timeout=600)
    _done(f"{module}.collect {folder}/export {folder}/out --out {folder}/results")
    _done(f"{TRAIN} {folder}/run")
    return folder


def _done(command: str) -> None:
    done = shell(command, REPO)
    assert done.code == 0, done.err[-2000:]


def _notes(trained: Path, event: str) -> dict[str, dict]:
    """The last note of that kind on every program."""
    notes = [json.loads(line) for line in (trained / "out" / "notes.jsonl").read_text().splitlines()]
    return {note.get("program", ""): note for note in notes if note["event"] == event}


def test_first_losses_agree_to_1e_4(trained: Path):
    checks = {name: note["difference"] for name, note in _notes(trained, "check").items()}
    assert checks.pop("bank-bf16") < 2**-8  # half of the distance between two numbers of 8 bits
    assert set(checks) == {"bank", "labels", "dense"} and max(checks.values()) < 1e-4


def test_convolutions_in_bfloat16_round_the_first_loss_to_8_bits_and_no_state(trained: Path):
    program = json.loads((trained / "export" / "runs.json").read_text())["programs"]["bank-bf16"]
    text = gzip.decompress((trained / "export" / program["file"]).read_bytes()).decode()
    shapes = re.findall(r"stablehlo\.convolution.* : \((.*)\) -> (.*?)(?: loc|\n)", text)
    assert shapes and all("f32" not in part and "bf16" in part for row in shapes for part in row)
    assert {row["dtype"] for row in program["results"]} == {"float32"}
    full, half = (_notes(trained, "check")[name] for name in ("bank", "bank-bf16"))
    for side in ("losses", "tensorflow"):
        assert 0 < abs(half[side][0] / full[side][0] - 1) < 2**-8


# --- probes -------------------------------------------------------------------------------------------------


def test_operations_of_a_step_are_those_that_xla_counts(trained: Path):
    # XLA leaves out products with padding, and counts what is no product, too.
    compiled = {re.sub(rf"-{STEPS}$", "", name): note for name, note in _notes(trained, "compiled").items()}
    probes = _notes(trained, "probe")
    for name, probe in probes.items():
        assert 0.85 < compiled[name]["flops"] / probe["flops"] < 1.05, name
    assert probes["bank"]["flops"] == 2 * probes["labels"]["flops"]  # two views
    assert probes["bank"]["flops"] == probes["bank-bf16"]["flops"]
    rows = json.loads((trained / "results" / "full_schedules.json").read_text())["rows"]
    [macs] = (row["macs"] for row in rows if row["name"] == "dense-1")
    assert probes["dense"]["flops"] == 3 * 2 * macs * BATCH


def test_a_step_reads_and_writes_its_state_at_least(trained: Path):
    programs = json.loads((trained / "export" / "runs.json").read_text())["programs"]
    probes = _notes(trained, "probe")
    assert set(probes) == set(programs) == {"bank", "labels", "dense", "bank-bf16"}
    for name, probe in probes.items():
        state = 4 * sum(np.prod(row["shape"]) for row in programs[name]["results"][:-1])
        assert probe["bytes"] > 2 * state


def test_shares_are_those_of_the_ceilings_of_the_same_session(trained: Path):
    ceilings = _notes(trained, "ceilings")[""]
    probes = _notes(trained, "probe")
    precisions = {name: probe["precision"] for name, probe in probes.items()}
    assert precisions == dict.fromkeys(("bank", "labels", "dense"), "float32") | {"bank-bf16": "bfloat16"}
    for name, probe in probes.items():
        steps = probe["images_per_second"] / BATCH  # a second
        product, bandwidth = ceilings[precisions[name]], ceilings["bytes"]
        assert probe["of_product"] == pytest.approx(probe["flops"] * steps / product)
        assert probe["of_bandwidth"] == pytest.approx(probe["bytes"] * steps / bandwidth)
        assert probe["epoch_seconds"] == pytest.approx(STEPS / steps)
        assert probe["of_product"] > 0 and probe["of_bandwidth"] > 0


def test_a_probe_that_fails_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("jax")
    from benchmarks.gpu import probe

    programs = {name: {"first_run": name, "dtype": "mixed_bfloat16"} for name in ("first", "second")}
    runs = [{"name": name, "program": name} for name in programs]
    (tmp_path / "runs.json").write_text(
        json.dumps({"runs": runs, "programs": programs, "networks": {}, "teachers": {}})
    )
    monkeypatch.setattr(probe, "ceilings", lambda side: {})
    monkeypatch.setattr(probe, "Device", lambda folder, precision: None)
    monkeypatch.setattr(probe, "Loop", lambda device, run, steps: {"second": 0.5}[run["name"]])
    monkeypatch.setattr(probe, "measured", lambda loop, limits, precision: {"images_per_second": loop})
    folder = Folder(tmp_path, tmp_path / "work")
    probe.probe(folder)
    events = [(note["event"], note.get("program")) for note in folder.notes()]
    assert events == [("ceilings", None), ("failed", "first"), ("probe", "second")]


def test_weights_after_an_epoch_agree_to_1e_3(trained: Path):
    theirs = load_snapshot(trained / "results" / "bank-1" / "trained_param.pkl")
    ours = load_snapshot(trained / "run" / "trained_param.pkl")
    before = load_snapshot(trained / "run" / "slimmed_param.pkl").arrays
    assert theirs.plan == ours.plan and list(theirs.arrays) == list(ours.arrays)
    for name, array in ours.arrays.items():
        np.testing.assert_allclose(theirs.arrays[name], array, rtol=0, atol=1e-3, err_msg=name)
    moved = max(np.abs(array - before[name]).max() for name, array in ours.arrays.items())
    assert moved > 0.01  # or the agreement would say nothing


# --- failures -----------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """A list of three runs, of which nothing is done."""
    runs = [{"name": name, "program": "step", "epochs": 10} for name in ("first", "second", "third")]
    contents = {"runs": runs, "programs": {}, "networks": {}, "teachers": {}}
    (tmp_path / "runs.json").write_text(json.dumps(contents))
    return Folder(tmp_path, tmp_path / "work")


def test_runs_that_have_begun_come_first(folder: Folder):
    assert run.next_run(folder, 60)["name"] == "first"
    folder.checkpoint_file("third").touch()
    assert run.next_run(folder, 60)["name"] == "third"
    assert run.next_run(folder, run.SPARE - 1) is None


def test_a_run_that_fails_is_tried_again_and_keeps_its_checkpoint(folder: Folder):
    folder.checkpoint_file("first").touch()
    folder.begin("first")
    assert run.next_run(folder, 60)["name"] == "first"
    folder.begin("first")
    assert run.next_run(folder, 60)["name"] == "second"
    folder.forget_tries()  # the next session
    assert run.next_run(folder, 60)["name"] == "first"


def test_after_a_failure_no_graphs_are_used(folder: Folder, monkeypatch: pytest.MonkeyPatch):
    flags = []

    def session(folder, out, words, xla_flags, deadline):
        flags.append(xla_flags)
        folder.begin("first")
        return len(flags) < 3

    monkeypatch.setattr(run, "_session", session)
    run.train(folder, folder.work, "tf32", "--xla_gpu_enable_command_buffer=+CONVOLUTION", 1e12)
    assert [run.NO_GRAPHS in one.split() for one in flags] == [False, True, True]


def test_a_process_that_cannot_begin_is_not_started_again(folder: Folder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run, "_session", lambda *_: True)
    with pytest.raises(SystemExit, match="ends before it trains"):
        run.train(folder, folder.work, "tf32", "", 1e12)


def test_images_come_back_bit_for_bit(tmp_path: Path):
    images = np.random.default_rng(0).integers(0, 256, (13, 16, 16, 3), np.uint8)
    write_mosaics(tmp_path, images)
    np.testing.assert_array_equal(read_mosaics(tmp_path)[:13], images)
