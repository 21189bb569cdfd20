"""The end of a run: rows of numbers, shown as a table and written to report.json and report.html."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import keras
import tensorflow as tf

from secateur import exports
from secateur.dataloader import Images
from secateur.exports.timing import least, processor
from secateur.nets.task import METRICS
from secateur.op_utils import make_forward
from secateur.pruning import Plan, complexity
from secateur.pruning.groups.analysis import analyse
from secateur.pruning.search.ekg import history_of
from secateur.recipes.engine.context import RunContext
from secateur.recipes.engine.files import file_rows, lite_files, timed_batch
from secateur.recipes.engine.options import command_line
from secateur.recipes.engine.step import State
from secateur.recipes.training.scoring import Score, ensemble_accuracy, mean_of, pieces_of
from secateur.reports.page import COLUMNS, FILE_COLUMNS, run_page
from secateur.reports.words import held_out, left_out, ratio, timed_apart
from secateur.runs import load_snapshot, read_json, sha256, warn, write_json
from secateur.runs.seal import sealed
from secateur.runs.text import number, table

PAGE = "report.html"
LOGGED = {"loss", "accuracy", "holdout_loss", "holdout_accuracy", "learning_rate"}  # of every epoch
IN_PERCENT = [name for kind, name in METRICS.items() if kind != "own"]
PRINTED = [column for column in COLUMNS if column[0] != "flops_ekg"]  # a terminal is narrower than the page


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

    def make(path: Path) -> dict:
        report = sealed(_measure(context, system, snapshots, state, lite))
        write_json(path, report)
        return {PAGE: _write_page(context, report)}

    report = read_json(context.step("report", "report.json", make))
    _repair_page(context, report)
    print_table(report)
    return report


def _write_page(context: RunContext, report: dict) -> str:
    return context.folder.write(PAGE, run_page(report).encode())


def _repair_page(context: RunContext, report: dict) -> None:
    """Writes the page again where it is not the one that the manifest has the digest of."""
    folder, entry = context.folder, context.folder.entry("report")
    page, written = folder.path(PAGE), entry["facts"].get(PAGE)
    if page.is_file() and written in (None, sha256(page)):
        return
    warn(f"{page} is gone, damaged or changed; it is written again")
    facts = entry["facts"] | {PAGE: _write_page(context, report)}
    folder.record("report", "report.json", entry["seconds"], facts)


def _measure(
    context: RunContext, system: str, snapshots: dict[str, Path], state: State, written: Path | None
) -> dict:
    config = context.config
    entries = {name: entry for name in context.folder.steps() if (entry := context.folder.entry(name))}
    history = history_of(load_snapshot(state.search).facts) if state.search else ()
    networks = {name: context.load(path) for name, path in snapshots.items()}
    parts = context.splits.measured
    members = [name for name, path in snapshots.items() if path in (state.dense, *state.members)]
    scores, together = _scores(context, networks, members if len(members) > 2 else [], parts)
    plain = {name: context.subject.finished(model) for name, model in networks.items()}
    lite = lite_files(plain, written)
    timed = _timed(context, plain, lite, parts)
    return {
        "system": system,
        "setting": config.setting,
        **when_and_where(),
        "config": read_json(context.folder.path("config.json")),
        "bn": config.bn,
        "metric": context.subject.metric_name,
        "in_percent": context.subject.metric_name in IN_PERCENT,
        "class_names": context.splits.facts.class_names,
        "frozen": context.subject.frozen_text(),
        "skipped": context.splits.skipped,
        "inputs": {
            "mean": context.splits.facts.mean,
            "std": context.splits.facts.std,
            "gives": "logits" if context.subject.original is None else "what the model gave as it came",
        },
        "rows": [_row(name, model, scores[name]) | timed[name] for name, model in networks.items()],
        "ensemble": together,
        "files": file_rows(context, state.files, lite.get([*networks][-1]), parts),
        "widths": plan_widths(state.plan),
        "untouched": left_whole(context.subject.original) if context.subject.original is not None else [],
        "clock": {"minutes": config.minutes, "seconds": context.clock.used} if context.clock else None,
        "seconds": {name: entry["seconds"] for name, entry in entries.items()},
        "search": [
            {k: v for k, v in vars(i).items() if k != "plan"} | {"rate": i.macs / history[0].macs}
            for i in history
        ],
        **_of_steps({name: entry["facts"] for name, entry in entries.items()}),
        "epochs": [row for row in context.log.rows() if row["phase"] in entries and row.keys() >= LOGGED],
        "test_reads": context.splits.test_reads,
    }


def _of_steps(facts: dict[str, dict]) -> dict:
    """What steps have noted of themselves, by step."""
    taught = {name: fact["learning"] for name, fact in facts.items() if "learning" in fact}
    stages = [fact for fact in facts.values() if "holdout_stale_averages" in fact]
    given = [learning for learning in taught.values() if "student" in learning]
    return {
        "rounded": {name: fact for name, fact in facts.items() if "rounded" in fact},
        "shared": {name: fact["kernels"] for name, fact in facts.items() if "kernels" in fact},
        "stages": stages[0] | {"holdout_reestimated": stages[0]["holdout_after"]} if len(stages) == 1 else {},
        "sensitivity": next((fact["sensitivity"] for fact in facts.values() if "sensitivity" in fact), None),
        "learning": given[-1] if given else None,
        "taught": {name: learning for name, learning in taught.items() if "student" not in learning},
        "landscapes": {name: fact["landscape"] for name, fact in facts.items() if "landscape" in fact},
        "cuts": [{"step": name} | fact for name, fact in facts.items() if "holdout_before" in fact],
        "tried": next((_tried(fact) for fact in facts.values() if "tried" in fact), []),
        "bank": next((fact for fact in facts.values() if "losses" in fact), {}),
        "litert": facts.get("litert", {}),
        "reestimated": [
            name for name, fact in facts.items() if fact.get("reestimated") and not _dropped(fact)
        ],
        "dropped": {name: fact for name, fact in facts.items() if _dropped(fact)},
        "not_finite": {
            name: {key: fact[key] for key in ("skipped", "rewinds") if key in fact}
            for name, fact in facts.items()
            if fact.keys() & {"skipped", "rewinds"}
        },
    }


def _dropped(fact: dict) -> bool:
    """Whether a training was too short: the network before it stayed."""
    return fact.get("holdout_trained", 1) < fact.get("holdout_untrained", 0)


def _tried(fact: dict) -> list[dict]:
    """Plans that were tried, and which of them was chosen."""
    return [one | {"chosen": one["name"] == fact["chosen"]} for one in fact["tried"]]


def measured(value: float | None, metric: str) -> str:
    """A metric in words: shares, and R², in percent."""
    if value is None:
        return "–"
    return f"{100 * value:.2f} %" if metric in IN_PERCENT else f"{value:.4f}"


def ensemble_of(members: int, metric: str) -> str:
    """What a line calls several networks, and what of them is averaged."""
    mean = "softmax" if metric in (METRICS["classes"], METRICS["maps"]) else "outputs"
    return f"ensemble of {members} (mean of {mean})"


def tried_table(tried: Sequence[dict], metric: str = "accuracy") -> str:
    """A line for each plan that was tried."""
    titles = ("plan", "MACs", "hold-out after pruning", "seconds", "")
    cells = [
        (
            one["name"],
            number(one["macs"], ","),
            measured(one["holdout"], metric),
            f"{one['seconds']:.1f}",
            "chosen" if one["chosen"] else one["reason"],
        )
        for one in tried
    ]
    return table(titles, cells, wrap=12)


def plan_widths(plan: Plan | None) -> list[dict]:
    """A row for each group: its width before and after."""
    keep = plan.keep.items() if plan else ()
    return [{"group": name, "before": plan.sizes[name], "after": len(kept)} for name, kept in keep]


def left_whole(model: keras.Model) -> list[dict]:
    """Layers of somebody's own model whose channels all stay, and why."""
    return [vars(row) for row in analyse(model).untouched]


