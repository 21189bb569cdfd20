"""`load`: a name and a folder in, `Splits` out."""

from __future__ import annotations

from functools import partial

import numpy as np

from secateur.dataloader.pipelines import Constants
from secateur.dataloader.registry import Dataset, Shape, facts_of, open_dataset
from secateur.dataloader.splits import Splits, make_splits
from secateur.runs.errors import DataError


def load(
    name: str,
    data_path: str | None = None,
    normalisation: str = "rgb",
    download: bool = True,
    shape: Shape | None = None,
    constants: Constants | None = None,
) -> Splits:
    """Load a data set and cut it into train, search, warm-up and hold-out images.

    Only the training images are decoded here; the test images are when `Splits.test` is first used.

    Args:
        name: "DIGITS" (scikit-learn's 8×8 digits, upscaled; no files); of tensorflow-datasets "CIFAR10",
            "CIFAR100", "IMAGENET" (imagenet2012), "tfds:NAME" or "tfds:NAME/CONFIG:VERSION"; from a folder
            "TINY_IMAGENET", "CINIC10", "CINIC10_VALID" (validation images in the part of the test, as HAP
            reports) and "folder". "NAME@64" brings images to 64×64 when they are read.
        data_path: the folder of images, or the one that holds `cifar10/3.0.2` (a `data_dir` of
            tensorflow-datasets); None = that library's default folder. It may be read-only when the data set
            is in it.
        normalisation: "rgb"; "bgr" for EKG's published weights, which were trained with the constants of red
            and blue exchanged; "imagenet" for weights that were trained with the constants of ImageNet;
            "kesi", "hap" or "sfp" for theirs, see `dataloader.pipelines`; or what a model reads: "0..255",
            "0..1", "-1..1", "caffe", "torch".
        download: fetch and prepare a missing data set (needs network once).
        shape: (height, width, 1 or 3) that images are brought to; None = their own.
        constants: mean and standard deviation of each channel on the 0–255 scale, instead of a name.

    Raises:
        UsageError: unknown name or normalisation.
        DataError: missing and not to be had, damaged, or too small to split.
    """
    path = None if data_path is None else str(data_path)
    facts = facts_of(name, normalisation, path, download, shape, constants)
    entry = open_dataset(name, path, download, shape)
    official_train = entry.read("train", path, download)
    _check_labels(name, entry, official_train.labels)
    tested = entry.tested is None or entry.tested(path)
    return make_splits(official_train, partial(entry.read, "test", path, download) if tested else None, facts)


def _check_labels(name: str, entry: Dataset, labels: np.ndarray) -> None:
    """A class without a single image would not be noticed by the split."""
    found = np.unique(labels)
    if len(found) != entry.num_classes:
        raise DataError(f"{name} has {entry.num_classes} classes. Received: images of {len(found)} classes")
