"""What became of a network, in one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from secateur.reports.words import accuracy_of, joined, part_of, percent, ratio, si

Report = Mapping[str, Any]


def summary(report: Report) -> str:
    """First network → last network in one sentence; of a distillation what the student has learnt."""
    rows = report.get("rows") or []
    if not rows:
        return "Nothing was measured."
    sentence = _distilled(rows) if report.get("learning") else _change(rows) if rows[1:] else _alone(rows[0])
    return (sentence + _bytes(report.get("files") or [])).replace(
        " %", "\u00a0%"
    )  # no line begins with the sign


def _accuracy(row: Report) -> str:
    return percent(accuracy_of(row))


def _alone(row: Report) -> str:
    return f"{row['params']:,} parameters, {si(row['macs'])} MACs, {part_of(row)} accuracy {_accuracy(row)}."


def _change(rows: Sequence[Report]) -> str:
    first, last = rows[0], rows[-1]
    parts = [
        f"{first['params']:,} → {last['params']:,} parameters ({ratio(last, first, 'params')})",
        f"{si(first['macs'])} → {si(last['macs'])} MACs ({ratio(last, first, 'macs')})",
    ]
    if None not in (first.get("ms_litert"), last.get("ms_litert")):
        times = f"{first['ms_litert']:.1f} → {last['ms_litert']:.1f} ms per batch of {last.get('batch')}"
        parts.append(f"{times} on LiteRT ({ratio(last, first, 'ms_litert')})")
    parts.append(f"{part_of(first)} accuracy {_accuracy(first).removesuffix(' %')} → {_accuracy(last)}")
    tail = " (slimmed; not fine-tuned)" if last["name"] == "slimmed" else ""
    return f"{', '.join(parts)}{tail}."


def _distilled(rows: Sequence[Report]) -> str:
    """What the student reaches, beside its teachers and itself before; its size, where that differs too."""
    names = {"student": "student before"}
    others = [f"{names.get(row['name'], row['name'])} {_accuracy(row)}" for row in rows[:-1]]
    beside = f" ({', '.join(others)})" if others else ""
    return (
        f"The student reaches {_accuracy(rows[-1])} on the {part_of(rows[-1])} images{beside}. {_size(rows)}."
    )


def _size(rows: Sequence[Report]) -> str:
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


def _bytes(files: Sequence[Report]) -> str:
    """Bytes of every file beside those of the first; "" without files."""
    others = [f"{row['bytes']:,} as {row['name']} ({ratio(row, files[0], 'bytes')})" for row in files[1:]]
    return f" Of {files[0]['bytes']:,} bytes in float32 there are left {joined(others)}." if files else ""
