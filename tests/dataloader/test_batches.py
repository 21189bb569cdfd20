"""Order and size of batches."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur import dataloader
from secateur.runs.errors import DataError, UsageError


def numbered(n: int) -> dataloader.Images:
    """Image i is filled with i % 256, has label i % 10 and id 1000 + i."""
    index = np.arange(n)
    pixels = np.broadcast_to((index % 256).astype(np.uint8)[:, None, None, None], (n, 4, 4, 3))
    return dataloader.Images(pixels, (index % 10).astype(np.int32), index + 1000)


@given(st.integers(1, 300), st.integers(0, 9), st.integers(0, 9))
def test_an_epoch_is_a_permutation_that_a_resumed_run_finds_again(n, seed, epoch):
    order = dataloader.epoch_order(n, seed, epoch)
    assert np.array_equal(np.sort(order), np.arange(n))
    assert np.array_equal(order, dataloader.epoch_order(n, seed, epoch))


def test_orders_differ_between_epochs_and_seeds():
    orders = {tuple(dataloader.epoch_order(50, seed, epoch)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


@given(st.integers(1, 100), st.integers(1, 40), st.integers(0, 5))
def test_batches_hold_every_image_once_with_its_own_label(n, size, seed):
    got = list(dataloader.batches(numbered(n), size, dataloader.epoch_order(n, seed, 0)))
    ids = np.concatenate([batch.ids for batch in got])
    assert np.array_equal(np.sort(ids), np.arange(n) + 1000)
    assert [len(batch.ids) for batch in got[:-1]] == [size] * (n // size - (n % size == 0))
    for batch in got:
        assert np.array_equal(batch.labels, (batch.ids - 1000) % 10)
        assert np.array_equal(batch.images[:, 0, 0, 0], (batch.ids - 1000) % 256)


def test_steps_of_published_epochs():
    """50,000 images in batches of 128: 391 for KESI with the last, smaller one; 390 for EKG without."""
    pixels = np.broadcast_to(np.uint8(0), (50000, 1, 1, 3))
    images = dataloader.Images(pixels, np.zeros(50000, np.int32), np.arange(50000))
    assert sum(1 for _ in dataloader.batches(images, 128)) == 391
    assert sum(1 for _ in dataloader.batches(images, 128, drop_remainder=True)) == 390


def test_without_an_order_images_come_as_they_lie():
    got = list(dataloader.batches(numbered(10), 4))
    assert np.concatenate([batch.ids for batch in got]).tolist() == list(range(1000, 1010))


def test_an_impossible_batch_is_refused_at_the_call():
    with pytest.raises(DataError, match="Received: 7 images, batch_size=8"):
        dataloader.batches(numbered(7), 8, drop_remainder=True)
    with pytest.raises(UsageError, match="batch_size=0"):
        dataloader.batches(numbered(7), 0)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.integers(0, 9), st.integers(0, 9))
def test_a_balanced_epoch_has_every_class_equally_often(sizes, seed, epoch):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    order = dataloader.balanced_order(labels, seed, epoch)
    assert len(order) == len(labels)
    assert np.ptp(np.bincount(labels[order], minlength=len(sizes))) <= 1
    for label in range(len(sizes)):
        times = np.bincount(order, minlength=len(labels))[labels == label]
        assert np.ptp(times) <= 1, "of a class no image comes twice before all others have come"
    assert np.array_equal(order, dataloader.balanced_order(labels, seed, epoch))
