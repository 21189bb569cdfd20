"""Losses side by side on real images: `train_cifar.py --recipe distill` for each loss and seed, one table.

    python -m benchmarks.distill_accuracy --teacher res56.pkl --teachers b.pkl c.pkl --runs RUNS

Every run has a folder of its own under RUNS, `<table>-<method>-<seed>-<epochs>ep`: what is finished is read,
what was killed goes on. Other teachers or data need another RUNS. The first
table is a fresh ResNet-20; the second is HAP's setting: the teacher itself, 60 % of its channels left.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.common import print_table, save
from benchmarks.run_tables import percent, row, run, slug
from secateur.runs import UsageError, cli

SCRATCH = {
    "cross-entropy": ["--distill", "none"],
    "KD": ["--distill", "kd"],
    "AT": ["--distill", "kd+at"],
    "SP": ["--distill", "kd+sp"],
    "AFD": ["--distill", "kd+afd"],
    "HAP": ["--distill", "kd+hap"],
    "ensemble": ["--distill", "kd"],
}
PRUNED = {
    "NGGM alone": ["--distill", "none"],
    "NGGM + HAP": ["--distill", "kd+hap"],
}


def commands(args: argparse.Namespace) -> dict[str, dict[str, list[str]]]:
    """Table → method → options of `train_cifar.py`."""
    common = ["--dataset", args.dataset, "--batch_size", "128"]
    common += ["--data_path", args.data_path] if args.data_path else []
    fresh = [*common, "--recipe", "distill", "--arch", "ResNet-20", "--train_epoch", str(args.epochs)]
    fresh += ["--learning_rate", "0.1"]
    hap = [*common, "--recipe", "hap", "--arch", args.teacher_arch, "--train_epoch", str(args.pruned_epochs)]
    one, all_ = ["--teacher", args.teacher], ["--teacher", args.teacher, *args.teachers]
    return {
        "ResNet-20 from random weights": {
            name: [*fresh, *options, *(all_ if name == "ensemble" else one)]
            for name, options in SCRATCH.items()
            if name != "ensemble" or args.teachers
        },
        f"{args.teacher_arch}, 60 % of the channels kept": {
            name: [*hap, *options, *one] for name, options in PRUNED.items()
        },
    }


def main() -> None:
    """argv → runs → tables and JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.distill_accuracy", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "--teacher", required=True, help="snapshot; its architecture is pruned in HAP's setting"
    )
    parser.add_argument("--teacher_arch", default="ResNet-56")
    parser.add_argument("--teachers", nargs="*", default=[], help="more snapshots: the ensemble")
    parser.add_argument("--dataset", default="CIFAR10")
    parser.add_argument("--data_path")
    parser.add_argument("--runs", type=Path, required=True, help="a folder for all run folders")
    parser.add_argument("--epochs", type=int, default=2, help="of a fresh student")
    parser.add_argument("--pruned_epochs", type=int, default=1, help="of a pruned one")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    if args.seeds < 1:
        raise UsageError(f"At least 1 seed. Received: seeds={args.seeds}")
    plans = commands(args)
    reports = {
        (title, name, seed): run(
            [*options, "--seed", str(seed)], args.runs / folder_name(title, name, seed, options)
        )
        for seed in range(1, args.seeds + 1)
        for title, methods in plans.items()
        for name, options in methods.items()
    }
    tables = {
        title: [_row(name, [r for key, r in reports.items() if key[:2] == (title, name)]) for name in methods]
        for title, methods in plans.items()
    }
    for title, rows in tables.items():
        print_table(title, ("", "hold-out %", "test %", "seconds"), list(map(cells, rows)))
    facts = {"dataset": args.dataset, "epochs": args.epochs, "pruned_epochs": args.pruned_epochs}
    save("distill_accuracy", {**facts, "teachers": 1 + len(args.teachers), "tables": tables})


def _row(name: str, reports: list[dict]) -> dict:
    return row(name, reports, [report["seconds"]["fine_tune"] for report in reports])


def folder_name(title: str, name: str, seed: int, options: list[str]) -> str:
    """Of a run; with other epochs it is another, so that a finished report is never taken for it."""
    epochs = options[options.index("--train_epoch") + 1]
    return f"{slug(title)}-{slug(name)}-{seed}-{epochs}ep"


def cells(found: dict) -> tuple[str, ...]:
    """A line of the table."""
    return (
        found["name"],
        *(percent(found[key]) for key in ("holdout_accuracy", "test_accuracy")),
        f"{found['seconds']:.0f}",
    )


if __name__ == "__main__":
    sys.exit(cli(main))
