"""Files that an attacker or a bad disk could leave are refused: nothing runs, nothing large is allocated."""

import contextlib
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from secateur.runs import Snapshot, SnapshotError, load_snapshot, save_snapshot
from tests.helpers import hostile

MARKER = Path("executed")  # relative: each test runs in a folder of its own
CASES = hostile.cases(MARKER)
CALLS = hostile.calls(MARKER)
TWINS = {name for name in CASES if name.endswith(", signed") and len(CASES[name]) > 100_000}


def test_the_frame_of_the_crafted_files_is_sound(tmp_path):
    """What surrounds the hostile part loads, so it is that part which is refused."""
    for number, data in enumerate(
        (hostile.in_dict(hostile.array()), hostile.signed(hostile.in_dict(hostile.array())))
    ):
        path = tmp_path / f"{number}.pkl"
        path.write_bytes(data)
        assert list(load_snapshot(path).arrays) == ["good", "bad"]
        assert load_snapshot(path).arrays["bad"].tobytes() == b"abcd"


@pytest.mark.parametrize("name", CALLS)
def test_the_crafted_calls_do_run_under_plain_pickle(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    # An array built from the result of a command fails in the end: the command ran all the same.
    with contextlib.suppress(TypeError, ValueError, pickle.UnpicklingError):
        pickle.loads(hostile.in_dict(CALLS[name]))
    assert MARKER.exists()


# Behind its digest a large file is read like its twin without one, which takes seconds.
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in TWINS)) for name in CASES]
)
def test_crafted_file_is_refused(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "net.pkl"
    path.write_bytes(CASES[name])
    tracemalloc.start()
    try:
        with pytest.raises(SnapshotError) as refusal:
            load_snapshot(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert str(path) in str(refusal.value) and len(str(refusal.value).splitlines()) == 2
    assert not MARKER.exists()
    assert peak < 64e6 + 4 * len(CASES[name])  # half a million small objects at most


def test_there_are_many():
    assert len(CASES) >= 200 and len(set(CASES.values())) == len(CASES)


def mutations(data: bytes, count: int, seed: int):
    """Every bit flipped once, every truncation, then random insertions, deletions, copies and swaps."""
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)
    yield from (data[:size] for size in range(len(data)))
    rng = np.random.default_rng(seed)
    for _ in range(count - 9 * len(data)):
        a, b, c = sorted(rng.integers(0, len(data) + 1, 3))
        yield {
            0: data[:a] + rng.bytes(int(rng.integers(1, 9))) + data[a:],
            1: data[:a] + data[b:],
            2: data[:b] + data[a:],
            3: data[:a] + data[b:c] + data[a:b] + data[c:],
            4: data + data[a:],
        }[int(rng.integers(5))]


def test_ten_thousand_mutated_snapshots_are_refused(tmp_path):
    path = tmp_path / "net.pkl"
    arrays = {
        "conv/kernel:0": np.linspace(-1, 1, 12, dtype="f4").reshape(3, 4),
        "fc/biases:0": np.zeros(2, "f4"),
    }
    save_snapshot(path, Snapshot(arrays, {"arch": "ResNet-20"}, None, {"acc": 0.9}))
    data, refused = path.read_bytes(), 0
    assert 9 * len(data) < 9_000
    for changed in mutations(data, 10_200, seed=0):
        if changed != data:
            path.write_bytes(changed)
            with pytest.raises(SnapshotError):
                load_snapshot(path)
            refused += 1
    assert refused >= 10_000


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_mutated_foreign_pickles_load_or_are_refused(protocol, tmp_path):
    """They carry no digest, so some changes go unseen; all end in arrays or in SnapshotError."""
    data = pickle.dumps({"a:0": np.arange(6, dtype="f4").reshape(2, 3), "b:0": np.ones(2, ">f8")}, protocol)
    path, loaded = tmp_path / "net.pkl", 0
    for changed in mutations(data, 9 * len(data) + 500, seed=protocol):
        path.write_bytes(changed)
        try:
            arrays = load_snapshot(path).arrays
        except SnapshotError:
            continue
        loaded += 1
        assert all(array.dtype.kind in "fiub" and array.nbytes <= len(changed) for array in arrays.values())
    assert loaded > 0
