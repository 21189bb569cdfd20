"""Beside NVIDIA Model Optimizer's FastNAS: one published ResNet-20, the same budget, images and epochs.

    python -m benchmarks.fastnas --trained_param resnet20.safetensors --data_path DIR --runs RUNS

The searches see the same hold-out images, all trainings the same training images, by EKG's rates (0.01, times
0.2 at 30, 60 and 80 %) or one cycle up to 0.05, each in its own framework. Every run has a folder of its own
under RUNS: what is finished is read. Nothing is chosen by looking at the test images.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.common import print_table, save
from benchmarks.run_tables import REPO, parser_of, run, slug, words_of
from secateur import dataloader, nets
from secateur.pruning import complexity
from secateur.recipes.engine.inputs import normalisation_of
from secateur.runs import RunFolderError, cli, load_snapshot, read_json

CYCLE = ["fine_tune.schedule=one_cycle", "fine_tune.learning_rate=0.05"]
SEARCHED = ("search_seconds", "macs", "pruned_test", "test_accuracy")
OURS = {
    "EKG, labels": (["ekg", "--no-Knowledge"], []),
    "EKG, bank": (["ekg"], []),
    "EKG, labels, one cycle": (["ekg", "--no-Knowledge"], CYCLE),
    "NetAdapt, labels": (
        ["netadapt"],
        [
            "netadapt.cost=macs", "train.optimizer=nesterov", "train.learning_rate=0.01",
            "train.schedule=step_decay", "train.points=[0.3, 0.6, 0.8]", "train.decay=0.2",
            "train.weight_decay=5e-4",
        ],
    ),
}  # fmt: skip
"""Row → words behind `--recipe`, and settings."""
THEIRS = {
    "FastNAS, steps of 4": ["--divisor", "4"],
    "FastNAS, steps of 16": ["--divisor", "16"],
    "FastNAS, steps of 4, one cycle": ["--divisor", "4", "--one_cycle", "--rate", "0.05"],
}


def main() -> None:
    """argv → runs → table and JSON."""
    parser = parser_of("benchmarks.fastnas", __doc__)
    parser.add_argument("--trained_param", required=True, help="the published weights, .safetensors")
    parser.add_argument("--macs", type=float, nargs="+", default=[29.6e6, 20.3e6])
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", nargs="+", choices=[*THEIRS, *OURS], default=[*THEIRS, *OURS])
    args = parser.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    args.dense = complexity(nets.load_params(None, args.trained_param)).macs
    rows = [_row(args, name, macs) for macs in args.macs for name in args.rows]
    titles = ("", "at most", "MACs", "search s", "pruned, test %", "trained, test %")
    print_table(f"{args.arch}, {args.epochs} epochs", titles, [_cells(row) for row in rows])
    save("fastnas", {"arch": args.arch, "epochs": args.epochs, "rows": rows})


def _row(args: argparse.Namespace, name: str, macs: float) -> dict:
    one = _theirs if name in THEIRS else _ours
    found = [one(args, name, macs, seed) for seed in range(1, args.seeds + 1)]
    return {"name": name, "at_most": macs} | {key: [f[key] for f in found] for key in SEARCHED}


def _ours(args: argparse.Namespace, name: str, macs: float, seed: int) -> dict:
    words = ["--recipe", *OURS[name][0], *words_of(args, args.trained_param), "--seed", str(seed)]
    words += ["--keep_macs", f"{macs / args.dense:.6f}", "--set", *settings(name, args.epochs)]
    report = run(words, args.runs / f"{slug(name)}-{macs:.0f}-{seed}")
    pruned, last = report["rows"][1], report["rows"][-1]
    seconds = sum(s for step, s in report["seconds"].items() if step in ("warm_up", "search_ekg", "netadapt"))
    return {"search_seconds": seconds, "macs": last["macs"], "pruned_test": pruned["test_accuracy"]} | {
        "test_accuracy": last["test_accuracy"]
    }


def settings(name: str, epochs: int) -> list[str]:
    """What a row of ours sets."""
    recipe, more = OURS[name]
    return [f"{'train' if recipe[0] == 'netadapt' else 'fine_tune'}.epochs={epochs}", *more]


def _theirs(args: argparse.Namespace, name: str, macs: float, seed: int) -> dict:
    folder = args.runs / f"{slug(name)}-{macs:.0f}-{seed}"
    folder.mkdir(exist_ok=True)
    if not (out := folder / "found.json").exists():
        words = [sys.executable, "-m", "benchmarks.fastnas_torch", str(_images(args)), str(out)]
        words += ["--weights", args.trained_param, "--macs", str(macs), "--epochs", str(args.epochs)]
        if (code := subprocess.run([*words, "--seed", str(seed), *THEIRS[name]], cwd=REPO).returncode) != 0:
            raise RunFolderError(f"FastNAS ended with exit code {code}. Received: {folder}")
    return read_json(out)


def _images(args: argparse.Namespace) -> Path:
    """The splits of a run as one file for a program without TensorFlow."""
    if not (path := args.runs / "images.npz").exists():
        snapshot = load_snapshot(args.trained_param)
        splits = dataloader.load(args.dataset, args.data_path, normalisation_of("auto", snapshot))
        parts = {"train": splits.train, "holdout": splits.holdout, "test": splits.test}
        arrays = {f"{name}_images": part.images for name, part in parts.items()}
        arrays |= {f"{name}_labels": part.labels for name, part in parts.items()}
        np.savez(path, mean=splits.facts.mean, std=splits.facts.std, **arrays)
    return path


def _cells(row: dict) -> tuple[str, ...]:
    accuracies = (_percent(row[key]) for key in ("pruned_test", "test_accuracy"))
    seconds, macs = statistics.mean(row["search_seconds"]), statistics.mean(row["macs"])
    return row["name"], f"{row['at_most']:,.0f}", f"{macs:,.0f}", f"{seconds:.0f}", *accuracies


def _percent(values: list[float]) -> str:
    spread = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):.2f}{spread}"


if __name__ == "__main__":
    sys.exit(cli(main))
