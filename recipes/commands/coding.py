"""`python -m coding`: models to `.kpz` files and back, what is in such a file, and 8 bits for LiteRT."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path

from tqdm import tqdm

from secateur import coding
from secateur.recipes.commands.options import DecodeOptions, EncodeOptions, InspectOptions, Int8Options
from secateur.recipes.engine.config import MODELS
from secateur.runs import SnapshotError, UsageError, load_snapshot, make_atomic, sha256
from secateur.runs.files import check_place

TOLERANCE = 0.005  # of accuracy, where training in 8 bits is advised


def check_places(file: str, output: str, suffix: str) -> None:
    """Before any work: raises `SnapshotError` for a missing file, else as `check_place` does."""
    if not os.path.isfile(file):
        raise SnapshotError(f"There is no such file. Received: file={file}")
    check_place(output, suffix, "output")
    if os.path.realpath(output) == os.path.realpath(file):
        raise UsageError(f"This is the file that is read; choose another one. Received: output={output}")


def _bar(parts: Iterable, title: str) -> Iterable:
    """Progress on stderr, a tensor at a time; none where nobody looks and the work is short."""
    return tqdm(parts, desc=title, unit="tensor", dynamic_ncols=True, leave=False, delay=1, file=sys.stderr)


def encode(options: EncodeOptions) -> None:
    """A model or a snapshot → a .kpz file."""
    check_places(options.file, options.output, ".kpz")
    if options.chooses:
        _encode_chosen(options)
        return
    model, facts = _plain(options.file)
    how = {"bits": options.bits, "layers": options.layers, "vector_bits": options.vector_bits}
    done = coding.encode(model, options.output, **how, facts=facts, each=partial(_bar, title="encode"))
    print(f"{options.output}: {done}")
    print(f"decoded, and every bit compared; SHA-256 {done.sha256}")


def _encode_chosen(options: EncodeOptions) -> None:
    """With values that images choose: the steps `share` and `encode` of a run."""
    from secateur.recipes.commands.running import ran

    share = {"kind": "share", "shown": True, "layers": options.layers}
    share |= {"keep_bytes": options.keep_bytes or 0.0, "max_loss": options.max_loss or 0.0}
    steps = [share, {"kind": "encode", "vector_bits": options.vector_bits}]
    with ran(options, "encode", options.file, _plain(options.file)[0], steps) as (folder, _):
        make_atomic(options.output, lambda temp: shutil.copyfile(folder / "encode.kpz", temp))
    print(f"{options.output}: decoded, and every bit compared; SHA-256 {sha256(options.output)}")


def _plain(path: str) -> tuple:
    """A model of plain Keras layers, from its file or a snapshot, and what the latter says of it."""
    from secateur import nets
    from secateur.pruning import compact
    from secateur.recipes.engine.subject import load_model

    if Path(path).suffix not in MODELS:
        snapshot = load_snapshot(path)
        facts = {"spec": snapshot.spec, "plan": snapshot.plan, **snapshot.facts}
        return compact(nets.load_params(None, snapshot, path)), facts
    model = load_model(path)
    foreign = any(type(layer).__module__.startswith("secateur.nets.") for layer in model.layers)
    return (compact(model) if foreign else model), {}


def decode(options: DecodeOptions) -> None:
    """A .kpz file → a Keras model."""
    from secateur.nets.snapshots import check_finite_model

    check_places(options.file, options.output, ".keras")
    model = coding.decode(options.file, each=partial(_bar, title="decode"))
    check_finite_model(model, options.file)
    make_atomic(options.output, model.save)
    count = f"{model.count_params():,} weights"
    print(f"{options.output}: {model.name}, {count}, bit for bit those of {options.file}")


def inspect(options: InspectOptions) -> None:
    """Prints what a .kpz file holds. Without TensorFlow."""
    if not os.path.isfile(options.file):
        raise SnapshotError(f"There is no such file. Received: file={options.file}")
    print(coding.inspect(options.file, each=partial(_bar, title="inspect")))


def int8(options: Int8Options) -> None:
    """Writes the better file on the hold-out; prints bytes, accuracy there and milliseconds."""
    from secateur.recipes.commands.running import ran  # TensorFlow, which `inspect` goes without
    from secateur.recipes.engine.subject import load_model

    check_places(options.file, options.output, ".tflite")
    if Path(options.file).suffix == ".kpz":
        raise SnapshotError(
            f"int8 reads a .keras or .h5 file. Received: file={options.file}\n"
            "make one: python -m coding decode"
        )
    if Path(options.file).suffix not in MODELS:
        raise UsageError(
            f"int8 reads a .keras or .h5 file. Received: file={options.file}\n"
            "for a snapshot: python train_cifar.py --recipe int8 --trained_param SNAPSHOT.pkl"
        )
    table = {
        "kind": "int8", "samples": options.samples, "numbers": options.numbers, "tolerance": 0.0,
        "epochs": options.finetune_epochs, "learning_rate": options.learning_rate,
    }  # fmt: skip
    with ran(options, "int8", options.file, load_model(options.file), [table]) as (folder, report):
        make_atomic(options.output, lambda temp: shutil.copyfile(folder / "int8.tflite", temp))
    found = report["rounded"]["int8"]
    kept = "8 bits, trained" if found.get("trained", -1) > (found["rounded"] or 0) else "8 bits"
    print(f"{options.output}: {kept}, {Path(options.output).stat().st_size:,} bytes")
    if found["rounded"] is not None and found["float32"] - found["rounded"] > TOLERANCE:
        if not options.finetune_epochs:
            print("more than half a point is lost: --finetune_epochs 2 trains with rounded numbers")
