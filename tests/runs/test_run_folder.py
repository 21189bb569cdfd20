"""One run at a time, one configuration, and a killed run that goes on where it was."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from secateur.runs import MetricsLog, RunFolder, RunFolderError, sha256

REPO = Path(__file__).resolve().parents[2]
CONFIG = {"arch": "ResNet-56", "target_rate": 0.45, "decay_points": (0.3, 0.6), "gpu_id": 0}


def python(code: str, *arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=REPO,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_step_is_done_when_its_file_is_there_bit_for_bit(tmp_path, capsys):
    with RunFolder(tmp_path / "a" / "run", CONFIG) as folder:
        assert not folder.done("search")
        digest = folder.write("plan.json", b"{}")
        assert not folder.done("search")
        folder.record("search", "plan.json", 1.5, {"macs": 123})
    with RunFolder(tmp_path / "a" / "run", CONFIG) as folder:
        assert folder.done("search")
        entry = folder.entry("search")
        assert (entry["sha256"], entry["seconds"], entry["facts"]) == (digest, 1.5, {"macs": 123})
        folder.path("plan.json").write_bytes(b"[]")
        assert not folder.done("search") and "damaged or changed" in capsys.readouterr().err
        folder.path("plan.json").unlink()
        assert not folder.done("search") and "gone" in capsys.readouterr().err


def test_step_makes_its_file_once_and_again_when_damaged(tmp_path):
    made = []

    def make(temp: Path) -> dict:
        made.append(temp.suffix)
        np.save(temp, np.arange(3))
        return {"count": 3}

    with RunFolder(tmp_path, CONFIG) as folder:
        for _ in range(2):
            assert np.load(folder.step("bank", "bank.npy", make)).tolist() == [0, 1, 2]
        assert made == [".npy"] and folder.entry("bank")["facts"] == {"count": 3}
        folder.path("bank.npy").write_bytes(b"")
        assert np.load(folder.step("bank", "bank.npy", make)).tolist() == [0, 1, 2]
    assert len(made) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"target_rate": 0.5}, r"target_rate=0\.45 there\. Received: target_rate=0\.5"),
        ({"seed": 1}, r"seed='\(absent\)' there\. Received: seed=1"),
        ({"decay_points": [0.3]}, r"decay_points=\[0\.3, 0\.6\] there\. Received: decay_points=\[0\.3\]"),
    ],
)
def test_another_configuration_is_refused_with_the_difference(change, message, tmp_path):
    with RunFolder(tmp_path, CONFIG):
        pass
    with pytest.raises(RunFolderError, match=message), RunFolder(tmp_path, {**CONFIG, **change}):
        pass
    with RunFolder(tmp_path, CONFIG):  # the refusal gave the lock back
        pass


def test_volatile_options_may_differ(tmp_path):
    with RunFolder(tmp_path, CONFIG, volatile=["gpu_id", "do_log"]):
        pass
    with RunFolder(tmp_path, {**CONFIG, "gpu_id": 3, "do_log": 10}, volatile=["gpu_id", "do_log"]):
        pass
    with pytest.raises(RunFolderError, match="gpu_id"), RunFolder(tmp_path, {**CONFIG, "gpu_id": 3}):
        pass


def test_an_option_that_came_later_had_its_default_before(tmp_path):
    later = {"sync": False, "points": (1, 2)}
    with RunFolder(tmp_path, CONFIG):
        pass
    with RunFolder(tmp_path, CONFIG | later, defaults=later):
        pass
    with pytest.raises(RunFolderError, match=r"sync=False there\. Received: sync=True"):
        with RunFolder(tmp_path, CONFIG | later | {"sync": True}, defaults=later):
            pass


HOLD = """
import sys, time
from secateur.runs import RunFolder, cli
def main():
    with RunFolder(sys.argv[1], {}):
        print("inside", flush=True)
        time.sleep(float(sys.argv[2]))
sys.exit(cli(main))
"""


BARE = """
import errno, fcntl, os
def refuse(*_): raise OSError(errno.{name}, os.strerror(errno.{name}))
fcntl.flock = os.fsync = refuse
"""
STIFF = """
import filelock._native._unix, filelock._soft
for name, module in list(sys.modules.items()):
    if name.startswith("filelock") and hasattr(module, "exchange_names"):
        module.exchange_names = lambda *_: False
