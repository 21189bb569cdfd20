"""Losses by name."""

from __future__ import annotations

from typing import Any

from secateur.distillation.loss import Loss
from secateur.runs.errors import UsageError
from secateur.runs.registry import Registry
from secateur.runs.suggest import nearest

LOSSES: Registry[type[Loss]] = Registry("loss", "losses", folder="secateur.distillation.losses")


def register(cls: type[Loss]) -> type[Loss]:
    """Class decorator: makes a loss known by its `key`. Raises `UsageError` for one that is taken."""
    if not cls.key:
        raise UsageError(f"A loss needs a key. Received: key='' of {cls.__qualname__}")
    return LOSSES.register(cls, name=cls.key)


def get_loss(key: str) -> type[Loss]:
    """A registered loss. Raises `UsageError` with the nearest valid name."""
    return LOSSES.find(key)


def list_losses() -> list[str]:
    """Names that `build` accepts."""
    return sorted(LOSSES)


def build(key: str, **options: Any) -> Loss:
    """A loss by name: `build("kd", temperature=4)`. Raises `UsageError` for a name or an option unknown."""
    cls = LOSSES.find(key)
    valid = cls.option_names()
    if wrong := next((name for name in options if name not in valid), None):
        raise UsageError(
            f"Unknown option of loss {key!r}. Received: {wrong}={options[wrong]!r}. {nearest(wrong, valid)}"
        )
    return cls(**options)
