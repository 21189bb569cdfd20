"""From a dense network to the smallest file: accuracy and size after each stage, beside gzip and xz.

    python -m benchmarks.fewest_bytes --dense DENSE.pkl --data_path DIR --runs RUNS

`--recipe smallest`: EKG's search, rounds of single weights with the memory bank as teacher, few values by the
rate of their code, their training, the file, and 8 bits for LiteRT. A run that is there is read. Bytes of a
network are those of its float32 weights; ratios are to the dense one's. The test images decide nothing.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.common import packed, print_table, save
from benchmarks.run_tables import parser_of, run, words_of
from secateur.runs import cli
from secateur.runs.start import start_tensorflow

STAGES = {
    "pruned": "slimmed_param.pkl",
    "single weights pruned, trained": "snap_finish.pkl",
    "few values": "snap_share.pkl",
    "those trained": "snap_tune.pkl",
}
"""Row → snapshot of the run."""
FILES = {
    "that as .kpz": "small.kpz",
    "that as LiteRT, float32": "model.tflite",
    "that as LiteRT, 8 bits": "int8.tflite",
}


def weights_of(path: str | Path) -> list:
    """Arrays of a snapshot's plain network."""
    import numpy as np

    from secateur import nets
    from secateur.pruning import compact

    return [np.asarray(v) for v in compact(nets.load_params(None, path)).weights]


def measured(name: str, path: str | Path, args: argparse.Namespace) -> dict:
    """A snapshot: bytes, weights that are not 0, and accuracy, normalised as it says or as published."""
    from secateur import dataloader, nets
    from secateur.dataloader.augment import normalise
    from secateur.op_utils import make_forward
    from secateur.recipes.engine.inputs import normalisation_of
    from secateur.recipes.training.scoring import score
    from secateur.runs import load_snapshot

    constants = normalisation_of("auto", load_snapshot(path))
    splits = dataloader.load(args.dataset, args.data_path, constants)
    facts, weights = splits.facts, weights_of(path)
    forward = make_forward(nets.load_params(None, path), lambda x: normalise(x, facts.mean, facts.std))
    found = {p: score(forward, getattr(splits, p), 256).accuracy for p in ("holdout", "test")}
    size, alive = sum(w.nbytes for w in weights), sum(int((w != 0).sum()) for w in weights)
    return _row(name, size, found["holdout"], found["test"]) | {"not_zero": alive}


def _row(name: str, size: int, holdout: float | None, test: float | None, ms: float | None = None) -> dict:
    return {"name": name, "bytes": size, "holdout_accuracy": holdout, "test_accuracy": test, "ms": ms}


def _file(report: dict, name: str, title: str) -> dict:
    own = next(row for row in report["files"] if row["name"] == name)
    return _row(title, own["bytes"], own["holdout_accuracy"], own["test_accuracy"], own["ms_litert"])


def rows_of(args: argparse.Namespace) -> list[dict]:
    """Makes or reads the run, and measures every stage."""
    folder = args.runs / "smallest"
    settings = ["--set", *args.set] if args.set else []
    report = run(["--recipe", "smallest", *words_of(args, args.dense), *settings], folder)
    rows = [measured("dense", args.dense, args)]
    rows += [measured(name, folder / file, args) for name, file in STAGES.items()]
    made = {row["name"] for row in report["files"]}  # without int8 where --set left it out
    rows += [_file(report, name, title) for title, name in FILES.items() if name in made]
    for name in ("pruned", "those trained"):
        data = b"".join(w.tobytes() for w in weights_of(folder / STAGES[name]))
        rows += [_row(f"{coder}, {name}", size, None, None) for coder, size in packed(data).items()]
    return rows


def main() -> None:
    """argv → run → table and JSON."""
    parser = parser_of("benchmarks.fewest_bytes", __doc__, "ResNet-56")
    parser.add_argument("--dense", required=True, help="snapshot")
    parser.add_argument(
        "--set", nargs="+", default=[], help="settings of the recipe, such as finish.epochs=2"
    )
    args = parser.parse_args()
    start_tensorflow()
    rows = rows_of(args)
    titles = ("", "bytes", "times smaller", "hold-out %", "test %", "ms, batch of 128")
    print_table(args.arch, titles, [_cells(row, rows[0]) for row in rows])
    save("fewest_bytes", {"arch": args.arch, "dataset": args.dataset, "set": args.set, "rows": rows})


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
