"""The data sets that `load` knows: one entry each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from dataloader import digits, tfds_source
from dataloader.splits import Facts, Images
from runs.errors import UsageError
from runs.suggest import nearest

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Dataset:
    """One data set.

    Attributes:
        num_classes: number of labels.
        shape: (height, width, 3) of one image.
        read: (part, data_path, download) → Images in official order; part is "train" or "test".
        normalisations: name → (mean, std) on the 0–255 scale.
        flip: whether a mirrored image still belongs to its class.
    """

    num_classes: int
    shape: tuple[int, int, int]
    read: Callable[[str, str | None, bool], Images]
    normalisations: dict[str, tuple[Triple, Triple]]
    flip: bool = True


IMAGENET = ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))  # of ImageNet's training images


def _normalisations(mean: Triple, std: Triple) -> dict[str, tuple[Triple, Triple]]:
    """Return both orders of the constants (EKG's published weights expect blue's for red) and ImageNet's."""
    return {"rgb": (mean, std), "bgr": (mean[::-1], std[::-1]), "imagenet": IMAGENET}


DATASETS: dict[str, Dataset] = {
    "CIFAR10": Dataset(
        10,
        (32, 32, 3),
        partial(tfds_source.read, "CIFAR10", "cifar10"),
        _normalisations((125.3, 123.0, 113.9), (63.0, 62.1, 66.7)),
    ),
    "CIFAR100": Dataset(
        100,
        (32, 32, 3),
        partial(tfds_source.read, "CIFAR100", "cifar100"),
        _normalisations((129.0, 124.0, 112.0), (68.0, 65.0, 70.0)),
    ),
    "DIGITS": Dataset(
        10,
        (32, 32, 3),
        digits.read,
        _normalisations((digits.MEAN,) * 3, (digits.STD,) * 3),
        flip=False,
    ),
}


def find_dataset(name: str) -> Dataset:
    """Return the entry of `name`. Raises `UsageError` with the valid names and the nearest one."""
    if name not in DATASETS:
        raise UsageError(f"Unknown data set. Received: dataset={name!r}. {nearest(name, DATASETS)}")
    return DATASETS[name]


def facts_of(name: str, normalisation: str) -> Facts:
    """Return the facts of data set `name`. Raises `UsageError` for an unknown name or normalisation."""
    entry = find_dataset(name)
    if normalisation not in entry.normalisations:
        hint = nearest(normalisation, entry.normalisations)
        raise UsageError(f"Unknown normalisation. Received: normalisation={normalisation!r}. {hint}")
    mean, std = entry.normalisations[normalisation]
    return Facts(name, entry.num_classes, entry.shape, mean, std, entry.flip, normalisation)
