"""Sizes as HAP's repository counts them, on its ResNet-56."""

import heapq

import numpy as np

from secateur.coding.file.accounting import (
    Sizes,
    file_bytes,
    published_size,
    published_sizes,
    stream_bits,
    tree_bits,
)
from tests.helpers.coded_nets import noise, resnet56


def test_resnet56_has_the_published_bytes():
    found = published_sizes(resnet56(noise(1), batches_tracked=True))
    original = {kind: sizes.original for kind, sizes in found.items()}
    assert original == {"conv": 3_393_216, "fc": 2_560, "other": 32_512 + 440 + 40, "all": 3_428_768}


def test_the_fully_connected_layer_expands():
    """640 distinct floats are 640 leaves of 33 bits, and a stream of 9 or 10 bits for each."""
    bits = 640 * 9 + 2 * (640 - 512)
    expected = file_bytes(33 * 640 + 639) + file_bytes(bits)
    assert published_size(noise(2)((64, 10))) == Sizes(2_560, expected) and expected > 2_560


def test_a_tree_of_two_leaves_bit_by_bit():
    """Inner node, leaf, leaf: 0, 1 and 32 bits, 1 and 32 bits."""
    assert tree_bits(2) == len("0" + 2 * ("1" + 32 * "v"))


def test_a_shared_convolution_is_three_streams():
    kernel = np.zeros((1, 1, 4, 3), np.float32)
    kernel[0, 0, 1:, :2] = [[1, 2], [2, 2], [-2, 2]]
    block = file_bytes(tree_bits(3)) + file_bytes(4 + 2 * 2)  # 2 four times, 1 and −2
    filters = file_bytes(tree_bits(2)) + file_bytes(2)
    channels = file_bytes(tree_bits(3)) + file_bytes(1 + 2 + 2)
    assert published_size(kernel) == Sizes(48, block + filters + channels)


def test_one_symbol_costs_a_bit_each_and_a_tree_with_a_sibling():
    assert published_size(np.ones((5, 2), np.float32)).coded == file_bytes(tree_bits(2)) + file_bytes(10)


def test_bits_are_those_of_huffmans_algorithm():
    rng = np.random.default_rng(3)
    for _ in range(300):
        counts = rng.integers(1, rng.integers(2, 50), rng.integers(2, 80))
        heap, bits = counts.tolist(), 0
        heapq.heapify(heap)
        while len(heap) > 1:
            merged = heapq.heappop(heap) + heapq.heappop(heap)
            bits += merged
            heapq.heappush(heap, merged)
        assert stream_bits(counts) == bits
