"""`python -m coding int8`: someone's own model as a LiteRT file of whole numbers, and what it costs."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import keras
import numpy as np

from secateur import exports
from secateur.coding.int8.fake_quant import fake_quantised
from secateur.coding.int8.folding import fold_batch_norm
from secateur.exports.int8 import left_in_float
from secateur.exports.timing import least
from secateur.nets.task import Task
from secateur.pruning import compact
from secateur.pruning.score.batches import parts
from secateur.recipes.commands.coding import check_places
from secateur.recipes.commands.images import ImageData, load_images
from secateur.recipes.commands.model import load
from secateur.recipes.commands.options import Int8Options
from secateur.recipes.commands.training import fine_tune, warn_at_chance
from secateur.runs import SnapshotError, UsageError, make_atomic, warn
from secateur.runs.text import table

SHOWN = 64  # images that calibration sees at a time
TOLERANCE = 0.005  # of accuracy, where training is advised


def run(options: Int8Options) -> None:
    """Writes the better file on the holdout; prints bytes, accuracy there and milliseconds."""
    check_places(options.file, options.output, ".tflite")
    if Path(options.file).suffix == ".kpz":
        raise SnapshotError(
            f"int8 reads a .keras file. Received: file={options.file}\nmake one: python -m coding decode"
        )
    if Path(options.file).suffix != ".keras":
        raise UsageError(
            f"int8 reads a .keras file. Received: file={options.file}\n"
            "for a snapshot: python train_cifar.py --recipe int8 --trained_param SNAPSHOT.pkl"
        )
    model = load(options.file)
    data = load_images(options, model)
    folded = fold_batch_norm(compact(model))
    files = {"float32": exports.to_litert(model), "8 bits": _converted(folded, data, options)}
    if options.finetune_epochs:
        fine_tune(folded, data, options, through=fake_quantised)
        files["8 bits, trained"] = _converted(folded, data, options)
    right = {name: _accuracy(model, file, data, options.batch_size) for name, file in files.items()}
    warn_at_chance(right["float32"], data.classes)
    best = max([name for name in files if name != "float32"], key=right.get)
    make_atomic(options.output, lambda temp: temp.write_bytes(files[best]))
    if left := left_in_float(files[best]):
        warn(f"{len(left)} tensors stay in float32, for want of operations of 8 bits; the first is {left[0]}")
    print(_table(model, files, right))
    print(f"{options.output}: {best}, {len(files[best]):,} bytes")
    if right["float32"] - right[best] > TOLERANCE and not options.finetune_epochs:
        print("more than half a point is lost: --finetune_epochs 2 trains with rounded numbers")


def _converted(model: keras.Model, data: ImageData, options: Int8Options) -> bytes:
    images, _ = data.some(options.samples, options.seed)
    shown = ([images[part]] for part in parts(len(images), SHOWN))
    return exports.to_int8(model, shown, options.numbers)


def _accuracy(model: keras.Model, file: bytes, data: ImageData, batch_size: int) -> float:
    """Of a file on the holdout."""
    images, labels = data.holdout
    found = exports.litert_outputs(file, lambda part: [images[part]], len(images), batch_size)
    return Task.of(model).score(labels, found)


def _table(model: keras.Model, files: dict[str, bytes], right: dict[str, float]) -> str:
    image = np.zeros((1, *model.inputs[0].shape[1:]), np.float32)
    calls = {name: partial(exports.litert_runner(file, 1, 1), image) for name, file in files.items()}
    ms = least(calls)
    rows = [
        (name, f"{len(file):,}", f"{100 * right[name]:.2f}", f"{ms[name]:.3f}")
        for name, file in files.items()
    ]
    return table(("LiteRT file", "bytes", "% of the holdout", "ms, 1 image, 1 thread"), rows)
