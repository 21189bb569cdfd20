"""The end of a run: rows of numbers, shown as a table and written to report.json and report.html."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from secateur import exports
from secateur.dataloader import Images
from secateur.exports.timing import least, processor
from secateur.op_utils import make_forward
from secateur.pruning import Plan, compact, complexity
from secateur.pruning.search.ekg import history_of
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.files import TIMED_BATCH, file_rows
from secateur.recipes.engine.options import command_line
from secateur.recipes.engine.step import State
from secateur.recipes.training.scoring import ensemble_accuracy, score_logits
from secateur.reports.page import COLUMNS, FILE_COLUMNS, run_page
from secateur.reports.words import ratio
from secateur.runs import load_snapshot, read_json, write_json
from secateur.runs.text import table

PAGE = "report.html"
PRINTED = [column for column in COLUMNS if column[0] != "flops_ekg"]  # a terminal is narrower than the page


@dataclass(frozen=True)
class _Network:
    """A row of a report: a network, the same in plain layers and as a LiteRT file, logits by part."""

    model: keras.Model
    plain: keras.Model
    lite: bytes
    logits: dict[str, np.ndarray]


def finish(
    context: RunContext, system: str, snapshots: dict[str, Path], state: State, lite: Path | None = None
) -> dict:
    """Measures every snapshot, writes the reports, prints the table. Only here is the test split read.

    Args:
        context: the run.
        system: what reports call the method.
        snapshots: name → file, in the order of the rows.
        state: behind the last step.
        lite: the float32 LiteRT file of the last snapshot, where the run has one.
    """

    def make(path: Path) -> None:
        report = _measure(context, system, snapshots, state, lite)
        _write_page(context, report)
        write_json(path, report)

    report = read_json(context.step("report", "report.json", make))
    if not context.folder.path(PAGE).exists():
        _write_page(context, report)
    print_table(report)
    print(f"run folder: {context.config.train_path}  (report.html, report.json)")
    return report


def _write_page(context: RunContext, report: dict) -> None:
    context.folder.write(PAGE, run_page(report).encode())


def _measure(
    context: RunContext, system: str, snapshots: dict[str, Path], state: State, lite: Path | None
) -> dict:
    config = context.config
    entries = {name: entry for name in context.folder.steps() if (entry := context.folder.entry(name))}
    facts = {name: entry["facts"] for name, entry in entries.items()}
    history = history_of(load_snapshot(state.search).facts) if state.search else ()
    parts = {"holdout": context.splits.holdout, "test": context.splits.test}
    *_, last = snapshots.values()
    networks = {
        name: _network(context, path, parts, lite if path == last else None)
        for name, path in snapshots.items()
    }
    members = [name for name, path in snapshots.items() if path in (state.dense, *state.members)]
    taught = {name: fact["learning"] for name, fact in facts.items() if "learning" in fact}
    given = [learning for learning in taught.values() if "student" in learning]
    return {
        "system": system,
        "setting": config.setting,
        "command": command_line(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine(),
        "config": read_json(context.folder.path("config.json")),
        "bn": config.bn,
        "inputs": {"mean": context.splits.facts.mean, "std": context.splits.facts.std},
        "rows": _rows(context, networks, parts),
        "ensemble": _together([networks[name].logits for name in members], parts) if len(members) > 2 else {},
        "files": file_rows(context, state.files, [*networks.values()][-1].lite, parts),
        "rounded": {name: fact for name, fact in facts.items() if "rounded" in fact},
        "shared": {name: fact["kernels"] for name, fact in facts.items() if "kernels" in fact},
        "widths": plan_widths(state.plan),
        "stages": next((fact for fact in facts.values() if "holdout_stale_averages" in fact), {}),
        "learning": given[-1] if given else None,
        "taught": {name: learning for name, learning in taught.items() if "student" not in learning},
        "cuts": [{"step": name} | fact for name, fact in facts.items() if "holdout_before" in fact],
        "bank": next((fact for fact in facts.values() if "losses" in fact), {}),
        "litert": facts.get("litert", {}),
        "seconds": {name: entry["seconds"] for name, entry in entries.items()},
        "search": [
            {k: v for k, v in vars(i).items() if k != "plan"} | {"rate": i.macs / history[0].macs}
            for i in history
        ],
        "epochs": [row for row in context.log.rows() if row["phase"] in entries],
        "test_reads": context.splits.test_reads,
    }


def plan_widths(plan: Plan | None) -> list[dict]:
    """A row for each group: its width before and after."""
    keep = plan.keep.items() if plan else ()
    return [{"group": name, "before": plan.sizes[name], "after": len(kept)} for name, kept in keep]


def machine() -> dict:
    """What the numbers were measured on."""
    devices = [d.device_type for d in tf.config.list_physical_devices()]
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "devices": devices,
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }


def _network(context: RunContext, path: Path, parts: dict[str, Images], lite: Path | None) -> _Network:
    """The network of a snapshot; `lite` is its file, if it has been written."""
    model = context.load(path)
    plain = compact(model)
    data = lite.read_bytes() if lite else exports.to_litert(plain)
    return _Network(model, plain, data, _logits(context, model, parts))


def _logits(context: RunContext, model: keras.Model, parts: dict[str, Images]) -> dict[str, np.ndarray]:
    """Logits (n, classes) by part."""
    config = context.config
    forward = make_forward(model, context.inputs, config.bn == "batch", config.compile)
    return {name: forward(part.images, config.val_batch_size) for name, part in parts.items()}


def _together(logits: Sequence[dict[str, np.ndarray]], parts: dict[str, Images]) -> dict:
    """Accuracy of the mean of probabilities, by part."""
    found = {
        name: ensemble_accuracy([one[name] for one in logits], part.labels) for name, part in parts.items()
    }
    return {"members": len(logits), **{f"{name}_accuracy": value for name, value in found.items()}}


def _rows(context: RunContext, networks: dict[str, _Network], parts: dict[str, Images]) -> list[dict]:
    """Networks are timed in turns: one after the other, a slow minute would hit one of them alone."""
    images = np.asarray(context.inputs(parts["test"].images[:TIMED_BATCH]))
    timed = {
        "ms_frozen": {n: exports.frozen_runner(one.plain, len(images)) for n, one in networks.items()},
        "ms_litert": {n: exports.litert_runner(one.lite, len(images)) for n, one in networks.items()},
    }
    ms = {
        key: least({n: partial(run, images) for n, run in each.items()}, context.config.time_seconds)
        for key, each in timed.items()
    }
    return [
        _row(name, one, parts) | {"batch": len(images)} | {key: each[name] for key, each in ms.items()}
        for name, one in networks.items()
    ]


def _row(name: str, network: _Network, parts: dict[str, Images]) -> dict:
    cost, logits = complexity(network.model), network.logits
    return {
        "name": name,
        "params": cost.params,
        "macs": cost.macs,
        "flops_ekg": complexity(network.model, "ekg").macs,
        **{f"{n}_accuracy": score_logits(logits[n], part.labels).accuracy for n, part in parts.items()},
        "file_bytes": len(network.lite),
    }


def print_table(report: dict) -> None:
    """Before and after, a row per network, a ratio to the first behind each cost."""
    print(f"\n{report['system']} · {report['config']['arch']} · {report['config']['dataset']}")
    print(_table("network", report["rows"], PRINTED))
    if rows := report.get("files"):
        print(_table("file", rows, FILE_COLUMNS))
    if together := report.get("ensemble"):
        print(
            f"ensemble of {together['members']} (mean of softmax): hold-out "
            f"{100 * together['holdout_accuracy']:.2f} %, test {100 * together['test_accuracy']:.2f} %"
        )


def _table(first: str, rows: Sequence[dict], columns: Sequence[tuple[str, str, str]]) -> str:
    cells = [[row["name"], *(_cell(row, rows[0], key, style) for key, _, style in columns)] for row in rows]
    return table([first, *(title for _, title, _ in columns)], cells, wrap=12)


def _cell(row: dict, first: dict, key: str, style: str) -> str:
    if row[key] is None:
        return "–"
    if key.endswith("accuracy"):
        return style.format(100 * row[key])
    return style.format(row[key]) + ("" if row is first else f" ({ratio(row, first, key)})")
