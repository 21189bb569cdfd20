"""What the report page says of a distillation: its headline, and what was learnt from whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from secateur.runs.learning_text import UNWEIGHTED, filter_text, joined, loss_options
from secateur.runs.markup import Markup, element
from secateur.runs.page_parts import note, section, table
from secateur.runs.wording import accuracy, number, ratio, si

BEFORE = {"student": "student before"}  # what a row is called in the sentence on what the student reaches


def distilled(report: Mapping[str, Any]) -> str:
    """What the student reaches, beside its teachers and itself before; its size, where that differs too."""
    rows = report["rows"]
    last = rows[-1]
    others = [f"{BEFORE.get(row['name'], row['name'])} {accuracy(row)} %" for row in rows[:-1]]
    beside = f" ({', '.join(others)})" if others else ""
    return f"The student reaches {accuracy(last)} % on the test images{beside}. {_size(rows)}."


def learning_section(report: Mapping[str, Any]) -> Markup:
    """Losses with weight, options and their means in the last epoch; teachers; how the student began."""
    learning = report.get("learning")
    if not learning:
        return Markup()
    titles = ("loss", "weight", "options", "mean in the last epoch", "times its weight")
    losses = table(titles, _losses(report))
    teachers = [(t["arch"], t["file"], t["sha256"][:12]) for t in learning["teachers"]]
    who = table(("teacher", "file", "SHA-256 begins"), teachers) if teachers else ""
    parts = [element("div", part, class_="scroll learning") for part in (losses, who) if part]
    return section("Learning", *parts, note(_remark(learning)))


def part_names(epochs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names of the parts of the loss that were logged, in their order."""
    keys = dict.fromkeys(key for row in epochs for key in row if key.startswith(UNWEIGHTED))
    return [key.removeprefix(UNWEIGHTED) for key in keys]


# --- parts -------------------------------------------------------------------------------------------------


def _size(rows: Sequence[Mapping[str, Any]]) -> str:
    first, last = rows[0], rows[-1]
    if first is last or first["name"] == "slimmed":
        return f"It has {last['params']:,} parameters and {si(last['macs'])} MACs"
    name = {"teacher": "the teacher", "student": "itself before"}.get(first["name"], first["name"])
    if all(first[key] == last[key] for key in ("params", "macs")):
        return f"It is as large as {name}: {last['params']:,} parameters, {si(last['macs'])} MACs"
    parts = [
        f"{last['params']:,} parameters ({ratio(last, first, 'params')})",
        f"{si(last['macs'])} MACs ({ratio(last, first, 'macs')})",
    ]
    if None not in (first.get("ms_litert"), last.get("ms_litert")):
        time = f"{last['ms_litert']:.1f} ms per batch of {last.get('batch')} on LiteRT"
        parts.append(f"{time} ({ratio(last, first, 'ms_litert')})")
    return f"Beside {name} it has {joined(parts)}"


def _losses(report: Mapping[str, Any]) -> list[tuple]:
    """The cross-entropy, then each loss; one that moves filters is no part of the sum and has no mean."""
    learning, epochs = report["learning"], report.get("epochs") or [{}]
    several = len(learning["teachers"]) > 1 and not learning.get("filter")
    entropy = {"name": "cross_entropy", "weight": learning["label_weight"], "options": {}}
    return [
        _loss(loss, loss_options(loss, several), epochs[-1].get(UNWEIGHTED + loss["name"]))
        for loss in (entropy, *learning["losses"])
    ]


def _loss(loss: Mapping[str, Any], options: str, mean: float | None) -> tuple:
    weighted = None if mean is None else mean * loss["weight"]
    moves = "moves filters" if loss.get("moves_kernels") else ""
    words = ", ".join(word for word in (options, moves) if word)
    return loss["name"], f"{loss['weight']:g}", words or "–", number(mean, ".4g"), number(weighted, ".4g")


def _remark(learning: Mapping[str, Any]) -> str:
    sentences = [f"The student, {learning['student']['arch']}, began with {learning['student']['start']}."]
    if learning.get("filter"):
        sentences.append(f"Teachers{filter_text(learning)}.".replace(",", "", 1))
    if learning.get("kept_teachers"):
        kept = [str(i) for i, stays in enumerate(learning["kept_teachers"], 1) if stays]
        sentences.append(f"Teachers that stayed: {joined(kept)}.")
    if learning.get("stored"):
        sentences.append("Teachers ran once on every image, and their stored logits answered from then on.")
    return " ".join(sentences)
