"""`load`, and the data sets that it knows: one entry each, and tensorflow-datasets' behind "tfds:"."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from secateur.dataloader.pipelines import EXCHANGED, IMAGENET, PIXELS, Constants, normalisations_of
from secateur.dataloader.sources import digits, folders, memory, tfds
from secateur.dataloader.splits import Facts, Images, Splits, make_splits
from secateur.runs.errors import DataError, UsageError
from secateur.runs.registry import Registry
from secateur.runs.suggest import require

Triple = tuple[float, float, float]
Shape = tuple[int, int, int]
CIFAR10 = tuple("airplane automobile bird cat deer dog frog horse ship truck".split())


@dataclass(frozen=True)
class Dataset:
    """One data set.

    Attributes:
        num_classes: number of labels; None where only the data says it.
        shape: (height, width, 3) of one image; None as above.
        read: (part, data_path, download, shape=) → Images in official order, brought to `shape`; part is
            "train" or "test". With `stream=True`, where that is asked for, they stay in their files.
        normalisations: name → (mean, std) on the 0–255 scale.
        flip: whether a mirrored image still belongs to its class.
        inspect: (data_path, download) → names of the classes and shape, where the data says them.
        tested: data_path → whether there is a test part; None: always.
        files: whether each image is a file, which `read` leaves out with skip_bad=True where it is damaged.
        class_names: in the order of the labels, where they are known.
    """

    num_classes: int | None
    shape: Shape | None
    read: Callable[..., Images]
    normalisations: dict[str, tuple[Triple, Triple]]
    flip: bool = True
    inspect: Callable[[str | None, bool], tuple[list[str], Shape]] | None = None
    tested: Callable[[str | None], bool] | None = None
    files: bool = False
    class_names: tuple[str, ...] = ()


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
        files=True,
    )


def _tfds(name: str) -> Dataset:
    """Return the entry of a name of tensorflow-datasets. Its own mean is not known: ImageNet's constants."""
    inspect = partial(tfds.inspect, name)
    read = partial(tfds.read, name)
    tested = partial(tfds.has_tests, name)
    return Dataset(None, None, read, _normalisations(*IMAGENET), inspect=inspect, tested=tested)


DATASETS: Registry[Dataset] = Registry(
    "data set",
    "datasets",
    {
        "CIFAR10": Dataset(
            10,
            (32, 32, 3),
            partial(tfds.read, "cifar10", label="CIFAR10"),
            _normalisations((125.3, 123.0, 113.9), (63.0, 62.1, 66.7)),
            class_names=CIFAR10,
        ),
        "CIFAR100": Dataset(
            100,
            (32, 32, 3),
            partial(tfds.read, "cifar100", label="CIFAR100"),
            _normalisations((129.0, 124.0, 112.0), (68.0, 65.0, 70.0)),
        ),
        "DIGITS": Dataset(
            10,
            (32, 32, 3),
            digits.read,
            _normalisations((digits.MEAN,) * 3, (digits.STD,) * 3),
            flip=False,
            class_names=tuple("0123456789"),
        ),
        "TINY_IMAGENET": _folder("TINY_IMAGENET", folders.tiny_layout, 200, (64, 64, 3)),
        "CINIC10": _folder("CINIC10", partial(folders.classes_layout, tests=("test",)), 10, (32, 32, 3)),
        "CINIC10_VALID": _folder(  # HAP reports on the validation part
            "CINIC10_VALID", partial(folders.classes_layout, tests=("valid",)), 10, (32, 32, 3)
        ),
        "IMAGENET": Dataset(  # its test images have no labels
            1000,
            (224, 224, 3),
            partial(tfds.read, "imagenet2012", label="IMAGENET", tests=("validation",), middle=True),
            _normalisations(*IMAGENET),
        ),
        "folder": replace(_folder("folder", folders.classes_layout, None, None), tested=folders.has_tests),
    },
    option="dataset",
)


def load(
    name: str,
    data_path: str | None = None,
    normalisation: str = "rgb",
    download: bool = True,
    shape: Shape | None = None,
    constants: Constants | None = None,
    stream: bool = False,
    skip_bad: bool = False,
) -> Splits:
    """Load a data set and cut it into train, search, warm-up and hold-out images.

    Only the training images are decoded here; the test images are when `Splits.test` is first used. Images
    that do not fit in memory stay in their files and are decoded each time they are needed.

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
        stream: leave images in their files that would fit, too.
        skip_bad: leave out the files of a folder that cannot be read or decoded, with a warning; `skipped` of
            the splits counts them.

    Raises:
        UsageError: unknown name or normalisation, `skip_bad` for images that are no files.
        DataError: missing and not to be had, damaged, or too small to split.
    """
    path = None if data_path is None else str(data_path)
    facts = facts_of(name, normalisation, path, download, shape, constants)
    entry = open_dataset(name, path, download, shape)
    if skip_bad and not entry.files:
        raise UsageError(f"Only files of a folder can be left out. Received: skip_bad, dataset={name!r}")
    asked = {"stream": stream, "skip_bad": skip_bad}
    entry = replace(entry, read=partial(entry.read, **{key: True for key, value in asked.items() if value}))
    official_train = entry.read("train", path, download)
    _check_labels(name, entry, official_train.labels)
    tested = entry.tested is None or entry.tested(path)
    return make_splits(official_train, partial(entry.read, "test", path, download) if tested else None, facts)


