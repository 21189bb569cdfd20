"""Tensors: every bit comes back, and the smallest way is found."""

import numpy as np
import pytest

from secateur.coding.file import streams
from secateur.coding.file.array_file import equal
from secateur.coding.file.reader import Reader
from secateur.runs.stubs import DTYPES, Refused

KERNEL = (3, 3, 32, 64)
SPECIAL = [-0.0, 0.0, np.inf, -np.inf, np.nan]


def recoded(array: np.ndarray) -> tuple[np.ndarray, dict, int]:
    part = streams.code(array)
    reader = Reader(part.data)
    back = streams.decode(part.node, reader)
    reader.finish()
    return back, part.node, len(part.data)


def random_tensor(rng: np.random.Generator) -> np.ndarray:
    """Any type and shape; noise of all bits, normal numbers, few values, zeros, dead filters and channels."""
    dtype = np.dtype(str(rng.choice(sorted(DTYPES))))
    shape = tuple(int(n) for n in rng.integers(0 if rng.random() < 0.05 else 1, 14, rng.integers(0, 5)))
    count = int(np.prod(shape))
    if rng.random() < 0.3 and dtype.kind != "b":
        return np.frombuffer(rng.bytes(count * dtype.itemsize), dtype).reshape(shape)  # NaNs with payloads
    values = (50 * rng.normal(size=count)).astype(dtype)
    if dtype.kind == "f" and rng.random() < 0.3:
        return (np.round(values) * 2.0 ** rng.integers(-9, 3)).astype(dtype).reshape(shape)  # on a grid
    if rng.random() < 0.5 and count:
        values = rng.choice(values[: rng.integers(1, 20)], count)
    if dtype.kind == "f" and count >= len(SPECIAL):
        values[rng.permutation(count)[: len(SPECIAL)]] = SPECIAL
    values = np.where(rng.random(count) < rng.choice([0, 0.5, 0.95]), 0, values).astype(dtype).reshape(shape)
    if len(shape) >= 2:
        values[..., rng.random(shape[-1]) < rng.choice([0, 0.5])] = 0
        values[..., rng.random(shape[-2]) < rng.choice([0, 0.5]), :] = 0
    return values


def test_500_random_tensors_are_bit_exact_and_never_larger():
    rng, ways = np.random.default_rng(1), set()
    for _ in range(500):
        array = random_tensor(rng)
        back, node, size = recoded(array)
        assert equal(back, array), (array.dtype, array.shape)
        assert size <= array.nbytes + 8
        ways.add(node["as"])
    assert ways == {"raw", "shared", "planes", "sparse", "block", "grid"}


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
@pytest.mark.parametrize("power", [-14, -7, 0, 5])
def test_multiples_of_a_power_of_two_cost_the_bits_of_their_range(dtype, power):
    array = (np.random.default_rng(power + 20).integers(-100, 101, 200) * 2.0**power).astype(dtype)
    back, node, size = recoded(array)
    assert equal(back, array) and node["as"] == "grid" and node["power"] >= power
    assert size <= 200 * 8 / 8
    few = np.resize(array[:20], (30, 100))  # the table of shared values lies on a grid, too
    back, node, size = recoded(few)
    assert equal(back, few) and node["as"] == "shared" and node["table"]["as"] == "grid"


def test_grids_at_the_ends_of_the_exponents():
    for array in ([5e-324, 1e-323], [2.0**1023, -(2.0**1022)], [2.0**-149, 0.0], [2.0**127, 2.0**126]):
        for dtype in ("f4", "f8"):
            with np.errstate(over="ignore"):
                repeated = np.resize(np.array(array).astype(dtype), 64)
            assert equal(recoded(repeated)[0], repeated)


def test_each_nan_is_itself_and_minus_zero_is_not_zero():
    patterns = np.array([0x7FC00001, 0xFFC00000, 0x7F800001, 0x80000000, 0, 1], np.uint32)
    array = np.resize(patterns.view(np.float32), (4, 6, 50))
    assert recoded(array)[0].tobytes() == array.tobytes()


def test_layouts_in_memory_do_not_matter():
    array = np.random.default_rng(2).normal(size=(6, 7, 8)).astype(np.float32)
    for view in (array.T, array[::2, ::-1], np.asfortranarray(array), array.astype(">f4")):
        assert np.array_equal(recoded(view)[0], view)


