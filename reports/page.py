"""report.json as one page that stands alone: tables and pictures, no script, nothing from a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, pass_context

from secateur.reports import words
from secateur.reports.costs import costs_rows, sentence
from secateur.reports.words import (
    UNWEIGHTED,
    Report,
    clean,
    in_percent,
    loss_options,
    marked,
    ratio,
    summary,
    timed_apart,
)
from secateur.runs.text import number


class Column(NamedTuple):
    """A column of numbers of rows: accuracies are fractions and shown in per cent."""

    key: str
    title: str
    style: str


COLUMNS = (
    Column("params", "parameters", "{:,}"),
    Column("macs", "MACs", "{:,}"),
    Column("flops_ekg", "operations, EKG’s count", "{:,}"),
    Column("file_bytes", "LiteRT file, bytes", "{:,}"),
    Column("ms_litert", "ms per batch, LiteRT", "{:.1f}"),
    Column("ms_frozen", "ms per batch, TensorFlow", "{:.1f}"),
    Column("holdout_accuracy", "hold-out accuracy", "{:.2f} %"),
    Column("test_accuracy", "test accuracy", "{:.2f} %"),
    Column("holdout_top5_accuracy", "hold-out top-5", "{:.2f} %"),
    Column("test_top5_accuracy", "test top-5", "{:.2f} %"),
)
FILE_COLUMNS = (Column("bytes", "bytes", "{:,}"), *(COLUMNS[k] for k in (4, 6, 7)))
PHASES = {
    "baseline": "Baseline training",
    "warm_up": "Warm-up before the search",
    "fine_tune": "Fine-tuning of the slimmed network",
}


def run_page(report: Report) -> str:
    """The page for the dict that report.json holds; every text in it is escaped.

    Parts that a run did not have (search, bank, stages, epochs, seconds) are left out.
    """
    report = marked(clean(report))
    config = report.get("config") or {}
    data = f" on {config['dataset']}" if config.get("dataset") else ""
    subject, costs = f"{config.get('arch', 'network')}{data}", costs_rows(report)
    rows, learning = report.get("rows") or [], report.get("learning")
    unasked = {"flops_ekg"} if learning else set()  # nothing was budgeted in EKG's count
    epochs = report.get("epochs") or []
    kept = enumerate((learning or {}).get("kept_teachers") or [], 1)
    sliced = report.get("stages") or not learning
    return render(
        "run.html.j2",
        report,
        title=f"{subject} · {report.get('system', 'pruned')}",
        summary=sentence(costs).replace(" %", "\u00a0%") if costs and not rows else summary(report),
        costs=costs,
        columns=[c for c in COLUMNS if c.key not in unasked and any(c.key in row for row in rows)],
        file_columns=FILE_COLUMNS,
        unlike=timed_apart(rows),
        losses=_losses(report) if learning else [],
        kept_teachers=[str(number) for number, stays in kept if stays],
        phases={row["phase"]: [r for r in epochs if r["phase"] == row["phase"]] for row in epochs},
        phase_titles=PHASES if sliced else PHASES | {"fine_tune": "Training of the student"},
        epoch_columns=_epoch_columns(report),
        costs_differ=not learning or len({(row["params"], row["macs"]) for row in rows}) > 1,
        config=json.dumps(config, indent=2, ensure_ascii=False),
    )


# --- templates ----------------------------------------------------------------------------------------------


def render(template: str, report: Report, **values: Any) -> str:
    """A page made by one of the templates from the report, which is `clean`, and the values."""
    return _TEMPLATES.get_template(template).render(report=report, **values)


def _draw(name: str, report: Report) -> list:
    from secateur.reports.pictures import draw  # matplotlib: a second to import

    return draw(name, report)


def _cell(row: Report, column: Column) -> str:
    value = row.get(column.key)
    if value is None:
        return "–"
    return words.measured(value, row) if column.key.endswith("accuracy") else column.style.format(value)


def _change_of(row: Report, first: Report, column: Column) -> str:
    """What became of the first row's number: per cent of it, or the difference in points."""
    value, before = row.get(column.key), first.get(column.key)
    if row is first or None in (value, before):
        return ""
    if column.key.endswith("accuracy"):
        points = f"{100 * (value - before):+.2f}" if in_percent(row) else f"{value - before:+.4g}"
        return points.replace("-", "−")
    return ratio(row, first, column.key)


def _plain(value: Any) -> str:
    """A value of a table whose types are mixed."""
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value


_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.globals |= {
    "draw": _draw,
    "cut_groups": lambda widths: sum(row["after"] < row["before"] for row in widths),
}
_TEMPLATES.filters |= {
    **{
        name: getattr(words, name)
        for name in (
            "duration",
            "percent",
            "joined",
            "held_out",
            "left_out",
            "not_finite_text",
            "learning_text",
            "filter_text",
        )
    },
    "accuracy": words.accuracy_of,
    "measured": pass_context(lambda context, value: words.measured(value, context["report"])),
    "part": words.part_of,
    "number": number,
    "cell": _cell,
    "change": _change_of,
    "plain": _plain,
    "kept": lambda ratio: f"{100 * ratio:g} % kept",
    "listed": lambda value: ", ".join(map(str, value)) if isinstance(value, list) else value,
}


# --- data of tables -----------------------------------------------------------------------------------------


def _losses(report: Report) -> list[tuple]:
    """The loss on labels, then each other; one that moves filters is no part of the sum and has no mean."""
    learning, epochs = report["learning"], report.get("epochs") or [{}]
    name = learning.get("labels", "cross_entropy")
    of_labels = {"name": name, "weight": learning["label_weight"], "options": {}}
    rows = []
    for loss in (of_labels, *learning["losses"]):
        mean = epochs[-1].get(UNWEIGHTED + loss["name"])
        weighted = None if mean is None else mean * loss["weight"]
        moves = "moves filters" if loss.get("moves_kernels") else ""
        options = ", ".join(filter(None, (loss_options(loss, learning), moves))) or "–"
        rows.append(
            (loss["name"], f"{loss['weight']:g}", options, number(mean, ".4g"), number(weighted, ".4g"))
        )
    return rows


def _epoch_columns(report: Report) -> list[Column]:
    """What was logged of an epoch: losses, accuracies, the learning rate, and the parts of the loss."""
    parts = dict.fromkeys(
        key for row in report.get("epochs") or [] for key in row if key.startswith(UNWEIGHTED)
    )
    return [
        Column("loss", "training loss", "{:.4f}"),
        Column("accuracy", "training accuracy", "{:.2f} %"),
        Column("holdout_loss", "hold-out loss", "{:.4f}"),
        Column("holdout_accuracy", "hold-out accuracy", "{:.2f} %"),
        Column("learning_rate", "learning rate", "{:.3g}"),
        *(Column(key, f"{key.removeprefix(UNWEIGHTED)}, unweighted", "{:.4g}") for key in parts),
    ]
