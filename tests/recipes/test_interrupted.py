"""A run that is killed again and again ends in the same bits as one that never was."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from secateur.runs import read_jsonl, sha256

RESULTS = ("snap_baseline.pkl", "snap_warm.pkl", "search_state.pkl", "slimmed_param.pkl", "bank.npy")
RESULTS += ("trained_param.pkl", "search.jsonl", "plan_ekg.json")

# Where the run shall be when it is killed: a file that this phase finds or has written. The warm-up is a
# training without a checkpoint, as the first epoch of all trainings.
MOMENTS = {
    "baseline, second epoch": "checkpoint_baseline-*.pkl",
    "warm-up": "snap_baseline.pkl",
    "search, some steps": "checkpoint_search_ekg-*.pkl",
    "bank": "search_state.pkl",
    "fine-tune, second epoch": "checkpoint_fine_tune-*.pkl",
    "compact": "trained_param.pkl",
}
OPTIONS = ["--gpu_id", 0, "--arch", "ResNet-8", "--dataset", "DIGITS", "--target_rate", 0.9]
OPTIONS += ["--baseline_epoch", 2, "--train_epoch", 2, "--train_images", 512]
OPTIONS += ["--train_path", "run", "--time_seconds", 0.1]


def seen(folder: Path, pattern: str, process: int) -> bool:
    """Waits until a file of this name is there; False when the process ended before."""
    while not any(folder.glob(pattern)):
        if (
            not Path(f"/proc/{process}/cmdline").exists()
            or Path(f"/proc/{process}/cmdline").read_bytes() == b""
        ):
            return False
        time.sleep(0.01)
    return True


def metrics(folder: Path) -> list[dict]:
    """Without the time of day."""
    return [{k: v for k, v in row.items() if k != "time"} for row in read_jsonl(folder / "metrics.jsonl")]


def test_killed_in_every_phase_it_ends_in_the_same_bits(published, programs, tmp_path):
    folder, killed, rng = tmp_path / "run", [], random.Random(20)
    for moment, pattern in MOMENTS.items():
        process = programs.start("train_cifar.py", *OPTIONS, cwd=tmp_path)
        if seen(folder, pattern, process):
            time.sleep(rng.uniform(0, 1))
            os.kill(process, signal.SIGKILL)
        if programs.wait().code == -signal.SIGKILL:
            killed.append(moment)
    last = programs.run("train_cifar.py", *OPTIONS, cwd=tmp_path)
    assert last.code == 0, last.err
    assert len(killed) >= len(MOMENTS) - 2, killed  # a file may come and go between two looks
    for name in RESULTS:
        assert sha256(folder / name) == sha256(published.folder / name), (name, killed)
    assert metrics(folder) == metrics(published.folder)
    names = {path.name for path in published.folder.iterdir()}
    assert {path.name for path in folder.iterdir()} == names


BANK = """
about = "a dense network and its bank"
[[steps]]
kind = "dense"
epochs = 1
[[steps]]
kind = "bank"
teachers = "dense"
dtype = "float16"
[[steps]]
kind = "train"
teacher = "bank"
"""


@pytest.mark.runs
def test_a_bank_goes_on_behind_its_last_whole_piece(programs, tmp_path):
    """Its pieces are made small here; it is killed as soon as the second one is on the disk."""
    (tmp_path / "pieces.py").write_text("import secateur.distillation.bank as bank\nbank.PIECE = 32\n")
    (tmp_path / "bank.toml").write_text(BANK)
    options = "--recipe bank.toml --import pieces.py --until bank --arch ResNet-8 --dataset DIGITS".split()
    options += (
        "--batch_size 64 --val_batch_size 32 --train_images 512 --time_seconds 0.01 --train_path".split()
    )
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    done = programs.run("train_cifar.py", *options, "whole", cwd=tmp_path)
    assert done.code == 0, done.err
    process = programs.start("train_cifar.py", *options, "killed", cwd=tmp_path)
    assert seen(killed, "checkpoint_bank-*2.pkl", process)
    os.kill(process, signal.SIGKILL)
    assert programs.wait().code == -signal.SIGKILL
    assert (killed / "checkpoint_bank.part").stat().st_size < (whole / "bank.npy").stat().st_size
    last = programs.run("train_cifar.py", *options, "killed", cwd=tmp_path)
    assert last.code == 0 and "begun anew" not in last.err, last.err
    assert sha256(killed / "bank.npy") == sha256(whole / "bank.npy")
    assert not list(killed.glob("checkpoint_*"))


DENSE = """
about = "one epoch"
[[steps]]
kind = "dense"
epochs = 1
"""
TOLD = """
import os, pathlib, signal
from secateur.op_utils import Trainer
train = Trainer.train
def told(self, *arguments):
    for step, metrics in enumerate(train(self, *arguments), 1):
        if step == 5 and not pathlib.Path("told").exists():
            pathlib.Path("told").touch()
            os.kill(os.getpid(), signal.SIGTERM)
        yield metrics
Trainer.train = told
"""


def test_a_signal_in_an_epoch_saves_the_steps_before_it(programs, tmp_path):
    """In the fifth of eight steps, nine minutes before the next checkpoint by time."""
    (tmp_path / "dense.toml").write_text(DENSE)
    (tmp_path / "told.py").write_text(TOLD)
    options = "--recipe dense.toml --until dense --arch ResNet-8 --dataset DIGITS --train_images 256".split()
    options += "--batch_size 32 --time_seconds 0.01 --import told.py --train_path".split()
    done = programs.run("train_cifar.py", *options, "told-run", cwd=tmp_path)
    assert done.code == 143, done.err
    assert done.err.endswith("interrupted: run the same command again to continue\n")
    again = programs.run("train_cifar.py", *options, "told-run", cwd=tmp_path)
    assert again.code == 0 and "dense: continuing after epoch 0, step 5" in again.out, again.err
    whole = programs.run("train_cifar.py", *options, "whole", cwd=tmp_path)
    assert whole.code == 0, whole.err
    assert sha256(tmp_path / "told-run" / "snap_dense.pkl") == sha256(tmp_path / "whole" / "snap_dense.pkl")
