"""PyTorch's files: what is in them is read, what they pretend is refused."""

import json
import pickle
import struct
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest
from safetensors.numpy import save

from secateur.runs import SnapshotError, load_snapshot

ARRAYS = {
    "a.weight": np.arange(12, dtype=np.float32).reshape(3, 4),
    "b": np.array(7, np.int64),
    "c": np.zeros((2, 0), np.float64),
}
GOOD = save(ARRAYS)
HUGE = 2**40


def packed(header, data: bytes = bytes(8)) -> bytes:
    """A file by the format's own words: length of the header, header, data."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype="F32", shape=(2,), offsets=(0, 8), **more):
    return {"w": {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}, **more}


REFUSED = {
    "empty": b"",
    "shorter than a length": b"abc",
    "header longer than the file": struct.pack("<Q", 2**62) + b"{}",
    "header longer than allowed": struct.pack("<Q", 2**33) + b"{}",
    "no JSON": packed(b"{]"),
    "no dictionary": packed([1, 2]),
    "deep JSON": packed(b"[" * 100_000),
    "no text": packed(b"\xff\xfe{}"),
    "no arrays": packed({}, b""),
    "shape of a terabyte": packed(entry(shape=(HUGE,))),
    "offsets of a terabyte": packed(entry(shape=(HUGE,), offsets=(0, 4 * HUGE))),
    "product that overflows": packed(entry(shape=(2**32, 2**32, 2), offsets=(0, 0)), b""),
    "empty but endless": packed(entry(shape=(0, 2**40), offsets=(0, 0)), b""),
    "many dimensions": packed(entry(shape=(1,) * 60 + (2,))),
    "negative side": packed(entry(shape=(-2,))),
    "offsets backwards": packed(entry(offsets=(8, 0))),
    "data left over": packed(entry(), bytes(9)),
    "data missing": packed(entry(), bytes(7)),
    "arrays that overlap": packed(entry(v={"dtype": "F32", "shape": [2], "data_offsets": [0, 8]})),
    "unknown type": packed(entry("F31")),
    "type without NumPy": packed(entry("BF16", (4,))),
    "offset that is text": packed({"w": {"dtype": "F32", "shape": [2], "data_offsets": ["0", "8"]}}),
    "not an entry": packed({"w": 5}),
}


def test_a_good_file_has_its_arrays(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(GOOD)
    snapshot = load_snapshot(tmp_path / "a.safetensors")
    assert snapshot.spec is None and set(snapshot.arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert snapshot.arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(snapshot.arrays[name], array)


def refused(path, data: bytes) -> str:
    """The message of the refusal, which allocated nothing large."""
    path.write_bytes(data)
    tracemalloc.start()
    try:
        with pytest.raises(SnapshotError) as refusal:
            load_snapshot(path)
        assert tracemalloc.get_traced_memory()[1] < 16e6
    finally:
        tracemalloc.stop()
    message = str(refusal.value)
    assert str(path) in message and len(message.splitlines()) <= 2
    return message


@pytest.mark.parametrize("name", REFUSED)
def test_a_lying_header_is_refused(name, tmp_path):
    refused(tmp_path / "net.safetensors", REFUSED[name])


def test_every_truncation_is_refused(tmp_path):
    for length in range(len(GOOD)):
        refused(tmp_path / "net.safetensors", GOOD[:length])


def test_random_damage_is_refused_or_leaves_arrays(tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "net.safetensors"
    for _ in range(500):
        data = bytearray(GOOD)
        for place in rng.integers(0, len(data), rng.integers(1, 4)):
            data[place] = rng.integers(256)
        path.write_bytes(bytes(data))
        try:
            arrays = load_snapshot(path).arrays
        except SnapshotError as error:
            assert len(str(error).splitlines()) <= 2
        else:
            assert sum(array.nbytes for array in arrays.values()) <= len(data)


class Touch:
    """Its unpickling makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_with_pytorchs_suffix_is_not_executed(tmp_path):
    pytest.importorskip("torch")
    marker = tmp_path / "executed"
    refused(tmp_path / "net.pth", pickle.dumps({"w": Touch(marker)}))
    refused(tmp_path / "net.th", b"")
    assert not marker.exists()


def test_without_pytorch_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # as if it were not installed
    assert "convert it to .safetensors" in refused(tmp_path / "net.pth", bytes(100))


def test_pytorchs_own_files_are_read_and_views_of_a_few_bytes_are_not(tmp_path):
    torch = pytest.importorskip("torch")
    state = {name: torch.tensor(array) for name, array in ARRAYS.items()}
    for number, content in enumerate((state, {"state_dict": state, "epoch": 3})):
        torch.save(content, tmp_path / f"{number}.th")
        arrays = load_snapshot(tmp_path / f"{number}.th").arrays
        assert all(np.array_equal(arrays[name], array) for name, array in ARRAYS.items())
    torch.save({"w": torch.zeros(1).expand(HUGE)}, tmp_path / "views.pth")
    assert "larger than the file" in refused(tmp_path / "v.pth", (tmp_path / "views.pth").read_bytes())
    torch.save({"w": torch.zeros(2, dtype=torch.bfloat16)}, tmp_path / "b.pt")
    assert "convert it to float32" in refused(tmp_path / "c.pt", (tmp_path / "b.pt").read_bytes())


def test_a_compressed_archive_is_refused(tmp_path):
    pytest.importorskip("torch")
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10_000_000))
    assert "compressed" in refused(tmp_path / "net.pt", (tmp_path / "bomb.zip").read_bytes())
