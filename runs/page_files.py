"""The section of the report page on the files that a run made of its network: fewer bytes, same network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runs.markup import Markup, element
from runs.page_parts import note, section
from runs.page_table import compared

FILE_COLUMNS = (
    ("bytes", "bytes", "{:,}"),
    ("ms_litert", "ms per batch, LiteRT", "{:.1f}"),
    ("holdout_accuracy", "hold-out accuracy", "{:.2f} %"),
    ("test_accuracy", "test accuracy", "{:.2f} %"),
)


def files_section(report: Mapping[str, Any]) -> Markup:
    """A line per file, each read back; empty where the run made none."""
    rows = report.get("files") or []
    if not rows:
        return Markup()
    remark = (
        "Each file was read back and run: .tflite files by LiteRT, .kpz files as the Keras model that they "
        "decode to. Times are those of the fastest call, the files taking turns."
    )
    return section(
        "Files", element("div", compared(rows, FILE_COLUMNS, "file"), class_="scroll"), note(remark)
    )
