"""What `--minutes` gets out of a given time, beside one fixed plan for all of that time.

    python -m benchmarks.auto --runs RUNS --minutes 15 -- --arch ResNet-20 --trained_param NET --data_path DIR

Behind -- stands what `train_cifar.py` is told of the network and the images in every row.
All rows end after the same minutes, report included, and train by the same schedule with the same teacher,
but for "labels alone". Rows differ in the plan: what `auto` chooses, or one that is given. A search has all
of the time for plans. Every run has a folder of its own under RUNS: what is finished is read. Nothing is
chosen by looking at the test images.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path

from benchmarks.common import print_table, save
from benchmarks.run_tables import run, slug
from secateur.runs import cli, read_json, write_json

ROWS = {
    "auto": [],
    "auto, labels alone": ["train.teacher=none", "train.label_weight=1.0"],
    "L1, uniform": ['auto.criteria=["l1"]', 'auto.allocations=["uniform"]', "auto.searches=[]"],
    "EKG": ["auto.criteria=[]", 'auto.searches=["ekg"]'],
    "NetAdapt": ["auto.criteria=[]", 'auto.searches=["netadapt"]'],
}
"""Row → settings of the recipe."""


def main() -> None:
    """argv → runs → table and JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.auto", description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True, help="a folder for all run folders")
    parser.add_argument("--minutes", type=float, default=15.0, help="of each run")
    parser.add_argument("--keep_macs", type=float, nargs="+", default=[0.72, 0.5])
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--result", default="auto", help="name of the file of results")
    parser.add_argument("words", nargs="+", metavar="-- OPTION", help="of train_cifar.py")
    args = parser.parse_args()
    rows = []
    for keep in args.keep_macs:
        for name in args.rows:
            words = [*args.words, "--minutes", f"{args.minutes:g}", "--keep_macs", f"{keep:g}"]
            words += ["--set", *ROWS[name]] if ROWS[name] else []
            rows.append(_row(name, keep, words, args.runs / f"{slug(name)}-{keep:g}-{args.minutes:g}"))
    titles = ("", "keep_macs", "chosen", "MACs", "pruned %", "hold-out %", "test %", "epochs", "seconds")
    print_table(f"{args.minutes:g} minutes each", titles, [_cells(row) for row in rows])
    save(args.result, {"minutes": args.minutes, "rows": rows})


def _row(name: str, keep: float, words: list[str], folder: Path) -> dict:
    """The last network of a run, what was chosen and tried, and seconds of the whole command."""
    report, times = _timed(words, folder)
    last = report["rows"][-1]
    chosen = next(one for one in report["tried"] if one["chosen"])
    trained = [epoch for epoch in report["epochs"] if epoch["phase"] == "train"]
    found = {key: last[key] for key in ("macs", "params", "holdout_accuracy", "test_accuracy")}
    return {
        "name": name,
        "keep_macs": keep,
        **found,
        "dense": report["rows"][0]["test_accuracy"],
        "plan": chosen["name"],
        "pruned": chosen["holdout"],
        "epochs": trained[-1]["passes"] if trained else 0.0,
        **times,
        "tried": report["tried"],
    }


def _timed(words: list[str], folder: Path) -> tuple[dict, dict]:
    """A report, and seconds by the wall and of all processors, which are kept beside it."""
    kept = folder.with_name(f"{folder.name}.times.json")
    if not kept.exists():
        start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        run(words, folder)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        write_json(kept, {"seconds": time.monotonic() - start, "processor_seconds": cpu})
    return read_json(folder / "report.json"), read_json(kept)


def _cells(row: dict) -> tuple[str, ...]:
    """A line of the table."""
    accuracies = (f"{100 * row[key]:.2f}" for key in ("pruned", "holdout_accuracy", "test_accuracy"))
    return (
        row["name"],
        f"{row['keep_macs']:g}",
        row["plan"],
        f"{row['macs']:,}",
        *accuracies,
        f"{row['epochs']:.1f}",
        f"{row['seconds']:.0f}",
    )


if __name__ == "__main__":
    sys.exit(cli(main))
