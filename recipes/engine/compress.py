"""Any recipe on a model and images that are in memory, by one call."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from secateur.dataloader import Columns, Facts, Images, Splits, given_splits, parts_of
from secateur.dataloader.pipelines import Constants
from secateur.dataloader.registry import renormalised
from secateur.dataloader.sources import folders, memory
from secateur.dataloader.splits import equidistant
from secateur.nets.keras_json import config_of
from secateur.nets.snapshots import check_finite_model
from secateur.recipes.engine.command import options_of
from secateur.recipes.engine.config import RunOptions
from secateur.recipes.engine.files import COMPACT
from secateur.recipes.engine.report import print_table
from secateur.recipes.engine.run import run_on
from secateur.recipes.engine.subject import Subject
from secateur.runs.errors import DataError, RunFolderError, UsageError
from secateur.runs.files import to_json

INSTEAD = {
    "train_path": "folder", "normalisation": "pixels", "arch": "model", "dataset": "train", "data": "train",
    "data_path": "train",
}  # fmt: skip
"""Options of the command line → the argument that says the same."""
ELSEWHERE = (".tflite", ".kpz")
COMPARED = 256  # images that say whether they are others than the folder's
Data = Any  # what `dataloader.sources.memory.images_of` takes, or a folder


@dataclass(frozen=True)
class Compressed:
    """What `compress` has made.

    Attributes:
        model: the small network: plain Keras layers, ended as the model was.
        report: what report.json holds: rows of networks, widths, seconds of steps, epochs.
        folder: of the run, with its page and files; None where it was a temporary one.
        files: name → bytes of what runs elsewhere: model.tflite, and int8.tflite or encode.kpz by such steps.
    """

    model: keras.Model
    report: Mapping[str, Any]
    folder: Path | None
    files: Mapping[str, bytes]

    def show(self) -> None:
        """Prints the table of networks."""
        print_table(self.report)


def compress(
    model: keras.Model,
    train: Data,
    holdout: Data | None = None,
    *,
    test: Data | None = None,
    recipe: str | None = None,
    loss: str | keras.losses.Loss | Callable | None = None,
    pixels: str = "auto",
    augmentation: str = "none",
    classes: int | None = None,
    folder: str | Path | None = None,
    **options: Any,
) -> Compressed:
    """Makes a functional Keras model smaller by a recipe, and gets its accuracy back.

    Args:
        model: functional or Sequential; it stays as it is.
        train: (images, labels), a `tf.data.Dataset` or a `keras.utils.PyDataset`. Images are one array, or as
            many as the model has inputs. Or a folder with a sub-folder of images for each class, as --data.
        holdout: as `train`; what chooses between networks. None takes a tenth of `train`.
        test: as `train`; read once, for the report. None is the part of tests of a folder, if it has one.
        recipe: a name of `--recipe list`, or a TOML file; None is "ekg", or "auto" where `minutes` are given,
            all that this call may take.
        loss: see `nets.task.Task.of`; None is what the model was compiled with.
        pixels: what the model reads, where images are bytes, see `dataloader.pipelines.PIXELS`; other numbers
            are given to the model as they are. Or mean=[…], std=[…] of each channel, 0 to 255.
        augmentation: of images in training: "none", "flip", "crop", "flip+crop", or "recipe", as it has them.
        classes: number of classes; None counts the outputs.
        folder: of the run, which goes on there when it is called again with the same model, loss and data;
            None is a temporary one.
        options: flags of the recipe and of every run: keep_macs=0.5, train_epoch=3, minutes=20, set=[…].

    Raises `UsageError` for options that the recipe does not have, and for a model or data that do not fit,
    `RunFolderError` for the folder of another model, loss or data.
    """
    if strange := [name for name in options if name in INSTEAD]:
        name = strange[0]
        raise UsageError(f"compress takes {INSTEAD[name]} instead. Received: {name}={options[name]!r}")
    if "until" in options:
        raise UsageError(
            f"compress ends with the recipe: leave until away. Received: until={options['until']!r}"
        )
    subject = Subject.own(model, loss, options.get("unfreeze", True))
    check_finite_model(model, "the model")
    place = nullcontext(str(folder)) if folder is not None else tempfile.TemporaryDirectory()
    with place as path:
        given = {"augmentation": augmentation, "normalisation": pixels, "gpu_id": [], **options}
        with _in_arguments():
            run = options_of(recipe, dataset=memory.NAME, arch=model.name, train_path=path, **given)
            names, read = _read(subject, {"train": train, "holdout": holdout, "test": test}, run)
            subject = _judged(subject, read["train"].labels)
            if names:
                _check_classes(subject, names, train)
            read = {part: _labelled(subject, images) for part, images in read.items()}
            splits = _splits(subject, read, classes, names, pixels, run.constants)
            report = run_on(run, subject, splits, _digests(subject, read))
        small = keras.models.load_model(Path(path) / COMPACT, compile=False)
        files = {file.name: file.read_bytes() for file in Path(path).iterdir() if file.suffix in ELSEWHERE}
    return Compressed(small, report, None if folder is None else Path(folder), files)


@contextmanager
def _in_arguments() -> Iterator[None]:
    """Errors that name options of the shell name the arguments of this call instead."""
    try:
        yield
    except (UsageError, DataError, RunFolderError) as error:
        text = re.sub(r"(?<![\w./-])--pixels (\S+)", r"pixels='\1'", str(error))
        text = re.sub(r"(?<![\w./-])--set ((?:\S+=\S+ ?)+)", lambda found: f"set={found[1].split()}", text)
        text = re.sub(r"(?<![\w./-])--(\w+)", lambda found: _argument(found[1]), text)
        raise type(error)(text.replace("that of the folders", "that of the labels")) from None


def _argument(option: str) -> str:
    switches = [name for name, field in RunOptions.model_fields.items() if field.annotation is bool]
    return f"{option}=True" if option in switches else INSTEAD.get(option, option)


def _read(
    subject: Subject, parts: Mapping[str, Data | None], options: RunOptions
) -> tuple[tuple[str, ...], dict[str, Images]]:
    """Names of the classes, where a folder has them, and the parts that are given.

    Beside a folder of training images stand those of tests, unless others are given.
    """
    given = {part: data for part, data in parts.items() if data is not None}
    for part, data in given.items():
        if isinstance(data, (tuple, list)) and any(isinstance(one, str | Path) for one in data):
            raise DataError(f"One folder at a time, or (images, labels). Received: {part}={data}")
    paths = {part: data for part, data in given.items() if isinstance(data, str | Path)}
    named = {part: Path(os.path.realpath(os.path.expanduser(path))) for part, path in paths.items()}
    if "test" not in given and (beside := folders.tests_beside(named.get("train"))):
        named |= {"test": beside} if beside not in named.values() else {}
    read, names = {}, ()
    for part, folder in named.items():
        classes, read[part] = _folder(subject, part, folder, options)
        if (names := names or classes) != classes:
            raise DataError(
                f"All folders need the same sub-folders, one for each class. Received: {part}={folder}, "
                f"{sorted({*classes} ^ {*names})[:5]} not in each"
            )
    rank = len(subject.original.inputs[0].shape)
    read |= {part: memory.images_of(data, rank, part) for part, data in given.items() if part not in named}
    return names, read


def _folder(subject: Subject, part: str, folder: Path, options: RunOptions) -> tuple[tuple[str, ...], Images]:
    """Classes of a folder, and its images, as --data reads them."""
    if not folder.is_dir():
        raise DataError(
            f"There is no such folder. Received: {part}={folder}\n"
            "give a folder with a sub-folder of images for each class, or (images, labels)"
        )
    if part != "train" and (folder / "train").is_dir():
        raise DataError(
            f"This folder holds images to train on. Received: {part}={folder}\n"
            f"give the one of its folders that has the images of {part}"
        )
    given, shape = (part, folders.classes_layout), subject.loaded(options.images, folders.NAME)
    classes, _ = folders.inspect(*given, shape, str(folder))
    if len(classes) < 2:
        raise DataError(f"A sub-folder of images for each class is needed. Received: {part}={folder}")
    how = {"shape": shape, "stream": options.stream, "skip_bad": options.skip_bad}
    return tuple(classes), folders.read(*given, "train", str(folder), **how)


def _splits(
    subject: Subject,
    read: Mapping[str, Images],
    classes: int | None,
    names: tuple[str, ...],
    pixels: str,
    constants: Constants | None,
) -> Splits:
    images, outputs = read["train"], subject.original.outputs[0].shape
    facts = Facts(
        name=memory.NAME,
        num_classes=classes or max(2, outputs[-1] or 2),
        shape=tuple(images.images.shape[1:]),
        mean=(0.0,),
        std=(1.0,),
        flip=True,
        normalisation="given",
        colours=_bytes(images),
        class_names=names,
    )
    if _bytes(images):
        usual = "0..255" if pixels == "auto" else pixels
        facts = renormalised(facts, "given" if constants else usual, constants)
    elif pixels != "auto" or constants:
        raise UsageError(
            f"pixels, mean and std say how bytes are read. Received: pixels={pixels!r}, mean and std "
            f"{constants}, images that are numbers"
        )
    return given_splits(images, read.get("holdout"), read.get("test"), facts)


def _check_classes(subject: Subject, names: Sequence[str], folder: Any) -> None:
    """Raises `UsageError` for a model of something else than the classes that a folder has."""
    if not subject.classifies:
        raise UsageError(
            "Images of a folder have classes as labels, and this model gives something else. Received: "
            f"train={folder}, loss={subject.loss_name}\n"
            "give (images, labels), or loss='categorical_crossentropy'"
        )
    subject.check_classes(len(names), str(folder), names)


def _judged(subject: Subject, labels: Any) -> Subject:
    """With a loss of the user's taken for one of classes where the labels are classes, in either form."""
    units = subject.given.units
    if isinstance(labels, Columns) or units == 0:
        return subject
    if labels.ndim == 1 and labels.dtype.kind == "i" and 0 <= labels.min() <= labels.max() < max(2, units):
        return subject.classifying(max(2, units), one_hot=False)
    if labels.ndim == 2 and labels.shape[1] == units > 1 and ((labels == 0) | (labels == 1)).all():
        return subject.classifying(units, one_hot=True) if (labels.sum(1) == 1).all() else subject
    return subject


