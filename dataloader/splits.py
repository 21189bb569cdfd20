"""The parts of a data set: what may be trained on, what decides, and what is only reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from secateur.dataloader.sources.stored import Stored
from secateur.runs.errors import DataError

SEARCH_PER_CLASS = 32
HOLDOUT_PER_CLASS = 256
WARMUP_PER_CLASS = 256
MIN_PER_CLASS = 3
"""One image of each class to train on, one that scores candidates, one in the hold-out."""

_SHUFFLE_SEED = 1
"""Seed with which EKG shuffles its class-wise picks."""


@dataclass(frozen=True, eq=False)
class Columns:
    """What several inputs of a network read, or several outputs are compared with; sliced as one array is.

    Attributes:
        parts: a tuple, list or dictionary of arrays with the same first axis, as the network has them.
    """

    parts: Any

    def __len__(self) -> int:
        return len(self._arrays[0])

    def __getitem__(self, index: Any) -> Columns:
        rows = iter([array[index] for array in self._arrays])
        if isinstance(self.parts, Mapping):
            return Columns(dict(zip(self.parts, rows, strict=True)))
        return Columns(type(self.parts)(rows))

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the first one."""
        return self._arrays[0].shape

    @property
    def nbytes(self) -> int:
        """Of all of them."""
        return sum(array.nbytes for array in self._arrays)

    @property
    def _arrays(self) -> list[np.ndarray]:
        return list(self.parts.values() if isinstance(self.parts, Mapping) else self.parts)


def parts_of(rows: Any) -> Any:
    """What a network or a loss takes: an array as it is, of `Columns` the arrays in their structure."""
    return rows.parts if isinstance(rows, Columns) else rows


@dataclass(frozen=True)
class Images:
    """Labelled images.

    Attributes:
        images: uint8, [n, h, w, 3], RGB, in memory or `Stored`; or what else the user's own network reads,
            `Columns` where it has several inputs.
        labels: int32, [n], 0 … classes − 1; or what else the user's own loss compares with, `Columns` where
            that is several arrays.
        ids: int64, [n], the position of each image in the official order of its split. It indexes a teacher's
            memory bank, whatever the order of a batch.
        skipped: of a whole split, files that could not be read and were left out.
    """

    images: Any
    labels: Any
    ids: np.ndarray
    skipped: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: np.ndarray) -> Images:
        """Return the images at `index` (integers, [k]) in that order, as copies, or in their files."""
        images = self.images.take(index) if isinstance(self.images, Stored) else self.images[index]
        return Images(images, self.labels[index], self.ids[index])


@dataclass(frozen=True)
class Facts:
    """What a network must know of a data set.

    Attributes:
        name: registry key, "CIFAR10".
        num_classes: number of labels.
        shape: (height, width, channels) of one image; 1 or 3 channels.
        mean: subtracted from each channel, on the 0–255 scale.
        std: divides each channel, on the 0–255 scale.
        flip: whether a mirrored image still belongs to its class.
        normalisation: name of `mean` and `std` in the registry; "given" where the user said them.
        exchanged: whether the network reads blue, green, red, in the order of `mean` and `std`.
        colours: whether images are bytes of colours, which may be jittered; other numbers may not.
        labelled: whether the labels say anything of the images; else all are 0.
        class_names: in the order of the labels; () where nobody knows them.
    """

    name: str
    num_classes: int
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool = True
    normalisation: str = "rgb"
    exchanged: bool = False
    colours: bool = True
    labelled: bool = True
    class_names: tuple[str, ...] = ()


@dataclass
class _LazyTest:
    """Reads the test images at their first use and counts the uses."""

    source: Callable[[], Images]
    reads: int = 0
    _images: Images | None = None

    def fetch(self) -> Images:
        """For who wants no more than their number."""
        if self._images is None:
            self._images = self.source()
        return self._images

    def read(self) -> Images:
        self.reads += 1
        return self.fetch()


