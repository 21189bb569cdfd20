"""The end of a run: rows of numbers, shown as a table and written to report.json and report.html."""

from __future__ import annotations

import datetime
import os
import platform
import shlex
import sys
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from rich.console import Console
from rich.table import Table

import nets
from op_utils import make_forward
from pruning import Plan, compact, complexity
from pruning.search import Interim
from recipes import export
from recipes.training import Lab, evaluate
from runs import load_snapshot, read_json
from runs.html import render_html

TIMED_BATCH = 128


def finish(lab: Lab, snapshots: dict[str, Path], plan: Plan, history: tuple[Interim, ...]) -> dict:
    """Measures every snapshot, writes the reports, prints the table. Only here is the test split read."""
    path = lab.folder.path("report.json")
    if lab.folder.done("report"):
        report = read_json(path)
    else:
        report = _measure(lab, snapshots, plan, history)
        lab.folder.write("report.html", render_html(report).encode())
        lab.folder.write_json("report.json", report)
        lab.folder.record("report", "report.json", 0.0)
    print_table(report)
    print(f"run folder: {lab.config.train_path}  (report.html, report.json)")
    return report


def _measure(lab: Lab, snapshots: dict[str, Path], plan: Plan, history: tuple[Interim, ...]) -> dict:
    config = lab.config
    steps = ("baseline", "warm-up", "search", "bank", "slim", "fine-tune", "compact", "litert")
    entries = {name: entry for name in steps if (entry := lab.folder.entry(name))}
    dense = history[0].macs if history else None
    return {
        "system": "EKG" if config.criterion == "ekg" else f"{config.criterion}, uniform",
        "setting": config.setting,
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine(),
        "config": config.to_json(),
        "bn": config.bn,
        "rows": _rows(lab, snapshots),
        "widths": [{"group": g, "before": plan.sizes[g], "after": len(k)} for g, k in plan.keep.items()],
        "stages": entries.get("slim", {}).get("facts", {}),
        "bank": entries.get("bank", {}).get("facts", {}),
        "seconds": {name: entry["seconds"] for name, entry in entries.items()},
        "search": [
            {k: v for k, v in vars(i).items() if k != "plan"} | {"rate": i.macs / dense} for i in history
        ],
        "epochs": lab.log.rows(),
        "test_reads": lab.splits.test_reads,
    }


def machine() -> dict:
    """What the numbers were measured on."""
    devices = [d.device_type for d in tf.config.list_physical_devices()]
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "devices": devices,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _rows(lab: Lab, snapshots: dict[str, Path]) -> list[dict]:
    test = lab.splits.test
    return [_row(lab, name, path, test) for name, path in snapshots.items()]


def _row(lab: Lab, name: str, path: Path, test) -> dict:
    config = lab.config
    with lab.strategy.scope():
        model = nets.load_params(None, load_snapshot(path))
    forward = make_forward(model, lab.inputs, config.bn == "batch", config.compile)
    plain = compact(model)
    lite = export.to_litert(plain)
    images = np.asarray(lab.inputs(test.images[:TIMED_BATCH]))
    size = len(images)
    return {
        "name": name,
        "params": complexity(model).params,
        "macs": complexity(model).macs,
        "flops_ekg": complexity(model, "ekg").macs,
        "file_bytes": len(lite),
        "batch": size,
        "ms_frozen": export.milliseconds(export.frozen_runner(plain, size), images),
        "ms_litert": export.milliseconds(export.litert_runner(lite, size), images),
        "holdout_accuracy": evaluate(forward, lab.splits.holdout, config.val_batch_size).accuracy,
        "test_accuracy": evaluate(forward, test, config.val_batch_size).accuracy,
    }


_COLUMNS = (
    ("params", "params", "{:,}"),
    ("MACs", "macs", "{:,}"),
    ("file bytes", "file_bytes", "{:,}"),
    ("ms/batch TF", "ms_frozen", "{:.1f}"),
    ("ms/batch LiteRT", "ms_litert", "{:.1f}"),
    ("holdout %", "holdout_accuracy", "{:.2f}"),
    ("test %", "test_accuracy", "{:.2f}"),
)


def print_table(report: dict) -> None:
    """Before and after, a row per network, a ratio to the first behind each cost."""
    rows = report["rows"]
    table = Table(title=f"{report['system']} · {report['config']['arch']} · {report['config']['dataset']}")
    table.add_column("network")
    for title, _, _ in _COLUMNS:
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(row["name"], *(_cell(row, rows[0], key, style) for _, key, style in _COLUMNS))
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def _cell(row: dict, first: dict, key: str, style: str) -> str:
    if key.endswith("accuracy"):
        return style.format(100 * row[key])
    ratio = "" if row is first else f" ({row[key] / first[key]:.0%})"
    return style.format(row[key]) + ratio
