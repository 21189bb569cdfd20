"""Images that do not fit in memory, fewer bits, several devices: what they cost.

    python -m benchmarks.scale [--images N] [--arch ResNet-56] [--turns 7]

Writes JPEGs of the size of ImageNet's (about 420×420) as a data set of tensorflow-datasets into a temporary
folder. One row: a streamed epoch beside plain `tf.data` on the same files, which shuffles in a buffer;
another: the most memory that a process needs for one epoch of more and more images, in their files or not;
then a train step in float32 and bfloat16, and in one process on 1, 2 and 4 logical devices of the same CPU;
at last steps of EKG's search whose candidates are tried on one or two of them.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.common import print_summary, print_table, save, summary, take_turns, timed
from benchmarks.photos import photos, store
from secateur.runs import cli
from secateur.runs.start import start_tensorflow

if TYPE_CHECKING:
    import tensorflow as tf

SIDE, BATCH, CLASSES = 224, 64, 10
COUNTS = (1, 2, 4)  # parts of all images, and devices
PLAIN = "plain tf.data"


def write(folder: Path, count: int) -> None:
    """A data set for each part of the images, named by it."""
    for part in COUNTS:
        number = count * part // max(COUNTS)
        rows = ((image, i % CLASSES) for i, image in enumerate(photos(number)))
        store(folder, named(part), CLASSES, {"train": rows})


def named(part: int) -> str:
    """Of a data set of tensorflow-datasets."""
    return f"shaped_like_imagenet_{part}"


def ours(folder: Path, part: int = max(COUNTS), stream: bool = True) -> int:
    """An epoch in a random order; returns the number of images."""
    from secateur.dataloader import batches, epoch_order
    from secateur.dataloader.sources import tfds

    train = tfds.read(named(part), "train", str(folder), shape=(SIDE, SIDE, 3), stream=stream)
    return sum(len(batch.labels) for batch in batches(train, BATCH, epoch_order(len(train), 1, 0)))


def plain(folder: Path) -> int:
    """The same decoding by a pipeline as everybody writes it."""
    import tensorflow as tf
    import tensorflow_datasets as tfds

    skip = {"image": tfds.decode.SkipDecoding()}
    rows = tfds.load(
        named(max(COUNTS)), split="train", data_dir=str(folder), decoders=skip, shuffle_files=True
    )

    def decode(row):
        image = tf.image.resize(tf.io.decode_jpeg(row["image"], 3), (SIDE, SIDE), antialias=True)
        return tf.cast(tf.round(image), tf.uint8), row["label"]

    rows = rows.shuffle(10_000).map(decode, tf.data.AUTOTUNE).batch(BATCH).prefetch(tf.data.AUTOTUNE)
    return sum(len(labels) for _, labels in rows.as_numpy_iterator())


def reading(folder: Path, turns: int) -> list[dict]:
    """Seconds for each image of an epoch, ours and plain; both know the files from an epoch before."""

    def each(epoch) -> float:
        seen: list[int] = []
        seconds = timed(lambda: seen.append(epoch(folder)))
        return seconds / seen[0]

    epochs = {PLAIN: plain, "ours": ours}
    for epoch in epochs.values():
        epoch(folder)
    return summary(take_turns({name: partial(each, epoch) for name, epoch in epochs.items()}, turns), PLAIN)


def memory(folder: Path) -> list[dict]:
    """The most memory of processes that walk through an epoch."""
    return [
        {"stream": stream, **apart("--walk", folder, part, int(stream))}
        for stream in (True, False)
        for part in COUNTS
    ]


def apart(*words: object) -> dict | list:
    """What this program prints in a process of its own, the last line as JSON."""
    command = [sys.executable, "-m", "benchmarks.scale", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def walk(folder: str, part: str, stream: str) -> None:
    """An epoch in this process; prints what it needed."""
    count = ours(Path(folder), int(part), bool(int(stream)))
    # Not getrusage, which remembers the process that started this one.
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    print(json.dumps({"images": count, "bytes": 1024 * int(peak[1])}))


def on(devices: int) -> tf.distribute.Strategy:
    """A strategy for as many logical devices of the CPU."""
    import tensorflow as tf

    if devices == 1:
        return tf.distribute.get_strategy()
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
    return tf.distribute.MirroredStrategy([f"/cpu:{i}" for i in range(devices)])


def steps(arch: str, devices: int, turns: int) -> list[dict]:
    """A train step of 128 CIFAR images in float32 and bfloat16, on logical devices."""
    from benchmarks.common import MEAN, STD
    from secateur import nets
    from secateur.dataloader.augment import augment, normalise
    from secateur.distillation import labels_only
    from secateur.op_utils import Trainer, compute_in

    strategy = on(devices)
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
    return [{"devices": devices, **row} for row in summary(take_turns(calls, 2 * turns), "float32")]


def search(arch: str, turns: int) -> list[dict]:
    """Seconds of a step of the search, scores included, by the number of candidates."""
    import tensorflow as tf

    from secateur import nets
    from secateur.compute.workers import Workers
    from secateur.pruning.search.ekg import Searcher
    from secateur.pruning.search.settings import SearchSettings

    strategies = {f"{count} of 2": on(count) for count in (2, 1)}
    model, rng = nets.build(nets.NetSpec(arch)), np.random.default_rng(0)
    images = tf.constant(rng.normal(size=(256, 32, 32, 3)), "float32")
    labels = rng.integers(0, 10, len(images))
    searches = {
        name: Searcher(model, images, labels, SearchSettings(0.3), workers=Workers(strategy)).run()
        for name, strategy in strategies.items()
    }

    def step(name: str) -> float:
        states = []
        seconds = timed(lambda: states.append(next(searches[name])))
        return seconds / max(states[0].history[-1].candidates, 1)

    calls = {name: partial(step, name) for name in strategies}
    take_turns(calls, 2)  # the whole network, and what is traced
    return summary(take_turns(calls, turns), "1 of 2")


def show(read: list[dict], peaks: list[dict], steps: list[dict], tried: list[dict], arch: str) -> None:
    """The tables."""
    print_summary(f"An image of about 420×420 at {SIDE}×{SIDE}", read, PLAIN)
    titles = ("images", "in their files", "most memory, MB")
    cells = [(f"{r['images']:,}", "yes" if r["stream"] else "no", f"{r['bytes'] / 1e6:,.0f}") for r in peaks]
    print_table("One epoch in a process", titles, cells)
    for devices in COUNTS:
        rows = [row for row in steps if row["devices"] == devices]
        print_summary(f"A step of {arch}, {devices} logical devices", rows, "float32")
    print_summary(f"A step of the search in {arch} for each candidate, logical devices", tried, "1 of 2")


def main() -> None:
    """argv → tables and JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--arch", default="ResNet-56")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--walk", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--devices", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--search", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    start_tensorflow()
    if args.walk:
        return walk(*args.walk)
    if args.search:
        return print(json.dumps(search(args.arch, args.turns)))
    if args.devices:
        return print(json.dumps(steps(args.arch, args.devices, args.turns)))
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), args.images)
        read, peaks = reading(Path(name), args.turns), memory(Path(name))
    given = "--arch", args.arch, "--turns", args.turns
    rows = [row for devices in COUNTS for row in apart(*given, "--devices", devices)]
    tried = apart(*given, "--search")
    show(read, peaks, rows, tried, args.arch)
    found = {"reading": read, "memory": peaks, "steps": rows, "search": tried}
    save("scale", {"images": args.images, "arch": args.arch} | found)


if __name__ == "__main__":
    sys.exit(cli(main))
