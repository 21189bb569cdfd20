"""The cut of a training set, as published by EKG, and as a property of any labels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur import dataloader
from secateur.runs.errors import DataError

CLASS_SIZES = st.lists(st.integers(10, 700), min_size=1, max_size=6)


def shuffled_labels(sizes: list[int], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))


@given(CLASS_SIZES, st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_three_parts_cover_everything_once(sizes, seed):
    labels = shuffled_labels(sizes, seed)
    parts = dataloader.split_indices(labels)
    together = np.concatenate([parts["train"], parts["search"], parts["holdout"]])
    assert np.array_equal(np.sort(together), np.arange(len(labels)))
    assert np.isin(parts["warmup"], parts["train"]).all()
    assert len(np.unique(parts["warmup"])) == len(parts["warmup"])


@given(CLASS_SIZES, st.integers(0, 99))
@settings(max_examples=100, deadline=None)
def test_each_class_keeps_its_official_order(sizes, seed):
    """Warm-up < train < hold-out < search in each class; every part holds every class."""
    labels = shuffled_labels(sizes, seed)
    parts = dataloader.split_indices(labels)
    for label, size in enumerate(sizes):
        of_class = {name: index[labels[index] == label] for name, index in parts.items()}
        assert of_class["train"].max() < of_class["holdout"].min()
        assert of_class["holdout"].max() < of_class["search"].min()
        assert np.array_equal(np.sort(of_class["warmup"]), of_class["train"][: len(of_class["warmup"])])
        assert len(of_class["search"]) == min(32, size // 4)
        assert len(of_class["holdout"]) == min(256, size // 10)


@pytest.mark.parametrize(
    "classes, each, expected",
    [
        (10, 5000, {"train": 47120, "search": 320, "warmup": 2560, "holdout": 2560}),
        (100, 500, {"train": 41800, "search": 3200, "warmup": 25600, "holdout": 5000}),
    ],
)
def test_counts_of_cifar(classes, each, expected):
    """EKG: 320 and 2,560 images of CIFAR-10; 3,200 and 25,600 of CIFAR-100."""
    parts = dataloader.split_indices(shuffled_labels([each] * classes, 0))
    assert {name: len(index) for name, index in parts.items()} == expected


def test_picks_are_shuffled_and_always_alike():
    labels = np.repeat(np.arange(10), 100)
    once, again = dataloader.split_indices(labels), dataloader.split_indices(labels)
    for name in ("search", "warmup"):
        assert np.array_equal(once[name], again[name])
        assert len(np.unique(labels[once[name][:25]])) > 3, "the first batch must not hold one class only"
    for name in ("train", "holdout"):
        assert (np.diff(once[name]) > 0).all()


def test_too_few_images_of_a_class_are_named():
    labels = np.repeat([0, 1, 2], [40, 2, 40])
    with pytest.raises(DataError, match="at least 3 .* Received: 2 images of class 1"):
        dataloader.split_indices(labels)
    with pytest.raises(DataError, match="at least 3 .* Received: 0 images"):
        dataloader.split_indices(labels[:0])


def test_three_images_of_a_class_are_one_for_each_part():
    parts = dataloader.split_indices(np.repeat([0, 1], 3))
    assert {name: len(index) for name, index in parts.items()} == {
        "train": 2, "search": 2, "warmup": 2, "holdout": 2,
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["classes", "numbers", "several labels"])
def test_images_in_memory_are_cut_into_parts_that_share_none(kind):
    rng, n = np.random.default_rng(0), 90
    labels = {
        "classes": np.arange(n, dtype=np.int32) % 3,
        "numbers": rng.normal(size=(n, 2)).astype(np.float32),
        "several labels": (rng.random((n, 4)) < 0.5).astype(np.float32),
    }[kind]
    images = dataloader.Images(np.arange(n, dtype=np.float32)[:, None], labels, np.arange(n))
    facts = dataloader.Facts("memory", 3, (1,), (0.0,), (1.0,))
    cut = dataloader.given_splits(images, None, None, facts)
    assert sorted(np.concatenate([cut.train.ids, cut.search.ids, cut.holdout.ids])) == [*range(n)]
    for part in (cut.train, cut.search, cut.holdout):
        assert len(part) and np.array_equal(part.labels, labels[part.ids]), "every image keeps its label"
    own = dataloader.given_splits(images, images.take(np.arange(5)), images.take(np.arange(7)), facts)
    assert len(own.holdout) == 5 and len(own.test) == 7
    assert sorted(np.concatenate([own.train.ids, own.search.ids])) == [*range(n)]
