"""The lines of a run, and the same numbers read back by TensorBoard itself."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from secateur.runs import MetricsLog, RunFolder, RunFolderError

REPO = Path(__file__).resolve().parents[2]


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_lines_are_strict_json_in_order(tmp_path):
    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    with RunFolder(tmp_path, {}) as folder, MetricsLog(folder, tensorboard=False) as log:
        log.log(1, phase="search", loss=np.float32(0.5), acc=1)
        log.log(np.int64(2), phase="search", loss=float("nan"), acc=float("-inf"))
    rows = [
        json.loads(line, parse_constant=refuse)
        for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
    ]
    assert [{key: value for key, value in row.items() if key != "time"} for row in rows] == [
        {"phase": "search", "step": 1, "loss": 0.5, "acc": 1.0},
        {"phase": "search", "step": 2, "loss": None, "acc": None},
    ]
    assert not (tmp_path / "tensorboard").exists()


def test_tensorboard_reads_the_same_numbers(tmp_path):
    with MetricsLog(tmp_path) as log:
        for step in range(5):
            log.log(step, phase="finetune", loss=1 / (step + 1), acc=step)
        log.log(0, phase="baseline", loss=9)
    read = scalars(tmp_path / "tensorboard" / "finetune", "loss")
    assert read == [(step, pytest.approx(1 / (step + 1))) for step in range(5)]
    assert scalars(tmp_path / "tensorboard" / "baseline", "loss") == [(0, 9)]


def test_a_file_system_without_fsync_has_the_numbers_too(tmp_path, monkeypatch):
    def refuse(handle: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", refuse)
    with MetricsLog(tmp_path) as log:
        log.log(1, loss=2)
        log.truncate("train", 0)
        log.log(1, loss=3)
    assert [row["loss"] for row in MetricsLog(tmp_path).rows()] == [3]
    assert scalars(tmp_path / "tensorboard" / "train", "loss")[-1] == (1, 3)


def test_a_resumed_phase_forgets_what_came_after_its_checkpoint(tmp_path):
    with MetricsLog(tmp_path) as log:
        for step in range(6):
            log.log(step, phase="finetune", loss=100 + step)
        log.log(50, phase="search", loss=1)
    with MetricsLog(tmp_path) as log:
        log.truncate("finetune", 2)
        assert [row["step"] for row in log.rows("finetune")] == [0, 1, 2]
        assert [row["step"] for row in log.rows("search")] == [50]
        log.log(3, phase="finetune", loss=203)
        before = log.path.read_bytes()
        log.truncate("finetune", 3)  # nothing comes after 3
        assert log.path.read_bytes() == before
    expected = [(0, 100), (1, 101), (2, 102), (3, 203)]
    assert [(row["step"], row["loss"]) for row in log.rows("finetune")] == expected
    assert scalars(tmp_path / "tensorboard" / "finetune", "loss") == expected


def test_truncate_takes_everything_of_a_phase_that_starts_anew(tmp_path):
    with MetricsLog(tmp_path, tensorboard=False) as log:
        log.truncate("search", -1)  # no file yet
        log.log(0, phase="search", loss=1)
        log.truncate("search", -1)
        assert log.rows() == []


def test_lines_of_a_killed_run_are_kept_but_for_the_torn_one(tmp_path, capsys):
    with MetricsLog(tmp_path, tensorboard=False) as log:
        log.log(0, loss=1)
        log.log(1, loss=1)
        log.path.write_bytes(log.path.read_bytes()[:-5])
        log.log(1, loss=2)
        assert [(row["step"], row["loss"]) for row in log.rows()] == [(0, 1), (1, 2)]
    assert "line 2 is incomplete" in capsys.readouterr().err


NO_ROWS = [
    "5", "[1, 2]", "null", '"text"', "{}", '{"phase": "a"}', '{"step": 1}', '{"phase": ["a"], "step": 1}',
    '{"phase": "a", "step": "1"}', '{"phase": "a", "step": true}', '{"phase": "a", "step": 1, "loss": "x"}',
    '{"phase": "a", "step": 1, "loss": [1]}', '{"phase": "a", "step": 1, "loss": NaN}',
    '{"phase": "a", "step": 1, "loss": 1' + 400 * "0" + "}", 10**5 * "[",
]  # fmt: skip


def test_lines_that_are_no_rows_are_left_out_with_one_warning(tmp_path, capsys):
    with MetricsLog(tmp_path, tensorboard=False) as log:
        log.log(1, "a", loss=0.5)
        with open(log.path, "a") as file:
            file.write("\n".join([*NO_ROWS, ""]))
        log.log(2, "a", loss=0.25)
        for _ in range(2):
            assert [row["step"] for row in log.rows()] == [1, 2]
        assert f"line 2 and {len(NO_ROWS) - 1} more are incomplete or no row" in capsys.readouterr().err
        log.truncate("a", 1)  # works on rows alone, and writes a log without the others
        assert [row["step"] for row in log.rows()] == [1] and len(log.path.read_text().splitlines()) == 1
        assert capsys.readouterr().err == ""


def test_a_place_that_cannot_be_written_is_code_5(tmp_path):
    (tmp_path / "tensorboard").touch()
    with pytest.raises(RunFolderError, match="tensorboard"), MetricsLog(tmp_path) as log:
        log.log(0, loss=1)


LOG = """
import sys
from secateur.runs import MetricsLog
with MetricsLog(sys.argv[1]) as log:
    log.log(1, loss=2.0)
print("tensorflow" in sys.modules)
"""


def test_event_files_are_written_without_tensorflow(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LOG, str(tmp_path)],
        cwd=REPO,
        text=True,
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("False\n", "")
    assert len(list((tmp_path / "tensorboard" / "train").glob("events.out.tfevents.*"))) == 1


def test_without_the_tensorboard_package_there_is_one_warning_and_the_lines(tmp_path):
    code = "import sys; sys.modules['tensorboardX'] = None\n" + LOG.replace(
        "loss=2.0)", "loss=2.0); log.log(2, loss=1)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=REPO,
        text=True,
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert done.stderr.count("warning: the package tensorboardX is missing") == 1
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2