@dataclass(frozen=True)
class Splits:
    """A data set, cut so that no decision needs the test images.

    Attributes:
        train: everything but `search` and `holdout`, in official order.
        search: up to 32 images a class that score candidates (EKG's D_val), shuffled.
        warmup: up to 256 images a class of `train` that warm a network up (EKG's D_sub), shuffled.
        holdout: up to 256 images a class that choose between epochs and hyper-parameters, in official order.
        facts: classes, shape and normalisation.
        skipped_train: files of the official training images that could not be read and were left out.
    """

    train: Images
    search: Images
    warmup: Images
    holdout: Images
    facts: Facts
    _test: _LazyTest | None = field(repr=False, compare=False)
    skipped_train: int = 0

    @property
    def test(self) -> Images:
        """The official test images. They are read from disk at the first access; every access counts.

        Raises `DataError` where there are none.
        """
        if self._test is None:
            raise DataError(
                f"There are no test images. Received: {self.facts.name}\n"
                "a folder has them in test/ beside train/: give the one that holds both"
            )
        return self._test.read()

    @property
    def measured(self) -> dict[str, Images]:
        """What a report shows, by name: "holdout", and "test" where there is one, which is read by this."""
        return {"holdout": self.holdout} | ({"test": self.test} if self._test else {})

    @property
    def measured_count(self) -> int:
        """How many images `measured` has. They are fetched from disk for that, and nobody looks at them."""
        return len(self.holdout) + (len(self._test.fetch()) if self._test else 0)

    @property
    def skipped(self) -> dict[str, int]:
        """Files that could not be read and were left out, by part; of "test" once that has been read."""
        read = self._test._images if self._test else None
        found = {"train": self.skipped_train, "test": read.skipped if read else 0}
        return {part: count for part, count in found.items() if count}

    def first(self, count: int) -> Splits:
        """The same with the first `count` training images, and of `warmup` those that are among them."""
        train = self.train.take(np.arange(min(count, len(self.train))))
        known = np.flatnonzero(np.isin(self.warmup.ids, train.ids))
        return replace(self, train=train, warmup=self.warmup.take(known))

    def unlabelled(self) -> Splits:
        """The same, with labels that say nothing."""
        return replace(self, facts=replace(self.facts, labelled=False))

    @property
    def test_reads(self) -> int:
        """How often `test` was asked for: a run that only reports reads it once per reported number."""
        return self._test.reads if self._test else 0


def split_indices(labels: np.ndarray) -> dict[str, np.ndarray]:
    """Cut a training set class by class, in official order.

    Of the n images of a class, `search` takes the last min(32, n // 4), `holdout` the min(256, n // 10)
    before those, at least one each, `warmup` the first min(256, rest) of what remains, `train` all that
    remains. EKG's D_val and D_sub are the same picks; the hold-out is ours, because EKG selects nothing
    between its search and the test images.

    Args:
        labels: integers, [n], in official order.

    Returns:
        int64 positions for "train", "search", "warmup" and "holdout". `train` and `holdout` ascend; `search`
        and `warmup` are shuffled with seed 1.

    Raises:
        DataError: a class has fewer than three images.
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
    search = n - min(SEARCH_PER_CLASS, max(1, n // 4))
    holdout = search - min(HOLDOUT_PER_CLASS, max(1, n // 10))
    warmup = min(WARMUP_PER_CLASS, holdout)
    return members[:holdout], members[search:], members[:warmup], members[holdout:search]


def make_splits(official_train: Images, read_test: Callable[[], Images] | None, facts: Facts) -> Splits:
    """Cut the official training images by `split_indices`; the first use of `test` calls `read_test`.

    None where there are no test images.
    """
    parts = {name: official_train.take(index) for name, index in split_indices(official_train.labels).items()}
    test = _LazyTest(read_test) if read_test else None
    return Splits(**parts, facts=facts, _test=test, skipped_train=official_train.skipped)


def given_splits(train: Images, holdout: Images | None, test: Images | None, facts: Facts) -> Splits:
    """Images that are in memory already as `Splits`.

    `search` and `warmup` are of `train`, as in `split_indices`; without `holdout` that is cut off, too.
    Images whose labels are no classes (numbers, several labels, maps) are drawn at random.
    """
    labels = train.labels
    if isinstance(labels, Columns) or labels.ndim > 1 or not np.issubdtype(labels.dtype, np.integer):
        train = train.take(np.random.default_rng(_SHUFFLE_SEED).permutation(len(train)))
        labels = np.arange(len(train)) % max(1, min(facts.num_classes, len(train) // MIN_PER_CLASS))
    index = split_indices(labels)
    if holdout is not None:
        index["train"] = np.sort(np.concatenate([index["train"], index["holdout"]]))
    parts = {name: train.take(chosen) for name, chosen in index.items()}
    if holdout is not None:
        parts["holdout"] = holdout
    read = _LazyTest(lambda: test) if test is not None else None
    return Splits(**parts, facts=facts, _test=read, skipped_train=train.skipped)


def equidistant(count: int, most: int) -> np.ndarray:
    """At most so many of the numbers 0 … count − 1, at equal distances."""
    return np.unique(np.linspace(0, count - 1, most).astype(int))
