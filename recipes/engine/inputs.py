"""Whether what the user named exists and fits together: architecture, data set, snapshot, normalisation."""

from __future__ import annotations

from pathlib import Path

import keras

from secateur import dataloader, nets
from secateur.dataloader import Splits
from secateur.dataloader.registry import DATASETS, find_dataset, open_dataset
from secateur.nets import torch_names
from secateur.recipes.engine.config import RunOptions
from secateur.runs import DataError, Snapshot, SnapshotError, UsageError


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


def load_splits(config: RunOptions, normalisation: str, shape: tuple[int, int, int] | None = None) -> Splits:
    """The run's data set, in the shape that its network reads, with as many images as it is allowed.

    Raises `DataError` for one's own images that are not there, by whatever name.
    """
    if config.data:
        if not config.data.startswith("tfds:") and not Path(config.data).is_dir():
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
        constants=config.constants,
        stream=config.stream,
    )
    return splits.first(config.train_images) if config.train_images else splits


def load_fitting(
    path: str,
    snapshot: Snapshot,
    arch: str | None,
    dataset: str,
    data_path: str | None = None,
) -> keras.Model:
    """The network of a snapshot that was read from `path`; `arch` None takes any architecture.

    Raises `SnapshotError` when it is of another architecture or has other classes, and `DataError` when only
    the data in `data_path` says how many there are, and is not there.
    """
    model = nets.load_params(None, snapshot, path)
    if not hasattr(model, "spec"):
        return model  # `Subject` says whether it fits
    spec, classes = model.spec, open_dataset(dataset, data_path).num_classes
    alike = [name for name, entry in DATASETS.items() if entry.num_classes == spec.num_classes]
    for name, found, expected, remedy in (
        ("arch", spec.arch, arch or spec.arch, f"--arch {spec.arch}"),
        ("classes", spec.num_classes, classes, f"--dataset {' or '.join(alike) or 'with as many classes'}"),
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
