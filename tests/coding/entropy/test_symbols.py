"""Entropy coders: identities of codes, golden codes, bounds by entropy, and streams that are none."""

import heapq
import itertools

import numpy as np
import pytest

from secateur.coding.entropy import ans, huffman, symbols
from secateur.coding.entropy.bits import pack, pack_fixed, unpack_fixed
from secateur.runs.stubs import Refused

CODERS = {"huffman": huffman, "ans": ans}
LENGTHS = (1, 2, 7, 511, 512, 513, 1024, 3000, 300_000)  # around the borders of blocks and chunks


def skewed(rng: np.random.Generator, count: int, size: int, p: float = 0.3) -> np.ndarray:
    return np.minimum(rng.geometric(p, count) - 1, size - 1).astype(np.int32)


def decoded(codec: str, data: bytes, count: int, size: int) -> np.ndarray:
    return np.concatenate(list(symbols.decode(codec, memoryview(data), count, size)))


def tree_bits(counts: list[int]) -> int:
    """Huffman's algorithm as he wrote it."""
    heap, bits = [c for c in counts if c], 0
    heapq.heapify(heap)
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        bits += merged
        heapq.heappush(heap, merged)
    return bits


def test_bits_lie_side_by_side():
    rng = np.random.default_rng(1)
    for _ in range(50):
        lengths = rng.integers(1, 32, rng.integers(1, 200))
        codes = np.array([rng.integers(0, 2 ** int(n)) for n in lengths])
        text = "".join(f"{code:0{n}b}" for code, n in zip(codes, lengths, strict=True))
        text += "0" * (-len(text) % 8)
        assert pack(codes, lengths) == int(text, 2).to_bytes(len(text) // 8, "big")


@pytest.mark.parametrize("width", [0, 1, 5, 8, 9, 16])
def test_fixed_width_round_trip(width):
    values = np.random.default_rng(2).integers(0, 2**width, 70_001).astype(np.int32)
    assert np.array_equal(np.concatenate([*unpack_fixed(pack_fixed(values, width), width, 70_001)]), values)


def test_canonical_codes_are_those_of_rfc_1951():
    codes = huffman.canonical(np.array([3, 3, 3, 3, 3, 2, 4, 4], np.uint8))  # its example, §3.2.2
    assert codes.tolist() == [0b010, 0b011, 0b100, 0b101, 0b110, 0b00, 0b1110, 0b1111]


def test_lengths_are_those_of_a_full_tree_and_as_short_as_huffmans():
    rng = np.random.default_rng(3)
    for _ in range(200):
        counts = rng.integers(0, rng.integers(2, 1000), rng.integers(2, 300))
        counts[:2] += 1
        lengths = huffman.code_lengths(counts).astype(int)
        own = lengths[counts > 0]
        assert not lengths[counts == 0].any()
        assert sum(2.0**-n for n in own) == 1  # Kraft
        assert int(lengths @ counts) == tree_bits(counts.tolist())
        assert 0 <= lengths @ counts - symbols.entropy(counts) < counts.sum()


def test_limited_lengths_are_the_best_of_all():
    """Against all lengths of at most 3 bits of 5 symbols."""
    rng = np.random.default_rng(4)
    valid = [n for n in itertools.product((1, 2, 3), repeat=5) if sum(2.0**-x for x in n) <= 1]
    for _ in range(50):
        counts = rng.integers(1, 50, 5) ** 2
        best = min(int(np.dot(n, counts)) for n in valid)
        assert huffman.code_lengths(counts, limit=3) @ counts == best


def test_fibonacci_counts_reach_the_limit_and_not_beyond():
    counts = [1, 1]
    while len(counts) < 30:
        counts.append(counts[-1] + counts[-2])  # Huffman's tree is 29 deep
    lengths = huffman.code_lengths(np.array(counts))
    assert lengths.max() == huffman.SHORT and sum(2.0 ** -int(n) for n in lengths) == 1


@pytest.mark.parametrize("codec", CODERS)
def test_round_trip(codec):
    rng = np.random.default_rng(5)
    for count, size in itertools.product(LENGTHS, (1, 2, 3, 33, 300)):
        values = skewed(rng, count, size) if size % 2 else rng.integers(0, size, count).astype(np.int32)
        data = CODERS[codec].encode(values, size)
        assert np.array_equal(decoded(codec, data, count, size), values)
        if codec == "huffman":
            assert len(data) == huffman.size_of(np.bincount(values, minlength=size))


@pytest.mark.parametrize("codec", CODERS)
def test_large_alphabets(codec):
    values = skewed(np.random.default_rng(6), 100_000, 2**16, 0.0002)
    assert np.array_equal(decoded(codec, CODERS[codec].encode(values, 2**16), 100_000, 2**16), values)


def test_counts_of_ans_are_within_a_sixteenth():
    counts = np.concatenate([np.arange(5000), np.random.default_rng(7).integers(0, 2**31 - 1, 5000)])
    found = ans.frequencies(ans.rounded(counts))
    assert (np.abs(found - counts) <= counts / 16).all() and (found[counts > 0] > 0).all()


@pytest.mark.parametrize("bits", [1, 2, 4, 5, 8])
def test_ans_is_within_a_thousandth_of_entropy(bits):
    """A million symbols of a normal distribution, as the indexes of shared weights are."""
    levels = np.random.default_rng(8).normal(size=1_000_000) * 2**bits / 6 + 2**bits / 2
    values = np.clip(levels, 0, 2**bits - 1).astype(np.int32)
    least = symbols.entropy(np.bincount(values)) / 8
    assert least <= len(ans.encode(values, 2**bits)) <= 1.001 * least


def test_the_smallest_codec_wins():
    rng, seen = np.random.default_rng(9), set()
    for _ in range(300):
        size, count = int(rng.integers(1, 300)), int(rng.integers(1, 3000))
        values = skewed(rng, count, size, rng.uniform(0.01, 0.9))
        coded = symbols.code(values, size)
        sizes = [len(coder.encode(values, size)) for coder in CODERS.values()]
        assert len(coded.data) == min(*sizes, -(-count * symbols.width_of(size) // 8))
        assert np.array_equal(decoded(coded.codec, coded.data, count, size), values)
        assert 8 * len(coded.data) <= 1.02 * symbols.entropy(np.bincount(values)) + 8 * 1024
        seen.add(coded.codec)
    assert seen == set(symbols.CODECS)


@pytest.mark.parametrize("codec", symbols.CODECS)
def test_what_is_no_stream_is_refused_or_gives_symbols(codec):
    """Random bytes, and streams with changed bits: never another count, never a symbol beyond the table."""
    rng, refused = np.random.default_rng(10), 0
    values = skewed(rng, 700, 11)
    coder = CODERS.get(codec)
    good = coder.encode(values, 11) if coder else pack_fixed(values, 4)
    for i in range(300):
        data = bytearray(good)
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        data = (
            rng.bytes(rng.integers(400))
            if i % 3 == 0
            else data[: rng.integers(len(data))]
            if i % 3 == 1
            else data
        )
        try:
            found = decoded(codec, bytes(data), 700, 11)
        except Refused:
            refused += 1
        else:
            assert len(found) == 700 and found.min() >= 0 and found.max() < 11
    assert refused > 150
