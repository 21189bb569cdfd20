"""Data sets in the shape of ImageNet: 1000 classes, JPEGs of many sizes, and what else the real one holds."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.photos import store

CLASSES, SIZES = 1000, 60
CMYK, PNG = 3, 8
"""Training images that are no JPEG of red, green and blue, as some of the real ones are not."""
COLOURS = {CMYK: (200, 30, 90), PNG: (10, 120, 250)}


@cache
def encoded(number: int) -> bytes:
    """Smooth noise as a JPEG, every tenth grey; of one colour where `COLOURS` has it."""
    if number in COLOURS:
        return _flat(number)
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (6, 8, 3), np.uint8)
    image = Image.fromarray(coarse).resize(rng.integers(40, 160, 2).tolist(), Image.Resampling.BICUBIC)
    return _bytes(image.convert("L") if number % 10 == 0 else image, "JPEG")


def _flat(number: int) -> bytes:
    image = Image.new("RGB", (90, 70), COLOURS[number])
    return _bytes(image, "PNG") if number == PNG else _bytes(image.convert("CMYK"), "JPEG")


def _bytes(image: Image.Image, kind: str) -> bytes:
    file = io.BytesIO()
    image.save(file, kind)
    return file.getvalue()


def write(
    folder: Path, images: int, tests: int = CLASSES, classes: int = CLASSES, name: str = "imagenet2012"
) -> None:
    """Write `imagenet2012`, or another name with fewer classes, as tensorflow-datasets does."""

    def rows(count: int) -> Iterator[tuple[bytes, int]]:
        for i in range(count):
            yield encoded(i if i < SIZES else SIZES + i % SIZES), i % classes

    store(folder, name, classes, {"train": rows(images), "validation": rows(tests)}, "5.1.0")
