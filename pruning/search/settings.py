"""Options of the search, checked. Plain Python: a bad flag is answered before TensorFlow is imported."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.runs.errors import UsageError

DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class SearchSettings:
    """How to search; the defaults are the published ones.

    Attributes:
        target: operations to end at or below, as a ratio of the dense net, in (0, 1).
        step: ratio of the channels that a slice of a group with one producer holds, in (0, 1]; a shared
            group takes step / producers, at least one channel.
        batch_size: images whose BN statistics are taken together, at least 2.
        round_to: slices and widths are multiples of this where the group is large enough.
        dtype: "bfloat16" evaluates candidates faster and may decide differently.
        convention: how operations are counted.
    """

    target: float = 0.45
    step: float = 0.2
    batch_size: int = 256
    round_to: int = 1
    dtype: str = "float32"
    convention: str = "ekg"

    def __post_init__(self) -> None:
        if not 0 < self.target < 1:
            raise UsageError(f"The target rate must lie in (0, 1). Received: target_rate={self.target:g}")
        if not 0 < self.step <= 1:
            raise UsageError(f"The search step must lie in (0, 1]. Received: search_step={self.step:g}")
        if self.batch_size < 2:
            raise UsageError(
                f"search_batch_size must be at least 2. Received: search_batch_size={self.batch_size}"
            )
        if self.round_to < 1:
            raise UsageError(f"round_to must be at least 1. Received: round_to={self.round_to}")
        if self.dtype not in DTYPES:
            raise UsageError(
                f"search_dtype must be one of {', '.join(DTYPES)}. Received: search_dtype={self.dtype!r}"
            )
