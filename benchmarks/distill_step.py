"""What learning from a teacher costs: a train step with each loss beside plain cross-entropy, on the CPU.

    python -m benchmarks.distill_step

ResNet-20 learns from ResNet-56, batch 128, crop and flip; teachers run on the same augmented batch. Then, on
un-augmented images, five teachers that run beside the same five's logits, looked up in a bank on disk at each
step. All take turns.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.common import MEAN, STD, print_summary, save, summary, take_turns, timed
from secateur.runs import UsageError, cli
from secateur.runs.start import start_tensorflow

if TYPE_CHECKING:  # TensorFlow starts in main, quietly
    import keras

    from secateur.distillation import MemoryBank

BATCH, SHAPE, CLASSES, TEACHERS = 128, (32, 32, 3), 10, 5
STUDENT, TEACHER = "ResNet-20", "ResNet-56"
PLAIN, LIVE, BANK = "cross-entropy", f"kd, {TEACHERS} live teachers", f"kd, bank of {TEACHERS}"
WARM = 3

Step = Callable[[], object]


def batch() -> dict[str, np.ndarray]:
    """Random images and labels."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (BATCH, *SHAPE), np.uint8)
    return {"images": images, "labels": rng.integers(0, CLASSES, BATCH).astype(np.int32)}


def stored(teachers: Sequence[keras.Model], path: Path) -> MemoryBank:
    """What the teachers say of the images of `batch`, written to a file and mapped from there."""
    from secateur.dataloader.augment import normalise
    from secateur.distillation import MemoryBank, write_bank
    from secateur.op_utils import make_forward

    def look(images):
        return normalise(images, MEAN, STD)

    write_bank(path, [make_forward(model, look) for model in teachers], batch()["images"], np.arange(BATCH))
    return MemoryBank.open(path, np.arange(BATCH))


def step(
    losses: Sequence[str],
    teachers: Sequence[keras.Model] = (),
    bank: MemoryBank | None = None,
    augment: bool = True,
) -> Step:
    """One step of a fresh student that learns from teachers that run, or from a bank that is looked up."""
    from secateur import nets
    from secateur.dataloader.augment import augment as crop_flip
    from secateur.dataloader.augment import normalise
    from secateur.distillation import Banked, Ensemble, Lesson, Live, build, for_lesson, lesson_objective
    from secateur.op_utils import Trainer

    built = [build(name) for name in losses]
    live = [Live(model, [loss.reads for loss in built]) for model in teachers]
    teacher = Banked() if bank else Ensemble(live) if len(live) > 1 else live[0] if live else None
    lesson = Lesson(nets.build(STUDENT), teacher, [(loss, loss.beta) for loss in built])

    def look(data, seed):
        return normalise(crop_flip(data["images"], seed) if augment else data["images"], MEAN, STD)

    trainer = Trainer(lesson, for_lesson(look), lesson_objective, weight_decay=5e-4, compile_=False)
    data, steps = batch(), iter(range(10**9))

    def once():
        targets = {"bank": bank(np.arange(BATCH))} if bank else {}
        return list(trainer.train([{**data, **targets}], [(1, next(steps))], [1e-4]))

    return once


def compare(steps: dict[str, Step], reference: str, turns: int) -> list[dict]:
    """Rows of the table; a turn is the median of three steps."""
    for one in steps.values():
        for _ in range(WARM):
            one()
    turn = {
        name: lambda one=one: statistics.median(timed(one) for _ in range(3)) for name, one in steps.items()
    }
    return summary(take_turns(turn, turns), reference)


def main() -> None:
    """argv → tables and JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.distill_step", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--turns", type=int, default=7, help="how often each takes its turn")
    args = parser.parse_args()
    if args.turns < 1:
        raise UsageError(f"At least 1 turn. Received: turns={args.turns}")
    start_tensorflow()
    from secateur import nets
    from secateur.distillation import list_losses

    teachers = [nets.build(TEACHER) for _ in range(TEACHERS)]
    named = {PLAIN: step([])} | {name: step([name], teachers[:1]) for name in list_losses()}
    losses = compare(named, PLAIN, args.turns)
    named.clear()
    with tempfile.TemporaryDirectory() as folder:
        bank = stored(teachers, Path(folder) / "bank.npy")
        named = {
            LIVE: step(["kd"], teachers, augment=False),
            BANK: step(["kd"], bank=bank, augment=False),
            f"{PLAIN}, un-augmented": step([], augment=False),
        }
        looked_up = compare(named, LIVE, args.turns)
    print_summary(f"{STUDENT} learns from {TEACHER}, batch {BATCH}, {os.cpu_count()} cores", losses, PLAIN)
    print_summary("the same targets on un-augmented images", looked_up, LIVE)
    save("distill_step", {"batch": BATCH, "losses": losses, "bank": looked_up})


if __name__ == "__main__":
    sys.exit(cli(main))
