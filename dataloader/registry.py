"""The data sets that `load` knows: one entry each, and the names of tensorflow-datasets behind "tfds:"."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from secateur.dataloader.pipelines import IMAGENET, normalisations_of
from secateur.dataloader.sources import digits, folders, tfds
from secateur.dataloader.splits import Facts, Images
from secateur.runs.errors import UsageError
from secateur.runs.registry import Registry
from secateur.runs.suggest import require

Triple = tuple[float, float, float]
Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Dataset:
    """One data set.

    Attributes:
        num_classes: number of labels; None where only the data says it.
        shape: (height, width, 3) of one image; None as above.
        read: (part, data_path, download) → Images in official order; part is "train" or "test".
        normalisations: name → (mean, std) on the 0–255 scale.
        flip: whether a mirrored image still belongs to its class.
        inspect: (data_path, download) → names of the classes and shape, where the data says them.
        resizable: whether `read` takes `shape` and brings images to it, so that NAME@SIDE is a name, too.
    """

    num_classes: int | None
    shape: Shape | None
    read: Callable[..., Images]
    normalisations: dict[str, tuple[Triple, Triple]]
    flip: bool = True
    inspect: Callable[[str | None, bool], tuple[list[str], Shape]] | None = None
    resizable: bool = False


def _normalisations(mean: Triple, std: Triple) -> dict[str, tuple[Triple, Triple]]:
    """Return both orders of the constants (EKG's published weights expect blue's for red) and ImageNet's."""
    return {"rgb": (mean, std), "bgr": (mean[::-1], std[::-1]), "imagenet": IMAGENET}


def _folder(label: str, layout: folders.Layout, classes: int | None, shape: Shape | None) -> Dataset:
    """Return an entry whose images lie in a folder, which has the last word on `classes` and says a None."""
    return Dataset(
        classes,
        shape,
        partial(folders.read, label, layout),
        _normalisations(*normalisations_of(label).get("hap", IMAGENET)),
        inspect=partial(folders.inspect, label, layout, shape),
        resizable=True,
    )


def _tfds(name: str) -> Dataset:
    """Return the entry of a name of tensorflow-datasets. Its own mean is not known: ImageNet's constants."""
    inspect = partial(tfds.inspect, name)
    read = partial(tfds.read, name)
    return Dataset(None, None, read, _normalisations(*IMAGENET), inspect=inspect, resizable=True)


DATASETS: Registry[Dataset] = Registry(
    "data set",
    "datasets",
    {
        "CIFAR10": Dataset(
            10,
            (32, 32, 3),
            partial(tfds.read, "cifar10", label="CIFAR10", shape=(32, 32, 3)),
            _normalisations((125.3, 123.0, 113.9), (63.0, 62.1, 66.7)),
        ),
        "CIFAR100": Dataset(
            100,
            (32, 32, 3),
            partial(tfds.read, "cifar100", label="CIFAR100", shape=(32, 32, 3)),
            _normalisations((129.0, 124.0, 112.0), (68.0, 65.0, 70.0)),
        ),
        "DIGITS": Dataset(
            10,
            (32, 32, 3),
            digits.read,
            _normalisations((digits.MEAN,) * 3, (digits.STD,) * 3),
            flip=False,
        ),
        "TINY_IMAGENET": _folder("TINY_IMAGENET", folders.tiny_layout, 200, (64, 64, 3)),
        "CINIC10": _folder("CINIC10", partial(folders.classes_layout, tests=("test",)), 10, (32, 32, 3)),
        "CINIC10_VALID": _folder(  # HAP reports on the validation part
            "CINIC10_VALID", partial(folders.classes_layout, tests=("valid",)), 10, (32, 32, 3)
        ),
        "IMAGENET": Dataset(  # its test images have no labels
            1000,
            (224, 224, 3),
            partial(tfds.read, "imagenet2012", label="IMAGENET", tests=("validation",)),
            _normalisations(*IMAGENET),
            resizable=True,
        ),
        "folder": _folder("folder", folders.classes_layout, None, None),
    },
    option="dataset",
)


def find_dataset(name: str) -> Dataset:
    """Return the entry of a name, from the name alone: no file is read.

    Args:
        name: a key of `DATASETS` or "tfds:" and a name of tensorflow-datasets; "@SIDE" behind it asks for
            images of SIDE × SIDE pixels, where the entry can be resized.

    Raises `UsageError` with the valid names and the nearest one.
    """
    base, side = _split(name)
    entry = _tfds(base[5:]) if base.startswith("tfds:") else DATASETS.find(base, more=", tfds:NAME")
    if side is None:
        return entry
    if not entry.resizable or side < 1:
        raise UsageError(f"{base} cannot be resized to that. Received: dataset={name!r}")
    return replace(entry, shape=(side, side, 3))


def open_dataset(name: str, data_path: str | None = None, download: bool = True) -> Dataset:
    """Return the entry with its classes and shape, which some read off `data_path`; `read` goes by these.

    Raises `UsageError` as `find_dataset` does, and `DataError` where the data is not there.
    """
    entry = find_dataset(name)
    classes, shape = entry.num_classes, entry.shape
    if entry.inspect:
        names, found = entry.inspect(data_path, download)
        classes, shape = len(names), shape or found
    read = partial(entry.read, shape=shape) if entry.resizable else entry.read
    return replace(entry, num_classes=classes, shape=shape, read=read, inspect=None, resizable=False)


def facts_of(name: str, normalisation: str, data_path: str | None = None, download: bool = True) -> Facts:
    """Return the facts of data set `name`, with a normalisation of its entry or of a published system.

    Raises `UsageError` for an unknown name or normalisation, and errors of `open_dataset`.
    """
    known = {**normalisations_of(_split(name)[0]), **find_dataset(name).normalisations}
    require(normalisation, known, "normalisation")
    mean, std = known[normalisation]
    entry = open_dataset(name, data_path, download)
    classes, shape = entry.num_classes, entry.shape
    assert classes and shape  # `open_dataset` has asked the data
    return Facts(name, classes, shape, mean, std, entry.flip, normalisation)


def _split(name: str) -> tuple[str, int | None]:
    """Return NAME and SIDE of NAME@SIDE, or the name and None."""
    found = re.search(r"@(\d+)\Z", name)
    return (name[: found.start()], int(found[1])) if found else (name, None)
