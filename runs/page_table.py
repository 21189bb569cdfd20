"""The first section of the report page: the networks of a run, side by side."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from secateur.runs.markup import Markup, element
from secateur.runs.page_parts import note, section
from secateur.runs.page_recipe import ensemble_note
from secateur.runs.wording import ratio

COLUMNS = (
    ("params", "parameters", "{:,}"),
    ("macs", "MACs", "{:,}"),
    ("flops_ekg", "operations, EKG’s count", "{:,}"),
    ("file_bytes", "LiteRT file, bytes", "{:,}"),
    ("ms_litert", "ms per batch, LiteRT", "{:.1f}"),
    ("ms_frozen", "ms per batch, TensorFlow", "{:.1f}"),
    ("holdout_accuracy", "hold-out accuracy", "{:.2f} %"),
    ("test_accuracy", "test accuracy", "{:.2f} %"),
)


def before_and_after(report: dict) -> Markup:
    """The section with a line per network; empty where nothing was measured."""
    rows = report.get("rows") or []
    if not rows:
        return Markup()
    unasked = {"flops_ekg"} if report.get("learning") else set()  # nothing was budgeted in EKG's count
    columns = [c for c in COLUMNS if c[0] not in unasked and any(c[0] in row for row in rows)]
    networks = compared(rows, columns, "network")
    notes = map(note, _caveats(report))
    return section(
        "Before and after", element("div", networks, class_="scroll"), ensemble_note(report), *notes
    )


def compared(rows: Sequence[dict], columns: Sequence[tuple[str, str, str]], first: str) -> Markup:
    """Rows beside the first of them; `columns` are (key, title, style), `first` is the title of the names."""
    titles = element("tr", *(element("th", t, scope="col") for t in (first, *(c[1] for c in columns))))
    return element(
        "table",
        element("caption", "In grey: per cent of the first row, or the difference in points"),
        element("thead", titles),
        element("tbody", *(_line(row, rows[0], columns) for row in rows)),
    )


def _line(row: dict, first: dict, columns: Sequence[tuple[str, str, str]]) -> Markup:
    cells = (_cell(row, first, key, style) for key, _, style in columns)
    return element("tr", element("th", row["name"], scope="row"), *cells)


def _cell(row: dict, first: dict, key: str, style: str) -> Markup:
    value, before = row.get(key), first.get(key)
    if value is None:
        return element("td", "–")
    accuracy = key.endswith("accuracy")
    small = ""
    if row is not first and before is not None:
        change = f"{100 * (value - before):+.2f}".replace("-", "−") if accuracy else ratio(row, first, key)
        small = element("small", change)
    return element("td", style.format(100 * value if accuracy else value), small)


def _caveats(report: dict) -> list[str]:
    """What a reader must know to read the table rightly."""
    rows, machine = report["rows"], report.get("machine") or {}
    devices = " + ".join(machine.get("devices") or ["CPU"])
    where = f"{machine.get('processor', 'an unknown processor')} ({devices})"
    notes = [
        "Times are those of the fastest call, the networks taking turns, for a batch of "
        f"{rows[0].get('batch')} float32 images on {where}."
    ]
    notes += _timing_noise(rows)
    if inputs := report.get("inputs"):
        mean, std = (", ".join(f"{value:g}" for value in inputs[key]) for key in ("mean", "std"))
        notes.append(f"The networks read (pixels of 0 to 255 − ({mean})) ÷ ({std}) and give logits.")
    notes.append("Parameters are those that training moves: the averages of BN are none.")
    if report.get("bn") == "batch":
        notes.append(
            "Accuracies use the BN statistics of each evaluated batch, as EKG’s program does: they depend on "
            "how the images are batched."
        )
    reads = report.get("test_reads")
    if reads is not None:
        notes.append(
            f"The test images were read {'once, for this table' if reads == 1 else f'{reads} times'}."
        )
    return notes


def _timing_noise(rows: Sequence[dict]) -> list[str]:
    """Where twins were timed apart, their difference is the error of the measurement."""
    twins = [
        (a, b)
        for a, b in itertools.combinations(rows, 2)
        if (a["params"], a["macs"]) == (b["params"], b["macs"])
    ]
    return [
        f"{a['name']} and {b['name']} are the same architecture, yet {title} took {a[key]:.1f} and "
        f"{b[key]:.1f} ms: take no difference of that size for a gain or a loss."
        for a, b in twins
        for key, title in (("ms_litert", "LiteRT"), ("ms_frozen", "TensorFlow"))
        if None not in (a.get(key), b.get(key)) and max(a[key], b[key]) > 1.1 * min(a[key], b[key])
    ]
