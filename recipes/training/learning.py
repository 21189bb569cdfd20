"""What a training learns from, resolved: for report.json, and as a sentence before it begins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from secateur import nets
from secateur.distillation import Loss
from secateur.runs import load_snapshot, sha256

if TYPE_CHECKING:
    from secateur.recipes.training.lessons import LearningOptions


def learning_of(
    options: LearningOptions, losses: Sequence[tuple[Loss, float]], teachers: Sequence[Mapping[str, str]]
) -> dict[str, Any]:
    """The objective as it is minimised, after all defaults (`options` are settled); plain types.

    Returns `label_weight`, `losses` (name, weight, moves_kernels, options), `teachers` (see `described`) and
    `filter` (by, mean, temperature; None without one).
    """
    chosen = {"by": options.filter, "mean": options.filter_mean, "temperature": options.temperature}
    return {
        "label_weight": options.label_weight,
        "losses": [_loss(loss, weight) for loss, weight in losses],
        "teachers": list(teachers),
        "filter": chosen if options.filter != "none" else None,
    }


def described(path: Path, arch: str = "") -> dict[str, str]:
    """A teacher's file, its sha256, and its architecture where that is not given."""
    return {"file": str(path), "sha256": sha256(path), "arch": arch or _arch(path)}


def _arch(path: Path) -> str:
    """Published files do not say what they hold."""
    snapshot = load_snapshot(path)
    return snapshot.spec["arch"] if snapshot.spec else nets.load_params(None, snapshot, str(path)).spec.arch


def _loss(loss: Loss, weight: float) -> dict[str, Any]:
    """Names of layers are no options of a recipe's losses."""
    names = [name for name in loss.option_names() if not name.endswith("_layer_name")]
    options = {name: loss.get_config()[name] for name in names}
    return {"name": loss.key, "weight": weight, "moves_kernels": loss.moves_kernels, "options": options}
