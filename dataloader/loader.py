"""`load`: a name and a folder in, `Splits` out."""

from __future__ import annotations

from functools import partial

import numpy as np

from dataloader.registry import Dataset, facts_of, find_dataset
from dataloader.splits import Splits, make_splits
from runs.errors import DataError


def load(
    name: str, data_path: str | None = None, normalisation: str = "rgb", download: bool = True
) -> Splits:
    """Load a data set and cut it into train, search, warm-up and hold-out images.

    Only the training images are decoded here; the test images are when `Splits.test` is first used.

    Args:
        name: "CIFAR10", "CIFAR100" or "DIGITS" (scikit-learn's 8×8 digits, upscaled; needs no files).
        data_path: the folder that holds `cifar10/3.0.2` (a `data_dir` of tensorflow-datasets); None = that
            library's default folder. It may be read-only when the data set is in it.
        normalisation: "rgb"; "bgr" for EKG's published weights, which were trained with the constants of red
            and blue exchanged; "imagenet" for weights that were trained with the constants of ImageNet.
        download: fetch and prepare a missing data set (needs network once).

    Raises:
        UsageError: unknown name or normalisation.
        DataError: missing and not to be had, damaged, or too small to split.
    """
    facts = facts_of(name, normalisation)
    entry = find_dataset(name)
    path = None if data_path is None else str(data_path)
    official_train = entry.read("train", path, download)
    _check_labels(name, entry, official_train.labels)
    return make_splits(official_train, partial(entry.read, "test", path, download), facts)


def _check_labels(name: str, entry: Dataset, labels: np.ndarray) -> None:
    """A class without a single image would not be noticed by the split."""
    found = np.unique(labels)
    if len(found) != entry.num_classes:
        raise DataError(f"{name} has {entry.num_classes} classes. Received: images of {len(found)} classes")
