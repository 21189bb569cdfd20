"""The parts of a data set: what may be trained on, what decides, and what is only reported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from secateur.runs.errors import DataError

SEARCH_PER_CLASS = 32
HOLDOUT_PER_CLASS = 256
WARMUP_PER_CLASS = 256
MIN_PER_CLASS = 10
"""Below ten images a class, the hold-out of n // 10 would be empty."""

_SHUFFLE_SEED = 1
"""Seed with which EKG shuffles its class-wise picks."""


@dataclass(frozen=True)
class Images:
    """Labelled images in memory.

    Attributes:
        images: uint8, [n, h, w, 3], RGB.
        labels: int32, [n], 0 … classes − 1.
        ids: int64, [n], the position of each image in the official order of its split. It indexes a teacher's
            memory bank, whatever the order of a batch.
    """

    images: np.ndarray
    labels: np.ndarray
    ids: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: np.ndarray) -> Images:
        """Return the images at `index` (integers, [k]) in that order, as copies."""
        return Images(self.images[index], self.labels[index], self.ids[index])


@dataclass(frozen=True)
class Facts:
    """What a network must know of a data set.

    Attributes:
        name: registry key, "CIFAR10".
        num_classes: number of labels.
        shape: (height, width, 3) of one image.
        mean: subtracted from each channel, on the 0–255 scale.
        std: divides each channel, on the 0–255 scale.
        flip: whether a mirrored image still belongs to its class.
        normalisation: name of `mean` and `std` in the registry.
    """

    name: str
    num_classes: int
    shape: tuple[int, int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    flip: bool = True
    normalisation: str = "rgb"


@dataclass
class _LazyTest:
    """Reads the test images at their first use and counts the uses."""

    source: Callable[[], Images]
    reads: int = 0
    _images: Images | None = None

    def read(self) -> Images:
        if self._images is None:
            self._images = self.source()
        self.reads += 1
        return self._images


@dataclass(frozen=True)
class Splits:
    """A data set, cut so that no decision needs the test images.

    Attributes:
        train: everything but `search` and `holdout`, in official order.
        search: up to 32 images a class that score candidates (EKG's D_val), shuffled.
        warmup: up to 256 images a class of `train` that warm a network up (EKG's D_sub), shuffled.
        holdout: up to 256 images a class that choose between epochs and hyper-parameters, in official order.
        facts: classes, shape and normalisation.
    """

    train: Images
    search: Images
    warmup: Images
    holdout: Images
    facts: Facts
    _test: _LazyTest = field(repr=False, compare=False)

    @property
    def test(self) -> Images:
        """The official test images. They are read from disk at the first access; every access counts."""
        return self._test.read()

    def first(self, count: int) -> Splits:
        """The same with the first `count` training images, and of `warmup` those that are among them."""
        train = self.train.take(np.arange(min(count, len(self.train))))
        known = np.flatnonzero(np.isin(self.warmup.ids, train.ids))
        return replace(self, train=train, warmup=self.warmup.take(known))

    @property
    def test_reads(self) -> int:
        """How often `test` was asked for: a run that only reports reads it once per reported number."""
        return self._test.reads


def split_indices(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Cut a training set class by class, in official order.

    Of the n images of a class, `search` takes the last min(32, n // 4), `holdout` the min(256, n // 10)
    before those, `warmup` the first min(256, rest) of what remains, `train` all that remains. EKG's D_val and
    D_sub are the same picks; the hold-out is ours, because EKG selects nothing between its search and the
    test images.

    Args:
        labels: integers, [n], in official order.

    Returns:
        int64 positions for "train", "search", "warmup" and "holdout". `train` and `holdout` ascend; `search`
        and `warmup` are shuffled with seed 1.

    Raises:
        DataError: a class has fewer than ten images.
    """
    picks = [_class_picks(np.flatnonzero(labels == label), label) for label in np.unique(labels)]
    if not picks:
        raise DataError(f"The split needs at least {MIN_PER_CLASS} images of every class. Received: 0 images")
    train, search, warmup, holdout = (np.concatenate(parts) for parts in zip(*picks, strict=True))
    return {
        "train": np.sort(train),
        "search": np.random.default_rng(_SHUFFLE_SEED).permutation(search),
        "warmup": np.random.default_rng(_SHUFFLE_SEED).permutation(warmup),
        "holdout": np.sort(holdout),
    }


def _class_picks(members: np.ndarray, label: int) -> tuple[np.ndarray, ...]:
    """Return train, search, warmup and holdout of one class from its positions in official order."""
    n = len(members)
    if n < MIN_PER_CLASS:
        raise DataError(
            f"The split needs at least {MIN_PER_CLASS} images of every class. "
            f"Received: {n} images of class {label}"
        )
    search = n - min(SEARCH_PER_CLASS, n // 4)
    holdout = search - min(HOLDOUT_PER_CLASS, n // 10)
    warmup = min(WARMUP_PER_CLASS, holdout)
    return members[:holdout], members[search:], members[:warmup], members[holdout:search]


def make_splits(official_train: Images, read_test: Callable[[], Images], facts: Facts) -> Splits:
    """Cut the official training images by `split_indices`; the first use of `test` calls `read_test`."""
    parts = {name: official_train.take(index) for name, index in split_indices(official_train.labels).items()}
    return Splits(**parts, facts=facts, _test=_LazyTest(read_test))


def equidistant(count: int, most: int) -> np.ndarray:
    """At most so many of the numbers 0 … count − 1, at equal distances."""
    return np.unique(np.linspace(0, count - 1, most).astype(int))
