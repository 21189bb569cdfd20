"""What a distillation run learns from, resolved: for report.json, and as a sentence before the training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from secateur import nets
from secateur.distillation import Loss
from secateur.recipes.engine.config_distill import DistillConfig
from secateur.recipes.engine.config_learning import LearningOptions
from secateur.recipes.training.lessons import filter_mean, losses_of


def learning_of(config: DistillConfig, specs: Mapping[str, nets.NetSpec]) -> dict[str, Any]:
    """The objective as it is minimised, after all defaults; plain types.

    Args:
        config: the options.
        specs: path → what stands in that snapshot, of every teacher.

    Returns `label_weight`, `losses` (name, weight, moves_kernels, options), `teachers` (file, sha256, arch),
    `filter` (by, mean, temperature; None without one), `stored` (logits come from the bank) and `student`
    (arch, start).
    """
    digests = config.to_json()["sha256"]
    return {
        "label_weight": config.label_weight,
        "losses": losses_in_words(config, len(config.teacher)),
        "teachers": [
            {"file": path, "sha256": digests[path], "arch": specs[path].arch} for path in config.teacher
        ],
        "filter": _filter(config),
        "stored": config.stored,
        "student": {"arch": config.arch, "start": _start(config)},
    }


def losses_in_words(options: LearningOptions, teachers: int) -> list[dict[str, Any]]:
    """Name, weight, moves_kernels and options of each loss."""
    return [_loss(loss, weight) for loss, weight in losses_of(options, teachers)]


def _loss(loss: Loss, weight: float) -> dict[str, Any]:
    """Names of layers are no options of a recipe's losses."""
    names = [name for name in loss.option_names() if not name.endswith("_layer_name")]
    options = {name: loss.get_config()[name] for name in names}
    return {"name": loss.key, "weight": weight, "moves_kernels": loss.moves_kernels, "options": options}


def _filter(config: DistillConfig) -> dict[str, Any] | None:
    if config.teacher_filter == "none":
        return None
    return {"by": config.teacher_filter, "mean": filter_mean(config), "temperature": config.temperature}


def _start(config: DistillConfig) -> str:
    if config.trained_param:
        return config.trained_param
    return f"a copy of {config.teacher[0]}" if config.copy_teacher else "random weights"
