"""One train step of ResNet-56, batch 128, on the CPU with all cores: beside PyTorch, TensorFlow and Keras.

    python -m benchmarks.train_step

All do the same work: uint8 images in; crop, flip and normalise; forward, backward; SGD with Nesterov
momentum and weight decay. Every competitor is a process of its own (together 12 GB) that runs a few steps
when it is its turn and sleeps otherwise: in one process, PyTorch's and TensorFlow's threads would contend.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import statistics
import sys
from collections.abc import Callable

from benchmarks.common import MEAN, STD, print_summary, save, summary, take_turns, timed
from benchmarks.worker import Worker, serve
from secateur.runs import UsageError, cli
from secateur.runs.start import start_tensorflow

BATCH, SHAPE, CLASSES = 128, (32, 32, 3), 10
RATE, MOMENTUM, DECAY = 0.01, 0.9, 5e-4
OURS = "ours"


def batch(teachers: int = 0) -> dict:
    """Random images, labels and, for a bank, logits."""
    import numpy as np

    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (BATCH, *SHAPE), np.uint8)
    labels = rng.integers(0, CLASSES, BATCH).astype(np.int32)
    bank = {"bank": rng.normal(size=(BATCH, CLASSES, teachers)).astype(np.float32)} if teachers else {}
    return {"images": images, "labels": labels, **bank}


# --- competitors: each function builds a network and returns f() → runs one step ----------------------------


def ours(
    keep: float | None = None, pad: bool = True, teachers: int = 0, compile_: bool = False
) -> Callable[[], object]:
    """The project's own `Trainer`; optionally on a narrow net, with two views and bank, or under XLA."""
    from benchmarks.plain import crop_flip_normalise
    from secateur import nets
    from secateur.dataloader.augment import normalise, two_views
    from secateur.distillation import (
        Banked,
        Filtered,
        Lesson,
        build,
        for_lesson,
        labels_only,
        lesson_objective,
    )
    from secateur.op_utils import Trainer
    from secateur.pruning import make_plan, narrow
    from secateur.pruning.search.ekg import FAST_WIDTH

    model = nets.build("ResNet-56")
    if keep:
        plan = make_plan(model, keep_macs=keep, convention="ekg", fill=False)
        # As the recipe trains it: surplus channels up to the next multiple are masked.
        model = narrow(model, plan.padded(FAST_WIDTH), alive=plan) if pad else narrow(model, plan)
    objective, preprocess = labels_only, lambda batch, seed: crop_flip_normalise(batch["images"], seed)
    if teachers:
        model = Lesson(model, Filtered(Banked()), [(build("kd", factor="T"), 1.0)])
        views = for_lesson(lambda batch, seed: normalise(two_views(batch["images"], seed), MEAN, STD))
        objective, preprocess = lesson_objective, views
    trainer = Trainer(model, preprocess, objective, weight_decay=DECAY, momentum=MOMENTUM, compile_=compile_)
    data, steps = batch(teachers), iter(range(10**9))
    return lambda: list(trainer.train([data], [(1, next(steps))], [RATE]))


def plain_tensorflow() -> Callable[[], object]:
    """Functions over lists of variables, without masks, layers or an optimizer object."""
    from benchmarks.plain import make_step

    return make_step(batch(), RATE, MOMENTUM, DECAY)


def stock_keras() -> Callable[[], object]:
    """Keras' own layers and optimizer in one tf.function."""
    from benchmarks.plain import make_keras_step

    return make_keras_step(batch(), RATE, MOMENTUM, DECAY)


def pytorch() -> Callable[[], object]:
    """The same network in PyTorch, channels_last."""
    from benchmarks.torch_resnet import make_step

    return make_step(batch(), MEAN, STD, RATE, MOMENTUM, DECAY)


PYTORCH = "PyTorch, channels_last"
BY_ITSELF = (
    "ours, oneDNN where TensorFlow chooses it",
    "stock Keras layers, oneDNN where TensorFlow chooses it",
)
"""TensorFlow as it starts without us."""
COMPETITORS: dict[str, Callable[[], Callable]] = {
    OURS: ours,
    PYTORCH: pytorch,
    "plain TensorFlow": plain_tensorflow,
    "stock Keras layers": stock_keras,
    "ours, narrow (45 % of the operations)": lambda: ours(keep=0.45),
    "ours, the same in widths as they come": lambda: ours(keep=0.45, pad=False),
    "ours, two views + bank of 5": lambda: ours(teachers=5),
    "ours, --compile": lambda: ours(compile_=True),
    BY_ITSELF[0]: ours,
    BY_ITSELF[1]: stock_keras,
}


# --- processes that take turns ------------------------------------------------------------------------------


def work(name: str) -> None:
    """The worker: builds, warms up, then runs as many steps as a line says and prints the median time."""
    if name != PYTORCH and name not in BY_ITSELF:
        start_tensorflow()
    step = COMPETITORS[name]()
    for _ in range(3):
        step()
    serve(lambda steps: statistics.median(timed(step) for _ in range(int(steps))))


def available(names: list[str]) -> list[str]:
    """Leaves PyTorch out, and says so, where it is not installed."""
    if importlib.util.find_spec("torch") is None and PYTORCH in names:
        print("PyTorch is not installed: its row is left out (pip install torch)")
        return [name for name in names if name != PYTORCH]
    return names


def run(names: list[str], turns: int, steps: int) -> list[dict]:
    """Starts all, lets them take turns, returns the rows of the table."""
    workers = {}
    try:
        for name in names:
            workers[name] = Worker("benchmarks.train_step", name)
        turn = {name: lambda worker=worker: float(worker.ask(str(steps))) for name, worker in workers.items()}
        return summary(take_turns(turn, turns), OURS)
    finally:
        for worker in workers.values():
            worker.close()


def main() -> None:
    """argv → table and JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.train_step", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--turns", type=int, default=7, help="how often each takes its turn")
    parser.add_argument("--steps", type=int, default=5, help="steps per turn, of which the median counts")
    parser.add_argument(
        "--only", nargs="+", choices=list(COMPETITORS), help="some of the rows (ours is always one)"
    )
    parser.add_argument("--worker", choices=list(COMPETITORS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(args.worker)
    if args.turns < 1 or args.steps < 1:
        raise UsageError(f"At least 1 turn and 1 step. Received: turns={args.turns}, steps={args.steps}")
    names = available(list(dict.fromkeys([OURS, *(args.only or COMPETITORS)])))
    rows = run(names, args.turns, args.steps)
    print_summary(f"train step, ResNet-56, batch {BATCH}, CPU, {os.cpu_count()} cores", rows, OURS)
    save("train_step", {"batch": BATCH, "steps_per_turn": args.steps, "rows": rows})


if __name__ == "__main__":
    sys.exit(cli(main))
