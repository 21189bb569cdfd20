"""The file: whole or refused, bounded in memory, and as small as its streams allow."""

import hashlib
import json
import os
import tracemalloc

import numpy as np
import pytest

from secateur import coding
from secateur.coding.entropy import symbols
from secateur.coding.file import container, streams
from secateur.coding.file.array_file import encode_arrays, equal, verify
from secateur.coding.file.array_reader import INDEX, decode_arrays, packed
from secateur.runs.errors import RunFolderError, SnapshotError
from tests.helpers.coded_nets import noise, resnet56, shared

MIB = 2**20
CHUNKS = 4 * MIB  # what decoding holds beside its result, whatever the file


@pytest.fixture
def small(tmp_path):
    """A file of all ways to code, and its arrays."""
    rng = np.random.default_rng(1)
    arrays = {
        "raw": rng.normal(size=5).astype(np.float32),
        "shared": rng.choice([0.5, 1.5, -1.5], (3, 3, 8, 8)).astype(np.float32),
        "sparse": np.where(rng.random((30, 40)) < 0.9, 0, rng.normal(size=(30, 40))).astype(np.float32),
        "dead": np.pad(rng.normal(size=(3, 3, 4, 8)), ((0, 0), (0, 0), (0, 3), (0, 9))).astype(np.float16),
        "steps": np.array(7),
    }
    path = tmp_path / "small.kpz"
    encode_arrays(arrays, path, {"made": "by a test"})
    return path, arrays


def peak(call) -> int:
    """Bytes that Python and NumPy held at most during a call."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_arrays_come_back_with_their_names_order_and_bits(small):
    path, arrays = small
    found, extra = decode_arrays(path)
    assert list(found) == list(arrays) and extra == {"made": "by a test"}
    assert all(equal(found[name], array) for name, array in arrays.items())


def test_equal_arrays_give_equal_files(small, tmp_path):
    path, arrays = small
    summary = encode_arrays(arrays, tmp_path / "again.kpz", {"made": "by a test"})
    assert (tmp_path / "again.kpz").read_bytes() == path.read_bytes()
    assert (summary.file, summary.arrays) == (path.stat().st_size, sum(a.nbytes for a in arrays.values()))


def test_no_arrays_are_a_file_too(tmp_path):
    encode_arrays({}, tmp_path / "empty.kpz")
    assert decode_arrays(tmp_path / "empty.kpz") == ({}, {})


def test_1000_damaged_files_are_refused(small, tmp_path):
    """Cut short, one bit flipped, or something added: never an array, never more memory than the file's."""
    rng, data, path = np.random.default_rng(2), small[0].read_bytes(), tmp_path / "damaged.kpz"

    def all_of_them() -> None:
        for number in range(1000):
            damaged = bytearray(data)
            if number % 5 < 2:
                damaged = damaged[: rng.integers(len(data))]
            elif number % 5 < 4:
                damaged[rng.integers(len(data))] ^= 1 << rng.integers(8)
            else:
                damaged += rng.bytes(rng.integers(1, 50))
            path.write_bytes(damaged)
            with pytest.raises(SnapshotError, match="damaged.kpz is not a usable .kpz file: "):
                decode_arrays(path)

    assert peak(all_of_them) < 4 * MIB


def test_what_is_no_file_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("missing", "pipe", "."):
        with pytest.raises(SnapshotError):
            decode_arrays(tmp_path / name)


# --- files with right digests and a hostile content ---------------------------------------------------------


def forged(path, tensors: list, data: list[bytes], arrays: int, **facts) -> None:
    """A file whose digests are right."""
    index = json.dumps({"extra": {}, "tensors": tensors}).encode()
    sections = [(INDEX, packed(index)), *(("data", one) for one in data)]
    with open(path, "wb") as file:
        container.write(file, {"arrays": arrays, "index": len(index)} | facts, sections)


def stated_by(arrays: list[np.ndarray], path) -> int:
    """A forged file of tensors as they are coded; the bytes that it states."""
    parts = [streams.code(array) for array in arrays]
    tensors = [[[str(i), part.node, len(part.data)] for i, part in enumerate(parts)]]
    total = sum(array.nbytes for array in arrays)
    decoded = hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()
    forged(path, tensors, [b"".join(part.data for part in parts)], total, decoded=decoded)
    return total


@pytest.mark.parametrize("fill", ["one value", "sparse", "block", "few values", "noise"])
def test_decoding_allocates_at_most_twice_what_is_stated(fill, tmp_path):
    rng = np.random.default_rng(3)
    shape = (3, 3, 700, 700)  # 17 MiB
    array = {
        "one value": lambda: np.full(shape, 1.5, np.float32),
        "sparse": lambda: np.where(rng.random(shape) < 0.02, 0, 1).astype(np.float32),
        "block": lambda: np.pad(np.ones((3, 3, 699, 699), np.float32), ((0, 0), (0, 0), (0, 1), (0, 1))),
        "few values": lambda: rng.integers(0, 40, shape).astype(np.float32),
        "noise": lambda: rng.normal(size=shape[2:]).astype(np.float32),
    }[fill]()
    stated = stated_by([array], tmp_path / "large.kpz")
    assert peak(lambda: decode_arrays(tmp_path / "large.kpz")) <= 2 * stated + CHUNKS


