"""Whether what the user named exists and fits together: architecture, data set, snapshot, normalisation."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any

import keras
from pydantic import ConfigDict, Field

from secateur import dataloader, nets
from secateur.dataloader import Splits
from secateur.dataloader.pipelines import Constants
from secateur.dataloader.registry import DATASETS, find_dataset, open_dataset
from secateur.nets import torch_names
from secateur.recipes.engine.config import ImageOptions, RunOptions
from secateur.recipes.engine.options import Options
from secateur.runs import DataError, Snapshot, SnapshotError, UsageError

LARGEST = 2**14  # pixels of a side of an image


def check_names(arch: str | None, dataset: str) -> None:
    """Raises `UsageError` for an unknown architecture or data set, before anything is read or made."""
    find_dataset(dataset)
    if arch:
        nets.family_of(arch)


def normalisation_of(wanted: str, snapshot: Snapshot | None) -> str:
    """The constants that weights were trained with: "rgb", "bgr" or "imagenet".

    `wanted` is one of these or "auto": what the snapshot says, "rgb" without a snapshot, and what published
    files, which say nothing, need: "imagenet" for weights from PyTorch, EKG's order "bgr" for a pickle.
    """
    if wanted != "auto":
        return wanted
    if snapshot is None:
        return "rgb"
    if snapshot.spec:
        return snapshot.facts.get("normalisation", "rgb")
    return torch_names.NORMALISATION if torch_names.is_torch(snapshot.arrays) else "bgr"


def constants_of(config: ImageOptions, normalisation: str, snapshot: Snapshot | None) -> Constants | None:
    """Mean and standard deviation of each channel that the user gave, now or when the snapshot was made.

    None where they belong to the name of the normalisation.
    """
    if config.constants or normalisation != "given" or snapshot is None:
        return config.constants
    known = SnapshotFacts(**snapshot.facts)
    return tuple(known.mean), tuple(known.std)


def load_splits(
    config: RunOptions,
    normalisation: str,
    constants: Constants | None = None,
    shape: tuple[int, int, int] | None = None,
) -> Splits:
    """The run's data set, in the shape that its network reads, with as many images as it is allowed.

    `constants`, if there are any, stand in for those of the normalisation. Raises `DataError` for one's own
    images that are not there, by whatever name.
    """
    if config.data:
        if not config.data.startswith("tfds:") and not os.path.isdir(config.data):
            raise DataError(
                f"There is no such folder. Received: data={config.data}\n"
                "give a folder with a sub-folder of images for each class, or tfds:NAME"
            )
        try:
            open_dataset(config.dataset, config.data_path)
        except UsageError as error:
            raise DataError(str(error)) from error
    splits = dataloader.load(
        config.dataset,
        config.data_path,
        normalisation,
        shape=shape,
        constants=constants,
        stream=config.stream,
        skip_bad=config.skip_bad,
    )
    return splits.first(config.train_images) if config.train_images else splits


class SnapshotFacts(Options):
    """What a snapshot says of the images that its network reads, and of what it gives."""

    model_config = ConfigDict(extra="ignore")

    normalisation: str = "rgb"
    mean: list[float] = Field([0.0], min_length=1, max_length=3)
    std: list[Annotated[float, Field(gt=0)]] = Field([1.0], min_length=1, max_length=3)
    crop: int | None = Field(None, ge=1, le=LARGEST)
    resize: int | None = Field(None, ge=1, le=LARGEST)
    class_names: list[str] = []
    task: str = ""
    loss: str = ""


def check_facts(path: str, facts: Mapping[str, Any]) -> None:
    """Raises `SnapshotError` where a snapshot, read from `path`, says what cannot be of its images."""
    try:
        SnapshotFacts(**facts)
    except UsageError as error:
        raise SnapshotError(f"{path}: its facts make no sense. {error}") from error


def load_fitting(
    path: str,
    snapshot: Snapshot,
    arch: str | None,
    dataset: str,
    data_path: str | None = None,
    crop: int | None = None,
) -> keras.Model:
    """The network of a snapshot that was read from `path`; `arch` None takes any architecture.

    `crop` is the side of what it is shown of images. Raises `SnapshotError` when it is of another
    architecture, has other classes or reads other images, and `DataError` when only the data in `data_path`
    says how many there are, and is not there.
    """
    check_facts(path, snapshot.facts)
    model = nets.load_params(None, snapshot, path)
    if not hasattr(model, "spec"):
        return model  # `Subject` says whether it fits
    spec, entry = model.spec, open_dataset(dataset, data_path)
    classes, shape = entry.num_classes, (crop, crop, 3) if crop else entry.shape
    alike = [name for name, entry in DATASETS.items() if entry.num_classes == spec.num_classes]
    for name, found, expected, remedy in (
        ("arch", spec.arch, arch or spec.arch, f"--arch {spec.arch}"),
        ("classes", spec.num_classes, classes, f"--dataset {' or '.join(alike) or 'with as many classes'}"),
        (
            "input_shape",
            spec.input_shape,
            shape,
            f"--dataset {dataset.partition('@')[0]}@{spec.input_shape[0]}",
        ),
    ):
        if found != expected:
            wanted = f"--arch {arch} --dataset {dataset}" if arch else f"--dataset {dataset}"
            raise SnapshotError(
                f"{path} does not fit {wanted}, whose {name} is {expected}. "
                f"Received: {name}={found}\nPass {remedy}"
            )
    return model


def check_batch(
    config: RunOptions,
    images: int,
    replicas: int,
    batch_size: int | None = None,
    label: str = "--batch_size",
) -> None:
    """Raises for a batch that the training would refuse hours later, when it begins.

    `batch_size` and what messages call it are the run's, unless a step has its own.
    """
    size = batch_size or config.batch_size
    received = f"Received: {label.removeprefix('--')}={size}"
    if size > images:
        raise DataError(
            f"{label} must not exceed the {images} training images of {config.dataset}. {received}"
        )
    if size % (replicas * config.accum):
        raise UsageError(
            f"{label} must divide evenly over {replicas} devices × --accum {config.accum}. {received}"
        )
