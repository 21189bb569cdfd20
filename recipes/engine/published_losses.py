"""Losses of `--distill` with their published weights, for `--help`, which does without TensorFlow.

A test holds the table equal to what `distillation` has registered.
"""

from __future__ import annotations

LOSSES: dict[str, float] = {
    "kd": 0.9,
    "kd_std": 9.0,
    "dkd": 1.0,
    "dist": 1.0,
    "at": 1000.0,
    "mat": 1000.0,
    "sp": 3000.0,
    "asp": 3000.0,
    "hap": 700.0,
    "lsp2": 700.0,
    "lsp": 175.0,
    "afd": 200.0,
    "reviewkd": 0.6,
    "fitnet": 100.0,
    "rkd": 1.0,
    "crd": 0.8,
    "fad": 1.0,
}


def with_weights() -> str:
    """kd 0.9, kd_std 9, …"""
    return ", ".join(f"{name} {beta:g}" for name, beta in LOSSES.items())
