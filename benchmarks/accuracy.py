"""Several finished runs in one table: what each system keeps and how accurate it is. Trains nothing.

python -m benchmarks.accuracy EKG=RUN1 "EKG, no bank"=RUN2 L1=RUN3 random=RUN4
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from benchmarks.common import RESULTS, named_paths, portable, print_table, today
from secateur.runs import UsageError, cli, read_json, write_json

BEFORE, SLIM, AFTER = "baseline", "slimmed", "trained"


def collect(name: str, folder: Path) -> dict:
    """One row from a run folder's report.json. Raises `UsageError` when the run is not finished."""
    path = folder / "report.json"
    if not path.exists():
        raise UsageError(
            f"No report.json in this run folder; let the run finish. Received: {name}={str(folder)!r}"
        )
    report = read_json(path)
    networks = {row["name"]: row for row in report["rows"]}
    last = networks.get(AFTER, networks[SLIM])
    stages, config = report["stages"], report["config"] | report["config"]["flags"]
    return {
        "system": name,
        "criterion": config["criterion"],
        "knowledge": bool(report["bank"]),
        "arch": config["arch"],
        "dataset": config["dataset"],
        "bn": report["bn"],
        "epochs": _epochs(report) if AFTER in networks else 0,
        "dense_macs": networks[BEFORE]["macs"],
        "macs": last["macs"],
        "params": last["params"],
        "ms_litert": last["ms_litert"],
        "speed_up_litert": networks[BEFORE]["ms_litert"] / last["ms_litert"],
        "holdout_after_search": stages.get("holdout_batch_statistics"),
        "holdout_reestimated": stages.get("holdout_reestimated"),
        "holdout_after_fine_tuning": last["holdout_accuracy"] if AFTER in networks else None,
        "test_before": networks[BEFORE]["test_accuracy"],
        "test_after": last["test_accuracy"],
        "seconds": report["seconds"],
        "command": portable(shlex.split(report["command"])),
        "machine": report["machine"],
        "date": report["date"],
    }


def _epochs(report: dict) -> int:
    """Of the last training."""
    last = report["epochs"][-1]["phase"]
    return sum(row["phase"] == last for row in report["epochs"])


_COLUMNS = (
    ("system", "{system}"),
    ("MACs", "{macs:,}"),
    ("parameters", "{params:,}"),
    ("ms LiteRT", "{ms_litert:.1f}"),
    ("holdout after search (batch statistics)", "{holdout_after_search:.2%}"),
    ("after BN re-estimation", "{holdout_reestimated:.2%}"),
    ("after fine-tuning", "{holdout_after_fine_tuning:.2%}"),
    ("test before", "{test_before:.2%}"),
    ("test after", "{test_after:.2%}"),
    ("epochs", "{epochs}"),
)


def _cell(style: str, row: dict) -> str:
    try:
        return style.format(**row)
    except TypeError:  # None: this run has no such stage
        return "–"


def main() -> None:
    """argv → table and JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.accuracy", description=__doc__.splitlines()[0]
    )
    parser.add_argument("runs", nargs="+", metavar="NAME=FOLDER")
    parser.add_argument("--result", default="accuracy", help="name of the file of results")
    args = parser.parse_args()
    rows = [collect(name, folder) for name, folder in named_paths("runs", args.runs).items()]
    RESULTS.mkdir(parents=True, exist_ok=True)
    write_json(RESULTS / f"{args.result}.json", {"date": today(), "rows": rows})
    titles = [title for title, _ in _COLUMNS]
    print_table("Finished runs", titles, [[_cell(style, row) for _, style in _COLUMNS] for row in rows])


if __name__ == "__main__":
    sys.exit(cli(main))
