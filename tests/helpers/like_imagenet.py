"""Data sets in the shape of ImageNet: 1000 classes, JPEGs of many sizes, and what else the real one holds."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

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


def write(folder: Path, images: int, tests: int = CLASSES) -> int:
    """Write `imagenet2012` as tfds does, in files of TFRecords; return how many bytes of images it holds."""
    import tensorflow_datasets as tfds

    def rows(count: int) -> Iterator[tuple[int, dict]]:
        for i in range(count):
            row = {"image": encoded(i if i < SIZES else SIZES + i % SIZES), "label": i % CLASSES}
            yield i, row | {"file_name": f"n{i:08}.JPEG"}

    with tfds.core.registered.skip_registration():

        class Imagenet2012(tfds.core.GeneratorBasedBuilder):
            VERSION = tfds.core.Version("5.1.0")

            def _info(self) -> tfds.core.DatasetInfo:
                features = {
                    "image": tfds.features.Image(encoding_format="jpeg"),
                    "label": tfds.features.ClassLabel(num_classes=CLASSES),
                    "file_name": tfds.features.Text(),
                }
                return self.dataset_info_from_configs(
                    features=tfds.features.FeaturesDict(features), supervised_keys=("image", "label")
                )

            def _split_generators(self, dl_manager: object) -> dict:
                return {"train": rows(images), "validation": rows(tests)}

            def _generate_examples(self, number: int) -> Iterator:
                raise NotImplementedError

    builder = Imagenet2012(data_dir=folder)
    skip = tfds.download.ComputeStatsMode.SKIP
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(num_shards=4, compute_stats=skip)
    )
    return builder.info.dataset_size
