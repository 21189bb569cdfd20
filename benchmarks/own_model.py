"""Five methods on one Keras model that nobody here built: the same budget, the same epochs of training.

    python -m benchmarks.own_model --model mobilenetv2.keras --pixels=-1..1 --data_path DIR --runs RUNS

All rows train by the same one-cycle schedule for as many epochs in all: KESI spends half of them in its round
and half on the distillation from both networks. EKG's bank and KESI's ensemble teach; the others learn from
labels. Every run has a folder of its own under RUNS: what is finished is read, what was killed goes on.
Nothing is chosen by looking at the test images.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.common import print_table, save
from benchmarks.run_tables import percent, row, run, slug
from secateur.runs import cli

CYCLE = {"optimizer": "adam", "learning_rate": "1e-3", "schedule": "one_cycle", "weight_decay": "0"}


def rows(epochs: int) -> dict[str, list[str]]:
    """Row → recipe and its settings."""

    def trained(step: str, epochs: int) -> list[str]:
        return [f"{step}.{name}={value}" for name, value in (CYCLE | {"epochs": str(epochs)}).items()]

    first = epochs // 2
    return {
        "L1, one shot": ["pfec_a", "--set", *trained("train", epochs)],
        "NetAdapt": ["netadapt", "--set", *trained("train", epochs)],
        "EKG": ["ekg", "--no-Knowledge", "--set", *trained("fine_tune", epochs)],
        "EKG, bank and two views": ["ekg", "--set", *trained("fine_tune", epochs)],
        "KESI": [
            *("kesi", "--set", "rounds.times=1"),
            *trained("train", first),
            *trained("distil", epochs - first),
        ],
    }


def main() -> None:
    """argv → runs → table and JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.own_model", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--model", required=True, help="a trained model, .keras or .h5")
    parser.add_argument("--pixels", default="auto", help="that it reads")
    parser.add_argument("--dataset", default="CIFAR10")
    parser.add_argument("--data_path")
    parser.add_argument("--runs", type=Path, required=True, help="a folder for all run folders")
    parser.add_argument("--keep_macs", default="0.5")
    parser.add_argument("--epochs", type=int, default=2, help="of training, in each row")
    parser.add_argument("--train_images", type=int, default=20_000, help="that the rows train on")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", nargs="+", choices=rows(2), default=list(rows(2)))
    args = parser.parse_args()
    common = ["--model", args.model, f"--pixels={args.pixels}", "--dataset", args.dataset]
    common += ["--data_path", args.data_path] if args.data_path else []
    common += ["--keep_macs", args.keep_macs, "--augmentation", "flip+crop"]
    common += ["--train_images", str(args.train_images)]
    found, dense = [], {}
    for name in args.rows:
        folders = [args.runs / f"{slug(name)}-{seed}" for seed in range(1, args.seeds + 1)]
        words = ["--recipe", *rows(args.epochs)[name]]
        reports = [
            run([*common, "--seed", str(seed), *words], folder) for seed, folder in enumerate(folders, 1)
        ]
        dense = reports[0]["rows"][0]
        found.append(row(name, reports, [sum(report["seconds"].values()) for report in reports]))
    titles = ("", "MACs", "parameters", "hold-out %", "test %")
    cells = [(r["name"], f"{r['macs']:,}", f"{r['params']:,}", percent(r["holdout_accuracy"]),
              percent(r["test_accuracy"])) for r in found]  # fmt: skip
    first = f"{100 * dense['holdout_accuracy']:.2f}", f"{100 * dense['test_accuracy']:.2f}"
    print_table(
        f"{Path(args.model).stem}, {args.epochs} epochs, {args.seeds} seeds",
        titles,
        [("dense", f"{dense['macs']:,}", f"{dense['params']:,}", *first), *cells],
    )
    about = {
        name: getattr(args, name) for name in ("pixels", "dataset", "keep_macs", "epochs", "train_images")
    }
    save("own_model", {"model": Path(args.model).name, **about, "dense": dense, "rows": found})


if __name__ == "__main__":
    sys.exit(cli(main))
