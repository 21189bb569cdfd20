"""Ladders: how much of the original network is gone after each round of pruning, as lists of floats."""

from __future__ import annotations

from collections.abc import Callable

from secateur.runs.errors import UsageError
from secateur.runs.registry import Registry

Ladder = Callable[[float, int], list[float]]  # (sparsity at the end, rounds) → sparsity after each round


def lottery(sparsity: float, rounds: int) -> list[float]:
    """S_t = 1 − (1 − S)^{t/n}, t = 1 … n: every round keeps the same share of what is left.

    Frankle and Carbin 2019, The Lottery Ticket Hypothesis, as NNI has it. The sparsity S must lie in [0, 1),
    rounds be at least 1; else raises `UsageError`, as the other ladders do.
    """
    _check(sparsity, rounds)
    return [1 - (1 - sparsity) ** (t / rounds) for t in range(1, rounds + 1)]


def linear(sparsity: float, rounds: int) -> list[float]:
    """S_t = S · t/n, t = 1 … n: every round removes as much of the original network (NNI)."""
    _check(sparsity, rounds)
    return [sparsity * t / rounds for t in range(1, rounds + 1)]


def agp(sparsity: float, rounds: int) -> list[float]:
    """S_t = S · (1 − (1 − t/n)³), t = 1 … n: much at first, little at the end.

    Zhu and Gupta 2018, To prune, or not to prune (equation 1, from no sparsity on).
    """
    _check(sparsity, rounds)
    return [sparsity * (1 - (1 - t / rounds) ** 3) for t in range(1, rounds + 1)]


LADDERS: Registry[Ladder] = Registry("ladder", "ladders", {"agp": agp, "linear": linear, "lottery": lottery})


def find_ladder(name: str) -> Ladder:
    """A ladder by its name. Raises `UsageError` with the nearest one."""
    return LADDERS.find(name)


def relative(target: float, gone: float) -> float:
    """Ratio of what is left that must go: max(0, (S_t − R) / (1 − R)).

    Args:
        target: S_t, in [0, 1], of the original size.
        gone: R, in [0, 1), of the original size. NNI counts elements of a layer's kernel, to which the input
            channels that went with the layers before belong: such a layer is ahead of its target and waits.

    Raises `UsageError` for values out of range.
    """
    if not (0 <= target <= 1 and 0 <= gone < 1):
        raise UsageError(
            f"target must lie in [0, 1] and gone in [0, 1). Received: target={target}, gone={gone}"
        )
    return max(0.0, (target - gone) / (1 - gone))


def _check(sparsity: float, rounds: int) -> None:
    if not 0 <= sparsity < 1:
        raise UsageError(f"sparsity must lie in [0, 1). Received: sparsity={sparsity}")
    if rounds < 1:
        raise UsageError(f"There must be at least one round. Received: rounds={rounds}")