def when_and_where() -> dict:
    """What a report says of how it was made."""
    date = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
    return {"command": command_line(), "date": date, "machine": machine()}


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


def _scores(
    context: RunContext, networks: dict[str, keras.Model], members: Sequence[str], parts: dict[str, Images]
) -> tuple[dict[str, dict[str, Score]], dict]:
    """By network and part how good it is; by part how good `members` are together, if there are any."""
    config = context.config
    if not context.splits.facts.labelled:
        unknown = {part: Score(None, None, len(images)) for part, images in parts.items()}
        return dict.fromkeys(networks, unknown), {}
    forwards = {
        name: make_forward(model, context.inputs, config.bn == "batch", config.compile)
        for name, model in networks.items()
    }
    found = {part: _part_scores(context, forwards, members, images) for part, images in parts.items()}
    scores = {name: {part: own[name] for part, (own, _) in found.items()} for name in networks}
    together = {f"{part}_accuracy": accuracy for part, (_, accuracy) in found.items()}
    return scores, {"members": len(members), **together} if members else {}


def _part_scores(
    context: RunContext, forwards: Mapping[str, Callable], members: Sequence[str], images: Images
) -> tuple[dict[str, Score], float | None]:
    """How good each network is, and accuracy of the mean of probabilities of `members`, piece by piece."""
    size, task, pieces, together = context.config.val_batch_size, context.subject.task, [], []
    for piece in pieces_of(images, size, task):
        logits = {name: forward(piece.images, size) for name, forward in forwards.items()}
        pieces.append({name: context.scored(own, piece) for name, own in logits.items()})
        if members:
            right = ensemble_accuracy([logits[name] for name in members], piece.labels, task)
            together.append(Score(None, right, len(piece)))
    scores = {name: mean_of([piece[name] for piece in pieces]) for name in forwards}
    return scores, mean_of(together).accuracy if members else None


