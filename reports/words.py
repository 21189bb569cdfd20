"""A report in words: its numbers, what became of a network, what it learns from. Unknown is a dash."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Report = Mapping[str, Any]  # report.json, or a part of it

ILLEGAL = re.compile(
    "[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]"
)  # characters that XML and UTF-8 refuse


def clean(value: Any) -> Any:
    """What report.json holds with � for every character that no page can hold."""
    if isinstance(value, str):
        return ILLEGAL.sub("\ufffd", value)
    if isinstance(value, Mapping):
        return {clean(key): clean(inner) for key, inner in value.items()}
    return [clean(inner) for inner in value] if isinstance(value, list | tuple) else value


# --- numbers ------------------------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    """1.2 s, 3 min 5 s, 2 h 7 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def si(value: float) -> str:
    """40.8 M, 1.27 G."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def short(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}"


def percent(value: float | None) -> str:
    """0.9123 → 91.23 %."""
    return "–" if value is None else f"{100 * value:.2f} %"


def in_percent(report: Report) -> bool:
    """Whether accuracies are ratios: a report whose metric is none says so, and so do its `marked` rows."""
    return report.get("in_percent", True)


def measured(value: float | None, report: Report) -> str:
    """An accuracy of the report or row: 91.23 %, or a plain number where it is no ratio."""
    return percent(value) if value is None or in_percent(report) else f"{value:.4g}".replace("-", "−")


def marked(report: Report) -> Report:
    """The same, whose rows say themselves that what stands for accuracies is no ratio."""
    if in_percent(report):
        return report
    rows = {key: report[key] for key in ("rows", "files", "epochs") if report.get(key)}
    return report | {key: [row | {"in_percent": False} for row in some] for key, some in rows.items()}


def part_of(row: Report) -> str:
    """Which images a row's accuracy is of: "test", or "hold-out" where there are no test images."""
    return "hold-out" if "test_accuracy" not in row and "holdout_accuracy" in row else "test"


def accuracy_of(row: Report) -> float | None:
    """On these images."""
    return row.get("holdout_accuracy" if part_of(row) == "hold-out" else "test_accuracy")


def ratio(row: Report, first: Report, key: str) -> str:
    """What is left of `first[key]` in `row`, in whole per cent."""
    return f"{row[key] / first[key]:.0%}".replace("%", " %") if first.get(key) else "–"


def fit(text: str, size: int = 20) -> str:
    """One line of at most `size` characters, the last of them … where some had to go."""
    text = " ".join(text.split())
    return text if len(text) <= size else f"{text[: size - 1]}…"