"""  # no two names can be exchanged


@pytest.mark.parametrize("disk", ["", *(BARE.format(name=name) for name in ("ENOSYS", "ENOTSUP"))])
def test_a_second_process_is_kept_out_with_code_5_until_the_first_is_dead(tmp_path, disk):
    """Also on a file system that has neither locks nor fsync."""
    hold = disk + HOLD
    first = python(hold, tmp_path, 60)
    assert first.stdout.readline() == "inside\n"
    second = python(hold, tmp_path, 0)
    _, message = second.communicate(timeout=60)
    assert second.returncode == 5
    where, remedy = (f" of {socket.gethostname()}", f"remove {tmp_path}") if disk else ("", "choose another")
    assert message.startswith(f"error: {tmp_path} is busy: process {first.pid}{where} is using it\n")
    assert f"wait for it to end, or {remedy}" in message
    first.kill()
    first.communicate()
    third = python(hold, tmp_path, 0)
    assert third.communicate(timeout=60) == ("inside\n", "") and third.returncode == 0


def test_a_marker_that_cannot_be_taken_over_is_named(tmp_path):
    hold = BARE.format(name="ENOSYS") + HOLD.replace("def main", f"{STIFF}def main")
    first = python(hold, tmp_path, 60)
    assert first.stdout.readline() == "inside\n"
    first.kill()
    first.communicate()
    second = python(hold, tmp_path, 0)
    _, message = second.communicate(timeout=60)
    assert second.returncode == 5 and f"process {first.pid} of" in message
    (marker,) = (word for word in message.split() if word.startswith(str(tmp_path)) and word != str(tmp_path))
    os.unlink(marker)
    third = python(hold, tmp_path, 0)
    assert third.communicate(timeout=60) == ("inside\n", "") and third.returncode == 0


def test_a_second_user_in_the_same_process_is_kept_out(tmp_path):
    with (
        RunFolder(tmp_path, CONFIG),
        pytest.raises(RunFolderError, match=f"process {os.getpid()}"),
        RunFolder(tmp_path, CONFIG),
    ):
        pass


def test_a_file_or_a_forbidden_place_is_no_run_folder(tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    places = [tmp_path / "file", tmp_path / "file" / "run", Path("/proc/run")]
    for place in places:
        with pytest.raises(RunFolderError, match=str(place)), RunFolder(place, CONFIG):
            pass
    assert (tmp_path / "file").read_bytes() == b"mine"


@pytest.mark.parametrize(
    "change",
    [
        lambda entry: entry.pop("facts"),
        lambda entry: entry.update(facts=[1]),
        lambda entry: entry.update(seconds="12"),
        lambda entry: entry.pop("seconds"),
        lambda entry: entry.update(file="../else.npy"),
        lambda entry: entry.update(sha256=5),
    ],
)
def test_a_manifest_that_no_run_has_written_is_damaged(tmp_path, change):
    with RunFolder(tmp_path, CONFIG) as folder:
        folder.write("plan.json", b"{}")
        folder.record("search", "plan.json", 1.5)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    change(manifest["steps"]["search"])
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunFolderError, match=r"manifest\.json is damaged"), RunFolder(tmp_path, CONFIG):
        pass


def test_what_has_the_right_bytes_is_not_written_again(tmp_path):
    with RunFolder(tmp_path, CONFIG) as folder:
        digest = folder.write_json("plan.json", {"a": [1]})
        before = (tmp_path / "plan.json").stat().st_ino
        assert folder.write_json("plan.json", {"a": [1]}) == digest == sha256(tmp_path / "plan.json")
        assert (tmp_path / "plan.json").stat().st_ino == before
        (tmp_path / "plan.json").write_bytes(b"{")
        assert folder.write_json("plan.json", {"a": [1]}) == digest == sha256(tmp_path / "plan.json")


@pytest.mark.parametrize(
    ("target", "said"), [("run", "to itself"), ("nothing", "to nothing"), (None, "a file")]
)
def test_a_place_that_is_there_but_no_folder_says_what_it_is(tmp_path, target, said):
    (tmp_path / "run").symlink_to(target) if target else (tmp_path / "run").touch()
    with pytest.raises(RunFolderError, match=f"cannot be a run folder .*{said}"):
        RunFolder(tmp_path / "run", CONFIG).__enter__()


def test_what_was_there_before_the_run_is_not_overwritten(tmp_path):
    (tmp_path / "trained_param.pkl").write_bytes(b"a week of training")
    for _ in range(2):  # nor by a later call on the same folder
        with RunFolder(tmp_path, CONFIG) as folder:
            with pytest.raises(RunFolderError, match=r"trained_param\.pkl was there before"):
                folder.write("trained_param.pkl", b"")
            with pytest.raises(RunFolderError, match="move it away"):
                folder.step("finetune", "trained_param.pkl", lambda temp: temp.write_bytes(b"") and None)
            folder.write("report.json", b"{}")
    assert (tmp_path / "trained_param.pkl").read_bytes() == b"a week of training"


LEFT = ["checkpoint_baseline-000007.pkl", "checkpoint_bank.part", "metrics.jsonl"]


@pytest.mark.parametrize("left", LEFT)
def test_a_run_does_not_go_on_from_files_of_unknown_options(left, tmp_path):
    with RunFolder(tmp_path, CONFIG) as folder, MetricsLog(folder, tensorboard=False) as log:
        log.log(1, "baseline", loss=0.5)
        for step in range(7):
            folder.save_checkpoint("baseline", {"w": np.zeros(1)}, {"step": step})
        folder.record("baseline", "metrics.jsonl", 1.0)
        folder.path("checkpoint_bank.part").write_bytes(b"half")
    with RunFolder(tmp_path, CONFIG) as folder:  # config.json is there: it goes on
        assert folder.load_checkpoint("baseline").facts == {"step": 6}
    (tmp_path / "config.json").unlink()
    for file in [*tmp_path.glob("checkpoint_*"), tmp_path / "metrics.jsonl"]:
        if file.name != left:
            file.unlink()
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(RunFolderError) as caught, RunFolder(tmp_path, {**CONFIG, "arch": "ResNet-20"}):
        pass
    message = str(caught.value)
    assert str(tmp_path / left) in message and "move it away or choose another --train_path" in message
    assert len(message.splitlines()) == 2
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before
    (tmp_path / left).unlink()
    with RunFolder(tmp_path, {**CONFIG, "arch": "ResNet-20"}) as folder:
        assert folder.entry("baseline") is None and folder.load_checkpoint("baseline") is None


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"[]",
        b'{"steps": 3}',
        b'{"steps": {"a": {}}, "found": []}',
        b'{"steps": {"a": {"file": "../x", "sha256": "' + b"0" * 64 + b'"}}, "found": []}',
    ],
)
def test_a_damaged_manifest_is_code_5_and_deletes_nothing(damage, tmp_path):
    with RunFolder(tmp_path, CONFIG) as folder:
        folder.write("plan.json", b"{}")
    (tmp_path / "manifest.json").write_bytes(damage)
    with pytest.raises(RunFolderError, match=r"manifest\.json is damaged"), RunFolder(tmp_path, CONFIG):
        pass
    assert (tmp_path / "plan.json").read_bytes() == b"{}"


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/etc/passwd", "a/b"])
def test_files_stay_in_the_folder(name, tmp_path):
    with RunFolder(tmp_path, CONFIG) as folder, pytest.raises(ValueError, match="plain file name"):
        folder.path(name)


def test_checkpoints_fall_back_to_the_one_before(tmp_path, capsys):
    with RunFolder(tmp_path, CONFIG) as folder:
        assert folder.load_checkpoint("finetune") is None
        for step in range(5):
            folder.save_checkpoint(
                "finetune", {"w": np.full(3, step), "rng": np.array([step], "u8")}, {"step": step}
            )
            assert folder.load_checkpoint("finetune").facts == {"step": step}
        folder.save_checkpoint("finetune-2", {"w": np.zeros(1)}, {"step": 99})  # a name that begins alike
        files = sorted(tmp_path.glob("checkpoint_finetune-0*.pkl"))
        assert len(files) == 2
        files[1].write_bytes(files[1].read_bytes()[:-1])
        state = folder.load_checkpoint("finetune")
        assert state.facts == {"step": 3} and state.arrays["w"].tolist() == [3, 3, 3]
        assert "the checkpoint before it is used" in capsys.readouterr().err
        folder.save_checkpoint("finetune", {"w": np.zeros(1)}, {"step": 4})
        assert folder.load_checkpoint("finetune").facts == {"step": 4} and files[0].exists()
        for file in tmp_path.glob("checkpoint_finetune-0*.pkl"):
            file.write_bytes(b"")
        assert folder.load_checkpoint("finetune") is None
        folder.drop_checkpoints("finetune")
        assert [file.name for file in tmp_path.glob("checkpoint_*")] == ["checkpoint_finetune-2-000001.pkl"]


def test_what_a_killed_run_was_writing_is_cleared(tmp_path):
    (tmp_path / ".tmp-123-abcd.pkl").write_bytes(bytes(1000))
    with RunFolder(tmp_path, CONFIG):
        assert not list(tmp_path.glob(".tmp-*"))


WORK = """
import sys, time
import numpy as np
from secateur.runs import RunFolder
with RunFolder(sys.argv[1], {"seed": 1}) as folder:
    print("inside", flush=True)
    for number in range(4):
        def make(temp):
            state = folder.load_checkpoint(f"step{number}")
            start, value = (state.facts["next"], state.arrays["value"]) if state else (0, np.zeros(20_000))
            for turn in range(start, 10):
                value = np.cos(value + turn + number)
                folder.save_checkpoint(f"step{number}", {"value": value}, {"next": turn + 1})
            np.save(temp, value)
        folder.step(f"step{number}", f"step{number}.npy", make)
        folder.drop_checkpoints(f"step{number}")
