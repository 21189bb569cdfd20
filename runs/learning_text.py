"""What a run learns from in words, of `learning` in report.json. Plain Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

UNWEIGHTED = "unweighted_"  # before the name of a part of the loss, in metrics.jsonl
FACTORS = {"T2": "T²", "T": "T", "1": "not multiplied by T"}
# What an option of a loss is called where its name alone would not say it.
WORDS: dict[str, Callable[[Any], str]] = {
    "temperature": lambda value: f"T {value:g}",
    "factor": lambda value: FACTORS.get(value, value),
    "mean": lambda value: f"mean of {'divergences' if value == 'kl' else value}",
    "over_classes": lambda value: "÷ classes",
    "weights": lambda value: f"teachers weighted {', '.join(f'{weight:g}' for weight in value)}",
    "teacher_blocks": lambda value: f"{value} teacher block{'s' if value > 1 else ''}",
    "stages": lambda value: f"{value} stage{'s' if value > 1 else ''}",
}
OF_SEVERAL = ("mean", "weights")  # options that one teacher alone leaves without effect


def objective_text(learning: Mapping[str, Any]) -> str:
    """cross-entropy ×1 + kd ×0.9 (T 4, T²) + hap ×700 (3 teacher blocks)."""
    several = len(learning["teachers"]) > 1 and not learning.get("filter")  # which speaks with one voice
    parts = [f"cross-entropy ×{learning['label_weight']:g}"]
    parts += [_term(loss, several) for loss in learning["losses"] if not loss["moves_kernels"]]
    moves = [_term(loss, several) for loss in learning["losses"] if loss["moves_kernels"]]
    return " + ".join(parts) + "".join(f"; filters moved by {text}" for text in moves)


def learning_text(learning: Mapping[str, Any]) -> str:
    """learning from res56.pkl (ResNet-56): cross-entropy ×1 + kd ×0.9 (T 4, T²)."""
    teachers = ", ".join(f"{teacher['file']} ({teacher['arch']})" for teacher in learning["teachers"])
    if not learning["losses"]:
        teachers = "the labels alone"
    return f"learning from {teachers}{filter_text(learning)}: {objective_text(learning)}"


def filter_text(learning: Mapping[str, Any]) -> str:
    """Which of the teachers count, behind a comma; nothing without a filter."""
    if not (chosen := learning.get("filter")):
        return ""
    return (
        f", of whom those count that are nearer to the first than the student is, by {chosen['by']} "
        f"(T {chosen['temperature']:g}, mean of {chosen['mean']})"
    )


def loss_options(loss: Mapping[str, Any], several: bool) -> str:
    """T 4, T²; without what is off, and without what only `several` teachers give an effect."""
    options = loss["options"].items()
    return ", ".join(_option(name, value) for name, value in options if _says(name, value, several))


def joined(words: Sequence[str]) -> str:
    """a, b and c."""
    return " and ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else "".join(words)


def _term(loss: Mapping[str, Any], several: bool) -> str:
    options = loss_options(loss, several)
    return f"{loss['name']} ×{loss['weight']:g}" + (f" ({options})" if options else "")


def _says(name: str, value: Any, several: bool) -> bool:
    return value is not None and value is not False and (several or name not in OF_SEVERAL)


def _option(name: str, value: Any) -> str:
    if name in WORDS:
        return WORDS[name](value)
    return f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
