"""The section of the report page on the files that a run made of its network: fewer bytes, same network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from secateur.runs.learning_text import joined
from secateur.runs.markup import Markup, element
from secateur.runs.page_parts import details, note, section
from secateur.runs.page_table import compared
from secateur.runs.wording import percent, ratio

FILE_COLUMNS = (
    ("bytes", "bytes", "{:,}"),
    ("ms_litert", "ms per batch, LiteRT", "{:.1f}"),
    ("holdout_accuracy", "hold-out accuracy", "{:.2f} %"),
    ("test_accuracy", "test accuracy", "{:.2f} %"),
)


def files_sentence(report: Mapping[str, Any]) -> str:
    """Bytes of every file beside those of the first, for the headline; "" without files."""
    rows = report.get("files") or []
    if not rows:
        return ""
    others = [f"{row['bytes']:,} as {row['name']} ({ratio(row, rows[0], 'bytes')})" for row in rows[1:]]
    return f" Of {rows[0]['bytes']:,} bytes in float32 there are left {joined(others)}."


def files_section(report: Mapping[str, Any]) -> Markup:
    """A line per file, each read back; empty where the run made none."""
    rows = report.get("files") or []
    if not rows:
        return Markup()
    remark = (
        "Each file was read back and run: .tflite files by LiteRT, .kpz files as the Keras model that they "
        "decode to. Times are those of the fastest call, the files taking turns."
    )
    notes = [note(remark), *(note(_rounded(*one)) for one in (report.get("rounded") or {}).items())]
    shown = element("div", compared(rows, FILE_COLUMNS, "file"), class_="scroll")
    return section("Files", shown, *notes, *_shared(report))


def _rounded(step: str, facts: Mapping[str, float]) -> str:
    """What a step that rounds to 8 bits has seen on the hold-out images."""
    trained = f", {percent(facts['trained'])} trained so; the better is kept" if "trained" in facts else ""
    return (
        f"{step}: {percent(facts['float32'])} of the hold-out images in float32, {percent(facts['rounded'])} "
        f"in whole numbers{trained}."
    )


def _shared(report: Mapping[str, Any]) -> list[Markup]:
    """A table to open for each step that made weights equal."""
    titles = (
        "kernel",
        "bits",
        "weights",
        "zeros",
        "values before",
        "values",
        "squared error",
        "bytes, about",
    )
    keys = ("kernel", "bits", "weights", "zeros", "distinct", "values", "error", "bytes")
    return [
        details(f"Kernels of {step}", titles, [[_cell(row[key]) for key in keys] for row in kernels])
        for step, kernels in (report.get("shared") or {}).items()
    ]


def _cell(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
