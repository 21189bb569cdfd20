"""From options to what a student learns from: losses with their weights, and the teacher behind them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path

from distillation import Banked, Ensemble, Filtered, Live, Loss, MemoryBank, build, get_loss
from recipes.config_distill import DistillConfig
from recipes.context import RunContext


def losses_of(config: DistillConfig) -> list[tuple[Loss, float]]:
    """Losses with their weights: `--betas` for the last ones, published ones for those before.

    Raises `UsageError` for a name that is not registered, with the nearest one.
    """
    given = {"temperature": config.temperature, "mean": config.mean, "teacher_blocks": config.hap_ts}
    published = [get_loss(name).beta for name in config.losses]
    betas = [*published[: len(published) - len(config.betas)], *config.betas]
    built = [build(name, **_accepted(get_loss(name), given)) for name in config.losses]
    return list(zip(built, betas, strict=True))


def teacher_of(context: RunContext, bank: MemoryBank | None) -> object | None:
    """One network, several, or what they said of the same images before; None without a loss."""
    config = context.config
    reads = tuple(dict.fromkeys(loss.reads for loss, _ in losses_of(config)))
    if not reads:
        return None
    if bank and reads == ("logits",):
        teacher = Banked()
    else:
        live = [Live(context.load(Path(path)), reads) for path in config.teacher]
        teacher = live[0] if len(live) == 1 else Ensemble(live)
    by = config.teacher_filter
    return teacher if by == "none" else Filtered(teacher, by=by)


def _accepted(loss: type[Loss], given: Mapping[str, object]) -> dict[str, object]:
    return {name: given[name] for name in inspect.signature(loss).parameters if name in given}