def _check_labels(name: str, entry: Dataset, labels: np.ndarray) -> None:
    """Raises `DataError` for a class without a single image, which the split would not notice."""
    found = np.unique(labels)
    if len(found) != entry.num_classes:
        raise DataError(f"{name} has {entry.num_classes} classes. Received: images of {len(found)} classes")


def find_dataset(name: str) -> Dataset:
    """Return the entry of a name, from the name alone: no file is read.

    Args:
        name: a key of `DATASETS` or "tfds:" and a name of tensorflow-datasets; "@SIDE" behind it asks for
            images of SIDE × SIDE pixels.

    Raises `UsageError` with the valid names and the nearest one.
    """
    base, side = _split(name)
    entry = _tfds(base[5:]) if base.startswith("tfds:") else DATASETS.find(base, more=", tfds:NAME")
    if side is None:
        return entry
    if side < 1:
        raise UsageError(f"Images of at least 1×1 pixel are needed. Received: dataset={name!r}")
    return replace(entry, shape=(side, side, 3))


def open_dataset(
    name: str, data_path: str | None = None, download: bool = True, shape: Shape | None = None
) -> Dataset:
    """Return the entry with its classes and shape, which some read off `data_path`; `read` goes by these.

    `shape` is what images are brought to instead of their own, (height, width, 1 or 3). Raises `UsageError`
    as `find_dataset` does, and `DataError` where the data is not there.
    """
    entry = find_dataset(name)
    classes, own, names = entry.num_classes, entry.shape, entry.class_names
    if entry.inspect:
        found, inside = entry.inspect(data_path, download)
        classes, own = len(found), own or inside
        names = tuple(found) if classes > 1 else ()  # images without sub-folders have one class, and no name
    own = shape or own
    read = partial(entry.read, shape=own)
    return replace(entry, num_classes=classes, shape=own, read=read, inspect=None, class_names=names)


def facts_of(
    name: str,
    normalisation: str,
    data_path: str | None = None,
    download: bool = True,
    shape: Shape | None = None,
    constants: Constants | None = None,
) -> Facts:
    """Return the facts of data set `name`; a normalisation of its entry, of a published system or `PIXELS`.

    `shape` is as in `open_dataset`; `constants` are mean and standard deviation that the user gives, called
    "given". Raises `UsageError` for an unknown name or normalisation, and errors of `open_dataset`.
    """
    if not constants:  # the name must be known before anything is read
        require(normalisation, _constants_for(name), "normalisation")
    entry = open_dataset(name, data_path, download, shape)
    classes, shape = entry.num_classes, entry.shape
    assert classes and shape  # `open_dataset` has asked the data
    bare = Facts(
        name, classes, shape, (0.0,), (1.0,), entry.flip, "",
        labelled=classes > 1, class_names=entry.class_names,
    )  # fmt: skip
    return renormalised(bare, "given" if constants else normalisation, constants)


def renormalised(facts: Facts, normalisation: str, constants: Constants | None = None) -> Facts:
    """Return the same with another normalisation, as `facts_of` takes it; nothing is read."""
    mean, std = constants or _constants_for(facts.name)[normalisation]
    channels = facts.shape[2]
    return replace(
        facts,
        mean=_for_channels(mean, channels),
        std=_for_channels(std, channels),
        normalisation=normalisation,
        exchanged=normalisation in EXCHANGED and channels == 3,
    )


def _constants_for(name: str) -> dict[str, Constants]:
    own = {} if name == memory.NAME else find_dataset(name).normalisations
    return {**PIXELS, **normalisations_of(_split(name)[0]), **own}


def _for_channels(values: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """Return the constants of red, green and blue, or of grey, which has their mean."""
    return values if len(values) == channels else (sum(values) / len(values),) * channels


def _split(name: str) -> tuple[str, int | None]:
    """Return NAME and SIDE of NAME@SIDE, or the name and None."""
    found = re.search(r"@(\d+)\Z", name)
    return (name[: found.start()], int(found[1])) if found else (name, None)
