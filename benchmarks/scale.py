"""Images that do not fit in memory, fewer bits, several devices: what they cost.

    python -m benchmarks.scale [--images N] [--arch ResNet-56]

Writes JPEGs of the size of ImageNet's (about 500×375) as a data set of tensorflow-datasets into a temporary
folder. One row: a streamed epoch beside plain `tf.data` on the same files, which shuffles in a buffer;
another: the most memory that a process needs for one epoch of more and more images, in their files or not;
then a train step in float32 and bfloat16, and in one process on 1, 2 and 4 logical devices of the same CPU.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.common import print_summary, save, summary, take_turns, timed
from secateur.runs import cli
from secateur.runs.text import table

SIDE, BATCH, CLASSES, NAME = 224, 64, 10, "shaped_like_imagenet"
COUNTS = (1, 2, 4)  # parts of all images
TURNS = 5


def write(folder: Path, count: int) -> None:
    """Smooth noise in JPEGs of many sizes, in eight files."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    rng = np.random.default_rng(0)

    def rows(number: int) -> Iterator[dict]:
        for i in range(number):
            coarse = rng.integers(0, 256, (12, 16, 3)).astype(np.float32)
            sides = rng.integers(320, 520, 2)
            image = tf.cast(tf.image.resize(coarse, sides, "bicubic"), tf.int32) + rng.integers(
                0, 24, (*sides, 3)
            )
            yield {"image": np.clip(image, 0, 255).astype(np.uint8), "label": i % CLASSES}

    signature = {"image": tf.TensorSpec((None, None, 3), tf.uint8), "label": tf.TensorSpec((), tf.int64)}
    for part in COUNTS:
        number = count * part // max(COUNTS)
        data = tf.data.Dataset.from_generator(partial(rows, number), output_signature=signature)
        tfds.dataset_builders.store_as_tfds_dataset(
            name=f"{NAME}_{part}",
            version="1.0.0",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
                    "label": tfds.features.ClassLabel(num_classes=CLASSES),
                }
            ),
            split_datasets={"train": data},
            data_dir=str(folder),
        )


def ours(folder: Path, part: int = max(COUNTS), stream: bool = True) -> int:
    """An epoch in a random order; returns the number of images."""
    from secateur.dataloader import batches, epoch_order, load

    train = load(f"tfds:{NAME}_{part}@{SIDE}", str(folder), stream=stream).train
    return sum(len(batch.labels) for batch in batches(train, BATCH, epoch_order(len(train), 1, 0)))


def plain(folder: Path) -> int:
    """The same decoding by a pipeline as everybody writes it."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    skip = {"image": tfds.decode.SkipDecoding()}
    rows = tfds.load(
        f"{NAME}_{max(COUNTS)}", split="train", data_dir=str(folder), decoders=skip, shuffle_files=True
    )

    def decode(row):
        image = tf.image.resize(tf.io.decode_jpeg(row["image"], 3), (SIDE, SIDE), antialias=True)
        return tf.cast(tf.round(image), tf.uint8), row["label"]

    rows = rows.shuffle(10_000).map(decode, tf.data.AUTOTUNE).batch(BATCH).prefetch(tf.data.AUTOTUNE)
    return sum(len(labels) for _, labels in rows.as_numpy_iterator())


def reading(folder: Path) -> list[dict]:
    """Seconds for each image of an epoch, ours and plain."""

    def each(epoch) -> float:
        seen: list[int] = []
        seconds = timed(lambda: seen.append(epoch(folder)))
        return seconds / seen[0]

    return summary(
        take_turns({"plain tf.data": partial(each, plain), "ours": partial(each, ours)}, TURNS),
        "plain tf.data",
    )


def memory(folder: Path) -> list[dict]:
    """The most memory of processes that walk through an epoch."""
    rows = []
    for stream in (True, False):
        for part in COUNTS:
            command = [
                sys.executable,
                "-m",
                "benchmarks.scale",
                "--walk",
                str(folder),
                str(part),
                str(int(stream)),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows.append({"stream": stream, **json.loads(done.stdout.splitlines()[-1])})
    return rows


def walk(folder: str, part: str, stream: str) -> None:
    """An epoch in this process; prints what it needed."""
    count = ours(Path(folder), int(part), bool(int(stream)))
    # Not getrusage, which remembers the process that started this one.
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    print(json.dumps({"images": count, "bytes": 1024 * int(peak[1])}))


def steps(arch: str, devices: int = 1) -> list[dict]:
    """A train step of 128 CIFAR images in float32 and bfloat16, on logical devices."""
    import tensorflow as tf

    from benchmarks.common import MEAN, STD
    from secateur import nets
    from secateur.dataloader.augment import augment, normalise
    from secateur.distillation import labels_only
    from secateur.op_utils import Trainer, compute_in

    if devices > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
    names = [f"/cpu:{i}" for i in range(devices)]
    strategy = tf.distribute.MirroredStrategy(names) if devices > 1 else tf.distribute.get_strategy()
    rng = np.random.default_rng(0)
    batch = {
        "images": rng.integers(0, 256, (128, 32, 32, 3), dtype=np.uint8),
        "labels": rng.integers(0, 10, 128).astype(np.int32),
    }

    def trainer(dtype: str) -> Trainer:
        with strategy.scope():
            model = nets.build(nets.NetSpec(arch))
        compute_in(dtype, model)

        def read(batch, seed):
            return normalise(augment(batch["images"], seed), MEAN, STD)

        return Trainer(model, read, labels_only, weight_decay=5e-4, strategy=strategy)

    def step(trainer: Trainer) -> float:
        return timed(lambda: list(trainer.train([batch], [(1, 1)], [0.01])))

    trainers = {dtype: trainer(dtype) for dtype in ("float32", "mixed_bfloat16")}
    for one in trainers.values():
        step(one)
    calls = {dtype: partial(step, one) for dtype, one in trainers.items()}
    return [{"devices": devices, **row} for row in summary(take_turns(calls, 4 * TURNS), "float32")]


def steps_apart(arch: str, devices: int) -> list[dict]:
    """`steps` in a process of its own: devices are divided before TensorFlow is used."""
    command = [sys.executable, "-m", "benchmarks.scale", "--arch", arch, "--devices", str(devices)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """argv → tables and JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--arch", default="ResNet-56")
    parser.add_argument("--walk", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--devices", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.walk:
        return walk(*args.walk)
    if args.devices:
        return print(json.dumps(steps(args.arch, args.devices)))
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), args.images)
        read, peaks = reading(Path(name)), memory(Path(name))
    print_summary(f"An image of about 420×420 at {SIDE}×{SIDE}", read, "plain tf.data")
    titles = ("images", "in their files", "most memory, MB")
    print(
        table(
            titles,
            [(f"{r['images']:,}", "yes" if r["stream"] else "no", f"{r['bytes'] / 1e6:,.0f}") for r in peaks],
        )
    )
    rows = [row for devices in COUNTS for row in steps_apart(args.arch, devices)]
    for devices in COUNTS:
        print_summary(
            f"A step of {args.arch}, {devices} logical devices",
            [r for r in rows if r["devices"] == devices],
            "float32",
        )
    save("scale", {"images": args.images, "arch": args.arch, "reading": read, "memory": peaks, "steps": rows})


if __name__ == "__main__":
    sys.exit(cli(main))
