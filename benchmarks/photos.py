"""Data sets of JPEGs as tensorflow-datasets stores them, made of what is already encoded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Row = tuple[bytes, int]  # an encoded image and its class

DISTINCT = 64
SIDES = 320, 520


def photos(count: int) -> Iterator[bytes]:
    """Smooth noise in JPEGs of many sizes; of so many there are copies."""
    import tensorflow as tf

    rng, known = np.random.default_rng(0), []
    for i in range(count):
        if i < DISTINCT:
            coarse, sides = rng.integers(0, 256, (12, 16, 3)).astype(np.float32), rng.integers(*SIDES, 2)
            smooth = tf.image.resize(coarse, sides, "bicubic").numpy() + rng.integers(0, 24, (*sides, 3))
            known.append(tf.io.encode_jpeg(smooth.clip(0, 255).astype(np.uint8)).numpy())
        yield known[i % DISTINCT]


def store(
    folder: Path, name: str, classes: int, splits: dict[str, Iterable[Row]], version: str = "1.0.0"
) -> None:
    """Write a data set with features "image", "label" and "file_name", every split in four files."""
    import tensorflow_datasets as tfds

    class Photos(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version(version)

        def _info(self) -> tfds.core.DatasetInfo:
            features = {
                "image": tfds.features.Image(encoding_format="jpeg"),
                "label": tfds.features.ClassLabel(num_classes=classes),
                "file_name": tfds.features.Text(),
            }
            keys = "image", "label"
            return self.dataset_info_from_configs(
                features=tfds.features.FeaturesDict(features), supervised_keys=keys
            )

        def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
            return {split: self._generate_examples(rows) for split, rows in splits.items()}

        def _generate_examples(self, rows: Iterable[Row]) -> Iterator[tuple[int, dict]]:
            for i, (image, label) in enumerate(rows):
                yield i, {"image": image, "label": label, "file_name": f"n{i:08}.JPEG"}

    tfds.disable_progress_bar()
    Photos.name = name
    builder = Photos(data_dir=folder)
    skip = tfds.download.ComputeStatsMode.SKIP
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(num_shards=4, compute_stats=skip)
    )