"""


def test_a_run_killed_again_and_again_ends_in_the_same_bits(tmp_path):
    whole = python(WORK, tmp_path / "whole")
    whole.stdout.readline()
    begin = time.monotonic()
    assert whole.communicate(timeout=60)[1] == "" and whole.returncode == 0
    rng, work, kills = np.random.default_rng(0), time.monotonic() - begin, 0
    for _ in range(12):
        child = python(WORK, tmp_path / "killed")
        child.stdout.readline()
        time.sleep(rng.uniform(0, work / 4))
        child.kill()
        child.communicate()
        kills += child.returncode == -signal.SIGKILL
        config, manifest = (
            json.loads((tmp_path / "killed" / name).read_bytes()) for name in ("config.json", "manifest.json")
        )
        assert config == {"seed": 1}
        assert all(
            sha256(tmp_path / "killed" / step["file"]) == step["sha256"]
            for step in manifest["steps"].values()
        )
    assert kills > 0
    last = python(WORK, tmp_path / "killed")
    assert last.communicate(timeout=60)[1] == "" and last.returncode == 0
    for number in range(4):
        assert sha256(tmp_path / "killed" / f"step{number}.npy") == sha256(
            tmp_path / "whole" / f"step{number}.npy"
        )
    names = {number: sorted(os.listdir(tmp_path / number)) for number in ("whole", "killed")}
    assert names["whole"] == names["killed"]


FILL = """
import resource, sys
from secateur.runs import RunFolder, cli
def main():
    with RunFolder(sys.argv[1], {}) as folder:
        folder.step("small", "small.bin", lambda temp: temp.write_bytes(b"small") and None)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
        folder.step("large", "large.bin", lambda temp: temp.write_bytes(bytes(100_000)) and None)
sys.exit(cli(main))
"""


def test_a_full_disk_is_code_5_and_the_steps_before_stay_done(tmp_path):
    child = python(FILL, tmp_path)
    _, message = child.communicate(timeout=60)
    assert child.returncode == 5 and message.startswith("error: disk full (")
    with RunFolder(tmp_path, {}) as folder:
        assert folder.done("small") and not folder.done("large")
    assert sorted(os.listdir(tmp_path)) == [".lock", "config.json", "manifest.json", "small.bin"]