FLOATS = {"dtype": "f4", "shape": [4], "as": "raw"}
HOSTILE = {
    "more than 2 GiB": ([[["a", {**FLOATS, "shape": [2**31 - 1] * 3}, 16]]], [bytes(16)], 16, {}),
    "more than is stated": ([[["a", FLOATS, 16]]], [bytes(16)], 15, {}),
    "less than is stated": ([[["a", FLOATS, 16]]], [bytes(16)], 2**40, {}),
    "one name twice": ([[["a", FLOATS, 16], ["a", FLOATS, 16]]], [bytes(32)], 32, {}),
    "bytes of nothing": ([[["a", FLOATS, 16]]], [bytes(17)], 16, {}),
    "bytes of a neighbour": ([[["a", FLOATS, 12], ["b", FLOATS, 20]]], [bytes(32)], 32, {}),
    "a section too many": ([[["a", FLOATS, 16]]], [bytes(16), b""], 16, {}),
    "objects": ([[["a", {**FLOATS, "dtype": "O"}, 16]]], [bytes(16)], 16, {}),
    "an unknown way": ([[["a", {**FLOATS, "as": "pickle"}, 16]]], [bytes(16)], 16, {}),
    "no truth values": ([[["a", {**FLOATS, "dtype": "b1"}, 4]]], [b"\0\1\2\3"], 4, {}),
    "an index that grows": ([], [], 0, {"index": 2**40}),
    "an index of another size": ([], [], 0, {"index": 5}),
    "no tensors but text": ("tensors", [], 0, {}),
    "nesting": (json.loads("[" * 500 + "]" * 500), [], 0, {}),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused_before_anything_is_allocated(case, tmp_path):
    tensors, data, arrays, facts = HOSTILE[case]
    forged(tmp_path / "forged.kpz", tensors, data, arrays, **facts)

    def decode() -> None:
        with pytest.raises(SnapshotError, match="is not a usable .kpz file"):
            decode_arrays(tmp_path / "forged.kpz")

    assert peak(decode) < MIB


def test_what_decodes_to_other_numbers_is_refused(tmp_path):
    """As a coder of another version might, with all digests of the file in order."""
    array = np.arange(5, dtype=np.float32)
    part = streams.code(array)
    forged(tmp_path / "a.kpz", [[["x", part.node, len(part.data)]]], [part.data], array.nbytes, decoded="0")
    with pytest.raises(SnapshotError, match="decoded to other numbers"):
        decode_arrays(tmp_path / "a.kpz")


def test_a_name_that_moves_the_cursor_is_refused(tmp_path):
    part = streams.code(np.zeros(2, np.float32))
    forged(tmp_path / "a.kpz", [[["\x1b[31mred", part.node, len(part.data)]]], [part.data], 8)
    with pytest.raises(SnapshotError, match="cannot be printed"):
        coding.inspect(tmp_path / "a.kpz")


def test_a_bomb_is_not_unpacked(tmp_path):
    with open(tmp_path / "bomb.kpz", "wb") as file:
        container.write(file, {"arrays": 0, "index": 100}, [(INDEX, packed(bytes(64 * MIB)))])

    def decode() -> None:
        with pytest.raises(SnapshotError, match="another size than it states"):
            decode_arrays(tmp_path / "bomb.kpz")

    assert peak(decode) < 3 * MIB


# --- writing ----------------------------------------------------------------------------------------------


def test_a_file_with_another_bit_fails_verification(small):
    path, arrays = small
    for name, array in arrays.items():
        other = array.copy()
        other.reshape(-1).view(np.uint8)[-1] ^= 1
        with pytest.raises(SnapshotError, match=f"{name} is not read back"):
            verify(path, arrays | {name: other})


def test_a_file_that_fails_its_check_replaces_nothing(small):
    path, arrays = small
    before = path.read_bytes()

    def check(temp) -> None:
        assert temp.read_bytes() != before
        raise SnapshotError("not as it should be")

    with pytest.raises(SnapshotError, match="not as it should be"):
        encode_arrays({"one": arrays["raw"]}, path, check=check)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_what_cannot_be_written_is_said(tmp_path):
    with pytest.raises(RunFolderError):
        encode_arrays({}, tmp_path / "no" / "folder.kpz")
    with pytest.raises(SnapshotError, match="text: only arrays of numbers"):
        encode_arrays({"text": np.array(["a"])}, tmp_path / "text.kpz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bits", [3, 5, 6])
def test_a_shared_resnet56_is_within_two_percent_of_its_entropy(bits, tmp_path):
    """Streams with their tables of codes: at most the sum of the entropies + 2 % + 1 KiB."""
    arrays = resnet56(shared(4, bits))
    nodes = [streams.code(array).node for name, array in arrays.items() if name.startswith("conv")]
    size = sum(node["stream"][1] for node in nodes)
    kernels = [array for name, array in arrays.items() if name.startswith("conv")]
    entropy = sum(symbols.entropy(np.unique(kernel, return_counts=True)[1]) for kernel in kernels) / 8
    assert entropy <= size <= 1.02 * entropy + 1024
    whole = encode_arrays(arrays, tmp_path / "net.kpz").file
    raw = sum(array.nbytes for name, array in arrays.items() if not name.startswith("conv"))
    assert whole <= 1.02 * entropy + 1024 + raw + len(kernels) * 4 * 2**bits  # and their tables of values


def test_unshared_weights_of_resnet56_still_shrink(tmp_path):
    summary = encode_arrays(resnet56(noise(5)), tmp_path / "net.kpz")
    assert summary.file < 0.84 * summary.arrays  # of 8 bits of exponent 2.6 are information