def test_shared_weights_are_a_table_and_indexes_near_their_entropy():
    rng = np.random.default_rng(3)
    table = rng.normal(size=32).astype(np.float32)
    array = table[np.clip(rng.normal(16, 5, KERNEL), 0, 31).astype(int)]
    counts = np.unique(array, return_counts=True)[1]
    least = (counts * np.log2(array.size / counts)).sum() / 8 + table.nbytes
    back, node, size = recoded(array)
    assert equal(back, array) and node["as"] == "shared" and node["values"] == 32
    assert least <= size <= 1.005 * least


def test_weights_of_a_normal_distribution_lose_the_bits_of_their_exponents():
    array = np.random.default_rng(4).normal(size=KERNEL).astype(np.float32)
    _, node, size = recoded(array)
    assert node["as"] == "planes" and size < 0.84 * array.nbytes  # 8 bits of exponent hold 2.6 of entropy


@pytest.mark.parametrize("zeros", [0.5, 0.9, 0.99])
def test_sparse_weights_cost_their_bitmap_and_their_values(zeros):
    rng = np.random.default_rng(5)
    array = np.where(rng.random(KERNEL) < zeros, 0, rng.normal(size=KERNEL)).astype(np.float32)
    back, node, size = recoded(array)
    bitmap = array.size * -(zeros * np.log2(zeros) + (1 - zeros) * np.log2(1 - zeros)) / 8
    assert equal(back, array) and node["as"] == "sparse"
    assert size < bitmap * 1.1 + (array != 0).sum() * 4 + 64


def test_dead_filters_and_channels_cost_a_bit_each():
    array = np.random.default_rng(6).normal(size=KERNEL).astype(np.float32)
    array[..., ::2] = 0
    array[:, :, ::4] = 0
    dense = array[:, :, np.arange(32) % 4 > 0][..., 1::2]
    back, node, size = recoded(array)
    assert equal(back, array) and node["as"] == "block"
    assert size == recoded(np.ascontiguousarray(dense))[2] + 32 // 8 + 64 // 8


def test_only_numbers_are_coded():
    for array in (np.array(["a"]), np.array([None]), np.zeros(2, "c8"), np.zeros(2, "f4,i4")):
        with pytest.raises(TypeError, match="Received: dtype="):
            streams.code(array)


def test_descriptions_that_do_not_fit_are_refused():
    """Every entry of a description replaced by what JSON has: refused, or an array of the size stated."""
    rng = np.random.default_rng(7)
    arrays = [
        rng.choice([1.5, 2.5, 0.0], (3, 5, 40)).astype(np.float32),
        np.where(rng.random((40, 30)) < 0.9, 0, rng.normal(size=(40, 30))).astype(np.float32),
        (rng.integers(-60, 60, 90) / 64).astype(np.float32),
        np.resize((rng.integers(-60, 60, 9) / 64).astype(np.float32), (9, 60)),
        np.pad(rng.normal(size=(3, 3, 4, 8)), ((0, 0), (0, 0), (0, 3), (0, 9))).astype(np.float16),
    ]
    values = [
        None,
        True,
        -1,
        0,
        1,
        7,
        1.5,
        10**30,
        "raw",
        "ans",
        [],
        [[]],
        {},
        ["ans", 4],
        [2**31, 2**31],
        -1074,
        1074,
    ]
    for array in arrays:
        part = streams.code(array)
        for node in changed(part.node, values):
            try:
                reader = Reader(part.data)
                back = streams.decode(node, reader)
                reader.finish()
            except Refused:
                continue
            assert back.nbytes == streams.size_of(node)


def changed(node: dict, values: list):
    """Copies of a description with one entry replaced, or without it."""
    for key, own in node.items():
        yield {k: v for k, v in node.items() if k != key}
        yield from ({**node, key: value} for value in values)
        if isinstance(own, dict):
            yield from ({**node, key: inner} for inner in changed(own, values))
        if isinstance(own, list):
            for place in range(len(own)):
                yield from ({**node, key: [*own[:place], value, *own[place + 1 :]]} for value in values)