def _timed(
    context: RunContext, plain: dict[str, keras.Model], lite: dict[str, bytes], parts: dict[str, Images]
) -> dict[str, dict]:
    """Size and milliseconds of the networks' files, by name.

    Networks are timed in turns: one after the other, a slow minute would hit one of them alone.
    """
    images = timed_batch(context, parts)
    timed = {
        "ms_frozen": {n: exports.frozen_runner(model, len(images[0])) for n, model in plain.items()},
        "ms_litert": {n: exports.litert_runner(data, len(images[0])) for n, data in lite.items()},
    }
    ms = {
        key: least({n: partial(run, *images) for n, run in each.items()}, context.config.time_seconds)
        for key, each in timed.items()
        if each
    }
    return {
        name: {
            "file_bytes": len(lite[name]) if lite else None,
            "batch": len(images[0]),
            **{key: ms[key][name] if key in ms else None for key in timed},
        }
        for name in plain
    }


def _row(name: str, model: keras.Model, scores: dict[str, Score]) -> dict:
    cost = complexity(model)
    return {
        "name": name,
        "params": cost.params,
        "macs": cost.macs,
        "flops_ekg": complexity(model, "ekg").macs,
        **{f"{part}_accuracy": found.accuracy for part, found in scores.items()},
        **{f"{part}_top5_accuracy": found.top5 for part, found in scores.items() if found.top5 is not None},
    }


def print_table(report: dict) -> None:
    """Before and after, a row per network, a ratio to the first behind each cost."""
    metric = report.get("metric", "accuracy")
    if tried := report.get("tried"):
        print(f"\n{tried_table(tried, metric)}")
    print(f"\n{report['system']} · {report['config']['arch']} · {report['config']['dataset']}")
    print(_table("network", report["rows"], PRINTED, metric))
    for sentence in timed_apart(report["rows"])[:1]:  # the page has all of them
        print(sentence)
    if not report["test_reads"]:
        print(held_out(report))
    if skipped := left_out(report):
        print(skipped)
    if rows := report.get("files"):
        print(_table("file", rows, FILE_COLUMNS, metric))
    if together := report.get("ensemble"):
        names = {"holdout_accuracy": "hold-out", "test_accuracy": "test"}
        found = [
            f"{name} {measured(together[key], metric)}" for key, name in names.items() if key in together
        ]
        print(f"{ensemble_of(together['members'], metric)}: {', '.join(found)}")


def _table(first: str, rows: Sequence[dict], columns: Sequence[tuple[str, str, str]], metric: str) -> str:
    columns = [column for column in columns if column[0] in rows[0]]
    cells = [
        [row["name"], *(_cell(row, rows[0], key, style, metric) for key, _, style in columns)] for row in rows
    ]
    titles = [title.replace("accuracy", metric) for _, title, _ in columns]
    return table([first, *titles], cells, wrap=12)


def _cell(row: dict, first: dict, key: str, style: str, metric: str) -> str:
    if key.endswith("accuracy"):
        return measured(row[key], metric)
    if row[key] is None:
        return "–"
    return style.format(row[key]) + ("" if row is first else f" ({ratio(row, first, key)})")
