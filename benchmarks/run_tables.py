"""Runs of `train_cifar.py` for tables: made once, read ever after; means over seeds."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

from secateur.runs import RunFolderError, read_json

REPO = Path(__file__).resolve().parents[1]


def parser_of(module: str, about: str, arch: str = "ResNet-20") -> argparse.ArgumentParser:
    """A command line with what every table asks for: network, data, and where the runs are."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=about.splitlines()[0])
    parser.add_argument("--arch", default=arch)
    parser.add_argument("--dataset", default="CIFAR10")
    parser.add_argument("--data_path")
    parser.add_argument("--runs", type=Path, required=True, help="a folder for all run folders")
    return parser


def words_of(args: argparse.Namespace, trained_param: str) -> list[str]:
    """The same as options of `train_cifar.py`, which start from a network."""
    words = ["--trained_param", trained_param, "--arch", args.arch, "--dataset", args.dataset]
    return [*words, "--data_path", args.data_path] if args.data_path else words


def run(options: list[str], folder: Path) -> dict:
    """The report of a run, which is made or finished first where it is not there."""
    if not (folder / "report.json").exists():
        words = [sys.executable, str(REPO / "train_cifar.py"), *options, "--train_path", str(folder)]
        if (code := subprocess.run(words, cwd=REPO).returncode) != 0:
            raise RunFolderError(f"A run ended with exit code {code}. Received: {folder}")
    return read_json(folder / "report.json")


def row(name: str, reports: list[dict], seconds: list[float]) -> dict:
    """Means and standard deviations of the last network of each report, one report for each seed."""
    last = [report["rows"][-1] for report in reports]
    found = {"name": name, "seeds": len(reports), "macs": last[0]["macs"], "params": last[0]["params"]}
    for key in ("holdout_accuracy", "test_accuracy"):
        found[key] = spread([network[key] for network in last])
    return found | {"seconds": statistics.mean(seconds)}


def spread(values: list[float]) -> dict:
    """Mean and standard deviation of one number for each seed; of a single one 0."""
    return {
        "mean": statistics.mean(values),
        "sd": statistics.stdev(values) if len(values) > 1 else 0.0,
        "values": values,
    }


def slug(name: str) -> str:
    """A name as part of a folder's."""
    return "".join(c if c.isalnum() else "_" for c in name.lower())


def percent(share: dict) -> str:
    """Mean ± standard deviation in %."""
    return f"{100 * share['mean']:.2f} ± {100 * share['sd']:.2f}"
