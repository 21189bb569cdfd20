"""From a dense network to the fewest bytes: accuracy and size after each step, beside gzip and xz.

    python -m benchmarks.fewest_bytes --dense DENSE.pkl --pruned PRUNED.pkl --data_path DIR --runs RUNS

The pruned network shares its weights (5 bits), trains them, is coded, and is rounded to 8 bits: `--recipe
fewest_bytes`; beside it `--recipe int8` of the pruned network itself. Runs that are there are read. Bytes of
a network are those of its float32 weights; ratios are to the dense one's. The test images decide nothing.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.common import packed, print_table, save
from benchmarks.run_tables import parser_of, run, words_of
from secateur.runs import cli
from secateur.runs.start import start_tensorflow


def weights_of(path: str | Path) -> bytes:
    """The float32 weights of a snapshot, one after the other."""
    import numpy as np

    from secateur import nets
    from secateur.pruning import compact

    return b"".join(np.asarray(v).tobytes() for v in compact(nets.load_params(None, path)).weights)


def measured(name: str, path: str | Path, args: argparse.Namespace) -> dict:
    """A snapshot: bytes and accuracy, normalised as it says or as published."""
    from secateur import dataloader, nets
    from secateur.dataloader.augment import normalise
    from secateur.op_utils import make_forward
    from secateur.recipes.engine.inputs import normalisation_of
    from secateur.recipes.training.scoring import score
    from secateur.runs import load_snapshot

    constants = normalisation_of("auto", load_snapshot(path))
    splits = dataloader.load(args.dataset, args.data_path, constants)
    facts = splits.facts
    forward = make_forward(nets.load_params(None, path), lambda x: normalise(x, facts.mean, facts.std))
    found = {p: score(forward, getattr(splits, p), 256).accuracy for p in ("holdout", "test")}
    return _row(name, len(weights_of(path)), found["holdout"], found["test"])


def _row(name: str, size: int, holdout: float | None, test: float | None, ms: float | None = None) -> dict:
    return {"name": name, "bytes": size, "holdout_accuracy": holdout, "test_accuracy": test, "ms": ms}


def _file(report: dict, name: str, title: str) -> dict:
    own = next(row for row in report["files"] if row["name"] == name)
    return _row(title, own["bytes"], own["holdout_accuracy"], own["test_accuracy"], own["ms_litert"])


def rows_of(args: argparse.Namespace) -> list[dict]:
    """Makes or reads both runs, and measures every stage."""
    common = words_of(args, args.pruned)
    small, whole = args.runs / f"fewest_bytes-{args.epochs}", args.runs / "int8"
    settings = ["--set", f"train.epochs={args.epochs}"]
    shared = run(["--recipe", "fewest_bytes", *common, *settings], small)
    rounded = run(["--recipe", "int8", *common], whole)
    rows = [
        measured("dense", args.dense, args),
        measured("pruned", args.pruned, args),
        measured("shared, 5 bits", small / "snap_share.pkl", args),
        measured("shared, trained", small / "snap_train.pkl", args),
        _file(shared, "small.kpz", "that in a .kpz file"),
        _file(shared, "model.tflite", "that as LiteRT, float32"),
        _file(shared, "int8.tflite", "that as LiteRT, 8 bits"),
        _file(rounded, "int8.tflite", "pruned as LiteRT, 8 bits"),
    ]
    for name, path in (("shared", small / "snap_train.pkl"), ("pruned", args.pruned)):
        for coder, size in packed(weights_of(path)).items():
            rows.append(_row(f"{coder} of the {name} weights", size, None, None))
    return rows


def main() -> None:
    """argv → runs → table and JSON."""
    parser = parser_of("benchmarks.fewest_bytes", __doc__, "ResNet-56")
    parser.add_argument("--dense", required=True)
    parser.add_argument("--pruned", required=True, help="snapshot of the same network with fewer channels")
    parser.add_argument("--epochs", type=int, default=2, help="of training shared weights")
    args = parser.parse_args()
    start_tensorflow()
    rows = rows_of(args)
    titles = ("", "bytes", "times smaller", "hold-out %", "test %", "ms, batch of 128")
    print_table(args.arch, titles, [_cells(row, rows[0]) for row in rows])
    save("fewest_bytes", {"arch": args.arch, "dataset": args.dataset, "epochs": args.epochs, "rows": rows})


def _cells(row: dict, dense: dict) -> tuple[str, ...]:
    percents = [row[f"{part}_accuracy"] for part in ("holdout", "test")]
    return (
        row["name"],
        f"{row['bytes']:,}",
        f"{dense['bytes'] / row['bytes']:.2f}",
        *("–" if value is None else f"{100 * value:.2f}" for value in percents),
        "–" if row["ms"] is None else f"{row['ms']:.1f}",
    )


if __name__ == "__main__":
    sys.exit(cli(main))
