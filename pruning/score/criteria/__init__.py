"""Scores of channels: pure functions of arrays, larger = keep. One file for each idea."""

from secateur.pruning.score.criteria import activations, gradients, magnitude, mixes, redundancy  # noqa: F401 (they register)
from secateur.pruning.score.registry import INPUTS, Criterion, criterion, get_criterion, list_criteria

__all__ = ["INPUTS", "Criterion", "criterion", "get_criterion", "list_criteria"]