def joined(words: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def held_out(report: Report) -> str:
    """Of which images accuracies are where there are no test images, and what those have chosen."""
    if all(row.get("holdout_accuracy") is None for row in report.get("rows") or [{}]):
        return "There are no accuracies: the images have no labels that the model learns."
    chosen = ["the plan and whether its training is kept"] if report.get("tried") else []
    if any("trained" in fact for fact in (report.get("rounded") or {}).values()):
        chosen.append("the better of two int8 files")
    which = f", which chose {joined(chosen)}" if chosen else ""
    return f"There are no test images: accuracies are of images held out of the training{which}."


def left_out(report: Report) -> str:
    """How many image files could not be read and are missing, by part; "" where there are none."""
    found = report.get("skipped") or {}
    parts = joined([f"{count} of {part}" for part, count in found.items()])
    return f"Image files that could not be read were left out: {parts}." if found else ""


def timed_apart(rows: Sequence[Report]) -> list[str]:
    """A sentence for each two networks of one architecture whose times differ by more than a tenth."""
    return [
        f"{a['name']} and {b['name']} are the same architecture, yet {program} took {a[key]:.2f} and "
        f"{b[key]:.2f} ms: take no difference of that size for a gain or a loss."
        for a, b in itertools.combinations(rows, 2)
        if (a["params"], a["macs"]) == (b["params"], b["macs"])
        for key, program in (("ms_litert", "LiteRT"), ("ms_frozen", "TensorFlow"))
        if None not in (a.get(key), b.get(key)) and max(a[key], b[key]) > 1.1 * min(a[key], b[key])
    ]


# --- what became of a network, in one sentence --------------------------------------------------------------


def summary(report: Report) -> str:
    """First network → last network in one sentence; of a distillation what the student has learnt."""
    rows = marked(report).get("rows") or []
    if not rows:
        return "Nothing was measured."
    sentence = _distilled(rows) if report.get("learning") else _change(rows) if rows[1:] else _alone(rows[0])
    sentence += _bytes_left(report.get("files") or [])
    return sentence.replace(" %", "\u00a0%")  # no line begins with the sign


def _accuracy(row: Report) -> str:
    return measured(accuracy_of(row), row)


def _alone(row: Report) -> str:
    return f"{row['params']:,} parameters, {si(row['macs'])} MACs, {part_of(row)} accuracy {_accuracy(row)}."


def _change(rows: Sequence[Report]) -> str:
    first, last = rows[0], rows[-1]
    parts = _costs(first, last, both=True)
    parts.append(f"{part_of(first)} accuracy {_accuracy(first).removesuffix(' %')} → {_accuracy(last)}")
    tail = " (slimmed; not fine-tuned)" if last["name"] == "slimmed" else ""
    return f"{', '.join(parts)}{tail}."


def _costs(first: Report, last: Report, both: bool) -> list[str]:
    """Each cost of the last network, behind that of the first if `both`, and what part of it that is."""
    shown = [("params", "{:,}".format, "parameters"), ("macs", si, "MACs")]
    if None not in (first.get("ms_litert"), last.get("ms_litert")):
        shown.append(("ms_litert", "{:.1f}".format, f"ms per batch of {last.get('batch')} on LiteRT"))
    return [
        f"{f'{text(first[key])} → ' if both else ''}{text(last[key])} {unit} ({ratio(last, first, key)})"
        for key, text, unit in shown
    ]


def _distilled(rows: Sequence[Report]) -> str:
    """What the student reaches, beside its teachers and itself before; its size, where that differs too."""
    last, names = rows[-1], {"student": "student before"}
    others = [f"{names.get(row['name'], row['name'])} {_accuracy(row)}" for row in rows[:-1]]
    beside = f" ({', '.join(others)})" if others else ""
    return f"The student reaches {_accuracy(last)} on the {part_of(last)} images{beside}. {_size(rows)}."


def _size(rows: Sequence[Report]) -> str:
    first, last = rows[0], rows[-1]
    if first is last or first["name"] == "slimmed":
        return f"It has {last['params']:,} parameters and {si(last['macs'])} MACs"
    name = {"teacher": "the teacher", "student": "itself before"}.get(first["name"], first["name"])
    if all(first[key] == last[key] for key in ("params", "macs")):
        return f"It is as large as {name}: {last['params']:,} parameters, {si(last['macs'])} MACs"
    return f"Beside {name} it has {joined(_costs(first, last, both=False))}"


def _bytes_left(files: Sequence[Report]) -> str:
    """Bytes of every file beside those of the first; "" without files."""
    others = [f"{row['bytes']:,} as {row['name']} ({ratio(row, files[0], 'bytes')})" for row in files[1:]]
    return f" Of {files[0]['bytes']:,} bytes in float32 there are left {joined(others)}." if files else ""


def not_finite_text(found: Report) -> str:
    """What a training did where loss or gradient were not finite: steps that it skipped, rewinds."""
    parts = []
    if skipped := found.get("skipped"):
        parts.append(f"{skipped} steps whose loss or gradient was not finite were skipped")
    if rewinds := found.get("rewinds"):
        parts.append(
            f"the loss stopped being finite {rewinds} times, each time it went back to the last checkpoint "
            f"and halved the learning rate, to {0.5**rewinds:g} of what was asked"
        )
    return "; ".join(parts)


# --- what a network learns from, of `learning` in report.json -----------------------------------------------

UNWEIGHTED = "unweighted_"  # before the name of a part of the loss, in metrics.jsonl
FACTORS = {"T2": "T²", "T": "T", "1": "not multiplied by T"}
# What an option of a loss is called where its name alone would not say it.
OPTIONS: dict[str, Callable[[Any], str]] = {
    "temperature": lambda value: f"T {value:g}",
    "factor": lambda value: FACTORS.get(value, value),
    "mean": lambda value: f"mean of {'divergences' if value == 'kl' else value}",
    "over_classes": lambda value: "÷ classes",
    "weights": lambda value: f"teachers weighted {', '.join(f'{weight:g}' for weight in value)}",
    "teacher_blocks": lambda value: f"{value} teacher block{'s' if value > 1 else ''}",
    "stages": lambda value: f"{value} stage{'s' if value > 1 else ''}",
}
OF_SEVERAL = ("mean", "weights")  # options that one teacher alone leaves without effect


def learning_text(learning: Report) -> str:
    """learning from res56.pkl (ResNet-56): cross-entropy ×1 + kd ×0.9 (T 4, T²)."""
    teachers = ", ".join(f"{teacher['file']} ({teacher['arch']})" for teacher in learning["teachers"])
    if not learning["losses"]:
        teachers = "the labels alone"
    return f"learning from {teachers}{filter_text(learning)}: {objective_text(learning)}"


def objective_text(learning: Report) -> str:
    """cross-entropy ×1 + kd ×0.9 (T 4, T²) + hap ×700 (3 teacher blocks)."""
    labels = learning.get("labels", "cross_entropy").replace("cross_entropy", "cross-entropy")
    parts = [f"{labels} ×{learning['label_weight']:g}"]
    parts += [_term(loss, learning) for loss in learning["losses"] if not loss["moves_kernels"]]
    moves = [_term(loss, learning) for loss in learning["losses"] if loss["moves_kernels"]]
    return " + ".join(parts) + "".join(f"; filters moved by {text}" for text in moves)


def filter_text(learning: Report) -> str:
    """Which of the teachers count, behind a comma; nothing without a filter."""
    if not (chosen := learning.get("filter")):
        return ""
    return (
        f", of whom those count that are nearer to the first than the student is, by {chosen['by']} "
        f"(T {chosen['temperature']:g}, mean of {chosen['mean']})"
    )


def loss_options(loss: Report, learning: Report) -> str:
    """T 4, T²; without what is off, and without what has no effect where one voice teaches."""
    several = len(learning["teachers"]) > 1 and not learning.get("filter")
    shown = [
        (name, value)
        for name, value in loss["options"].items()
        if value is not None and value is not False and (several or name not in OF_SEVERAL)
    ]
    return ", ".join(_option(name, value) for name, value in shown)


def _term(loss: Report, learning: Report) -> str:
    options = loss_options(loss, learning)
    return f"{loss['name']} ×{loss['weight']:g}" + (f" ({options})" if options else "")


def _option(name: str, value: Any) -> str:
    if name in OPTIONS:
        return OPTIONS[name](value)
    return f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
