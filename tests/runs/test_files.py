"""A file is the old one or the new one, whole, whatever happens to the process or the disk."""

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.runs import (
    RunFolderError,
    append_jsonl,
    make_atomic,
    read_json,
    read_jsonl,
    sha256,
    write_atomic,
    write_json,
)
from secateur.runs.files import check_place

REPO = Path(__file__).resolve().parents[2]


def python(code: str, *arguments: object, **options) -> subprocess.Popen:
    """Start Python code that can import the project."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=REPO,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


def test_digest_is_that_of_the_published_standard(tmp_path):
    """FIPS 180-2, appendix B.1: SHA-256 of "abc"."""
    digest = write_atomic(tmp_path / "abc", b"abc")
    assert (
        digest
        == sha256(tmp_path / "abc")
        == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_a_failing_writer_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def fail(file):
        file.write(b"new")
        raise KeyError("half-way")

    with pytest.raises(KeyError):
        write_atomic(path, fail)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


def test_make_keeps_the_suffix_and_a_link_is_followed(tmp_path):
    (tmp_path / "link.npy").symlink_to(tmp_path / "real.npy")
    make_atomic(tmp_path / "link.npy", lambda temp: np.save(temp, np.arange(3)))
    assert np.load(tmp_path / "real.npy").tolist() == [0, 1, 2] and (tmp_path / "link.npy").is_symlink()


def test_permissions_are_those_of_any_new_file(tmp_path):
    (tmp_path / "usual").touch()
    write_atomic(tmp_path / "ours", b"")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("usual", "ours")}
    assert len(modes) == 1


WRITE_HALF = """
import sys, time
from secateur.runs import write_atomic
def write(file):
    file.write(b"n" * 1_000_000); file.flush(); print("half", flush=True); time.sleep(60)
write_atomic(sys.argv[1], write)
"""


def test_kill_9_in_the_middle_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "file"
    digest = write_atomic(path, b"old" * 1000)
    child = python(WRITE_HALF, path)
    assert child.stdout.readline() == "half\n"
    child.kill()
    assert child.wait() == -signal.SIGKILL
    child.communicate()
    assert sha256(path) == digest


WRITE_FOREVER = """
import itertools, sys
from secateur.runs import write_atomic
for turn in itertools.count():
    write_atomic(sys.argv[1], bytes([65 + turn % 26]) * 3_000_000)
    if turn == 0: print("started", flush=True)
"""


def test_kill_9_at_any_moment_leaves_one_whole_file(tmp_path):
    path, rng = tmp_path / "file", np.random.default_rng(0)
    for _ in range(8):
        child = python(WRITE_FOREVER, path)
        child.stdout.readline()
        time.sleep(rng.uniform(0, 0.05))
        child.kill()
        child.communicate()
        data = path.read_bytes()
        assert len(data) == 3_000_000 and data == data[:1] * len(data)


WRITE_LARGE = """
import resource, sys
from secateur.runs import cli, write_atomic
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
sys.exit(cli(lambda: write_atomic(sys.argv[1], bytes(1_000_000)) and 0))
"""


def test_a_file_too_large_for_the_disk_is_code_5_and_the_old_one_stays(tmp_path):
    path = tmp_path / "file"
    write_atomic(path, b"old")
    child = python(WRITE_LARGE, path)
    _, message = child.communicate(timeout=60)
    assert child.returncode == 5
    assert message.startswith("error: disk full") and "run the same command again" in message
    assert len(message.splitlines()) == 2
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["file"]


@pytest.fixture
def tiny_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        os.geteuid()
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("a small disk cannot be mounted here")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_really_full_disk(tiny_disk):
    write_atomic(tiny_disk / "old", b"old")
    for size in (200_000, 300_000):
        try:
            write_atomic(tiny_disk / f"new{size}", bytes(size))
        except RunFolderError as error:
            assert f"Received: path={tiny_disk}/new300000" in str(error)
    assert sorted(os.listdir(tiny_disk)) == ["new200000", "old"]
    with pytest.raises(RunFolderError, match="disk full"):
        for _ in range(100):
            append_jsonl(tiny_disk / "rows.jsonl", {"text": "x" * 5000})
    assert (tiny_disk / "old").read_bytes() == b"old"
    assert all(row == {"text": "x" * 5000} for row in read_jsonl(tiny_disk / "rows.jsonl"))


@pytest.mark.parametrize("place", ["absent/file", "file/file", "folder"])
def test_a_place_that_cannot_be_written_is_named(place, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(RunFolderError, match=place):
        write_atomic(tmp_path / place, b"data")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_a_link_to_itself_is_no_place_for_a_file(tmp_path):
    (tmp_path / "loop.keras").symlink_to("loop.keras")
    with pytest.raises(RunFolderError, match="leads to itself. Received: output="):
        check_place(tmp_path / "loop.keras", ".keras", "output")


@pytest.mark.parametrize("name, said", [("folder.keras", "a folder"), (300 * "a" + ".keras", "too long")])
def test_a_place_that_no_file_can_take_is_named_before_the_work(name, said, tmp_path):
    (tmp_path / "folder.keras").mkdir()
    with pytest.raises(RunFolderError, match=f"{said}.* Received: output="):
        check_place(tmp_path / name, ".keras", "output")


def test_a_file_that_waits_for_a_writer_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "plan.json")
    with pytest.raises(RunFolderError, match="not a regular file"):
        read_json(tmp_path / "plan.json")


def test_json_knows_numpy_and_paths(tmp_path):
    write_json(tmp_path / "a.json", {"n": np.float32(0.5), "v": np.arange(3), "p": Path("x/y")})
    assert read_json(tmp_path / "a.json") == {"n": 0.5, "v": [0, 1, 2], "p": "x/y"}


def test_a_damaged_json_file_is_code_5(tmp_path):
    (tmp_path / "a.json").write_text('{"a": ')
    with pytest.raises(RunFolderError, match=r"a\.json is damaged"):
        read_json(tmp_path / "a.json")


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(
        st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=9)), min_size=1, max_size=5
    ),
    data=st.data(),
)
def test_a_line_cut_by_a_kill_costs_only_itself(rows, data, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "cut.jsonl"
    path.unlink(missing_ok=True)
    for row in rows:
        append_jsonl(path, row)
    assert read_jsonl(path) == rows
    whole = path.read_bytes()
    size = data.draw(st.integers(0, len(whole) - 1))
    path.write_bytes(whole[:size])
    append_jsonl(path, {"last": 1})
    kept = whole[:size].count(b"\n") + (whole[size : size + 1] == b"\n")  # only the line's end was cut off
    assert read_jsonl(path) == [*rows[:kept], {"last": 1}]


def test_an_absent_jsonl_file_has_no_rows(tmp_path):
    assert read_jsonl(tmp_path / "absent.jsonl") == []
