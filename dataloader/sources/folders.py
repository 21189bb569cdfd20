"""Image folders: one sub-folder a class, Tiny-ImageNet and CINIC-10 as they are downloaded.

A layout is a function (root, part) → (files, labels, classes) that reads names only; `read` decodes them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from secateur.dataloader.sources.decoding import Shape, decode_files, fits_memory, image_size, sound_files
from secateur.dataloader.sources.stored import Stored
from secateur.dataloader.splits import Images
from secateur.runs.errors import DataError

Listing = tuple[list[Path], np.ndarray, list[str]]
Layout = Callable[[str, Path, str], Listing]

NAME = "folder"
"""What a data set of one's own files is called."""
LARGEST = 224
"""Side of the images of a folder whose first image is larger."""

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif"}
HIDDEN = "."
"""How names begin that notebooks (.ipynb_checkpoints) and systems (._photo.jpg) leave beside images."""
_TESTS = ("test", "val", "valid", "validation")


def read(
    label: str,
    layout: Layout,
    part: str,
    data_path: str | None,
    download: bool = True,
    *,
    shape: Shape,
    stream: bool = False,
    skip_bad: bool = False,
) -> Images:
    """Return the "train" or "test" images of a folder, in alphabetical order of class and file.

    Args:
        label: name of the data set, for messages.
        layout: where its images lie.
        part: "train" or "test".
        data_path: the folder.
        download: has no effect; nothing is ever downloaded into someone's folder.
        shape: (height, width, 3) that all images are brought to (`decoding.fitted`).
        stream: leave them in their files, as is done with what does not fit in memory.
        skip_bad: leave out what cannot be decoded, with a warning; the images count them.

    Raises `DataError`: a folder that is missing or of another layout, an image that cannot be decoded, which
    of those that stay in their files is seen once it is needed.
    """
    files, labels, _ = _listed(label, layout, part, data_path)
    if stream or not fits_memory(label, len(files), shape):
        sound = sound_files(files, shape, skip_bad)
        images = Stored.of_files(files, shape).take(sound)
    else:
        images, sound = decode_files(files, shape, skip_bad)
    numbers = np.arange(len(images), dtype=np.int64)
    return Images(images, labels[sound].astype(np.int32), numbers, skipped=int((~sound).sum()))


def _listed(label: str, layout: Layout, part: str, data_path: str | None) -> Listing:
    try:
        return layout(label, _root(label, data_path), part)
    except OSError as error:
        raise DataError(f"{label} cannot be read ({error.strerror}). Received: {error.filename}") from error


def inspect(
    label: str, layout: Layout, shape: Shape | None, data_path: str | None, download: bool = True
) -> tuple[list[str], Shape]:
    """Return the classes, and `shape`; None = a square of the shorter side of the first that can be read.

    At most 224 pixels a side. Other arguments and errors as in `read`.
    """
    files, _, classes = _listed(label, layout, "train", data_path)
    if shape is None:
        side = min(LARGEST, *image_size(files))
        shape = (side, side, 3)
    return classes, shape


def classes_layout(label: str, root: Path, part: str, tests: tuple[str, ...] = _TESTS) -> Listing:
    """`train/CLASS/…` with `test/`, `val/`, `valid/` or `validation/` beside it, the first that exists.

    Without `train/`, the classes lie directly in the folder, which has no test part. Classes are the
    sub-folders of the training part, in alphabetical order. Images that lie in the folder itself have no
    labels: all are 0, and the only class has no name.
    """
    if not (root / "train").is_dir():
        return _flat(root) or _under(label, root, None)
    classes = _classes(label, root / "train")
    if part == "train":
        return _under(label, root / "train", classes)
    found = _tests_of(root, tests)
    if found is None:
        raise DataError(
            f"{label} needs a folder {' or '.join(tests)} beside train. Received: data_path={root}"
        )
    return _under(label, found, classes)


def _flat(root: Path) -> Listing | None:
    """The images of a folder without sub-folders; None where there are none."""
    inside = [path for path in root.iterdir() if not path.name.startswith(HIDDEN)]
    files = sorted(path for path in inside if path.suffix.lower() in _SUFFIXES)
    if not files or any(path.is_dir() for path in inside):
        return None
    return files, np.zeros(len(files), np.int32), [""]


def has_tests(data_path: str | None) -> bool:
    """Whether a folder of `classes_layout` has a test part."""
    return tests_beside(Path(data_path or "").expanduser()) is not None


def tests_beside(root: Path | None) -> Path | None:
    """The test part of a folder of `classes_layout`, if there is one."""
    return _tests_of(root, _TESTS) if root and (root / "train").is_dir() else None


def _tests_of(root: Path, tests: tuple[str, ...]) -> Path | None:
    return next((root / name for name in tests if (root / name).is_dir()), None)


def tiny_layout(label: str, root: Path, part: str) -> Listing:
    """`train/WNID/images/*.JPEG`, and `val/images` whose classes are in `val/val_annotations.txt`.

    The validation images take the part of the test, as in every publication: the official test images have no
    labels. Classes are the folders of `train` in alphabetical order, and must be those of `wnids.txt`.
    """
    root = root / "tiny-imagenet-200" if (root / "tiny-imagenet-200").is_dir() else root
    named, annotations = root / "wnids.txt", root / "val" / "val_annotations.txt"
    for file in (named, annotations):
        if not file.is_file():
            raise DataError(f"{label} is incomplete: there is no {file}. Unpack tiny-imagenet-200.zip again")
    classes = _classes(label, root / "train")
    if classes != sorted(named.read_text().split()):
        raise DataError(f"{label}: the folders of {root / 'train'} are not the classes of {named.name}")
    if part == "train":
        return _under(label, root / "train", classes)
    rows = sorted(line.split("\t")[:2] for line in annotations.read_text().splitlines() if line)
    files = [root / "val" / "images" / name for name, _ in rows]
    return files, np.array([classes.index(wnid) for _, wnid in rows]), classes


def _root(label: str, data_path: str | None) -> Path:
    if data_path is None:
        raise DataError(f"{label} is read from a folder: give --data_path DIR. Received: data_path=None")
    root = Path(data_path).expanduser()
    if not os.path.isdir(root):
        raise DataError(f"{label} is read from a folder; there is no such folder. Received: data_path={root}")
    return root


def _classes(label: str, folder: Path) -> list[str]:
    inside = folder.iterdir() if folder.is_dir() else ()
    found = sorted(p.name for p in inside if p.is_dir() and not p.name.startswith(HIDDEN))
    if len(found) < 2:
        raise DataError(
            f"{label} needs a sub-folder of images for each class. "
            f"Received: {len(found)} sub-folders in {folder}"
        )
    return found


def _images(folder: Path) -> list[Path]:
    """Those in a folder, at any depth, but for what is hidden."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    return [path for path in found if f"/{HIDDEN}" not in f"/{path.relative_to(folder).as_posix()}"]


def _under(label: str, folder: Path, classes: list[str] | None) -> Listing:
    """Return the images that lie in the folders of the classes, at any depth."""
    own = _classes(label, folder)
    classes = own if classes is None else classes
    if unknown := sorted(set(own) - set(classes)):
        raise DataError(
            f"{label} has classes in {folder.name} that are not in train. Received: {unknown[:5]}"
        )
    files = [_images(folder / name) for name in classes]
    if empty := [name for name, inside in zip(classes, files, strict=True) if not inside]:
        raise DataError(f"{label} has no image in {folder} of the classes {empty[:5]}")
    labels = np.repeat(np.arange(len(classes)), [len(inside) for inside in files])
    return [path for inside in files for path in inside], labels, classes