def _labelled(subject: Subject, images: Images) -> Images:
    """The same with labels that fit the model; those of classes as integers, which teachers compare."""
    task, labels = subject.task, parts_of(images.labels)
    task.check(labels, subject.original.outputs[0].shape)
    if task.kind != "classes":
        return images
    if labels.ndim == 2 and labels.shape[1] == task.units > 1:
        shares = np.flatnonzero((labels.max(1) != 1) | (labels.sum(1) != 1))
        if len(shares):
            raise UsageError(
                "Labels of classes are integers, or one-hot. Received: shares of classes in row "
                f"{shares[0]}, {labels[shares[0]].max():g} of the largest\ngive labels.argmax(-1)"
            )
        labels = labels.argmax(1)
    return replace(images, labels=labels.reshape(-1).astype(np.int32))


def _digests(subject: Subject, read: Mapping[str, Images]) -> dict[str, str]:
    """What a run in a folder goes on with: SHA-256 of graph, weights and data, and the loss by its name.

    Of images only shape, type and so many rows count, at equal distances; labels all count.
    """
    model, found = subject.original, {"loss": subject.loss_name}
    graph = to_json(config_of(model, own=True)).encode()
    found["model"] = _digest([np.frombuffer(graph, np.uint8), *model.get_weights()])
    for part, images in read.items():
        chosen = equidistant(len(images), COMPARED)
        found[f"{part} images"] = _digest(keras.tree.flatten(parts_of(images.images[chosen])), len(images))
        found[f"{part} labels"] = _digest(keras.tree.flatten(parts_of(images.labels)))
    return found


def _digest(arrays: Sequence[np.ndarray], count: int = 0) -> str:
    found = hashlib.sha256(str(count).encode())
    for array in arrays:
        found.update(f"{array.shape} {array.dtype}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def _bytes(images: Images) -> bool:
    return getattr(images.images, "dtype", None) == "uint8" and len(images.images.shape) == 4
