"""`python -m coding int8`: someone's own model as a LiteRT file of whole numbers, and what it costs."""

from __future__ import annotations

import shutil
from pathlib import Path

from secateur.recipes.commands.coding import check_places
from secateur.recipes.commands.options import Int8Options
from secateur.recipes.commands.running import ran
from secateur.recipes.engine.subject import load_model
from secateur.runs import SnapshotError, UsageError, make_atomic

TOLERANCE = 0.005  # of accuracy, where training is advised


def run(options: Int8Options) -> None:
    """Writes the better file on the hold-out; prints bytes, accuracy there and milliseconds."""
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
