"""Losses by name."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from secateur.distillation.loss import Loss
from secateur.runs.errors import UsageError
from secateur.runs.suggest import nearest

_LOSSES: dict[str, type[Loss]] = {}  # by key


def register(cls: type[Loss]) -> type[Loss]:
    """Class decorator: makes a loss known by its `key`. Raises `UsageError` for one that is taken."""
    old = _LOSSES.get(cls.key)
    if not cls.key or (old and (old.__module__, old.__qualname__) != (cls.__module__, cls.__qualname__)):
        raise UsageError(f"A loss needs a key of its own. Received: key={cls.key!r} of {cls.__qualname__}")
    _LOSSES[cls.key] = cls
    return cls


def get_loss(key: str) -> type[Loss]:
    """A registered loss. Raises `UsageError` with the nearest valid name."""
    known = _known()
    if key not in known:
        raise UsageError(f"Unknown loss. Received: loss={key!r}. {nearest(key, known)}")
    return known[key]


def list_losses() -> list[str]:
    """Names that `build` accepts."""
    return sorted(_known())


def build(key: str, **options: Any) -> Loss:
    """A loss by name: `build("kd", temperature=4)`. Raises `UsageError` for a name or an option unknown."""
    cls = get_loss(key)
    valid = cls.option_names()
    if wrong := next((name for name in options if name not in valid), None):
        raise UsageError(
            f"Unknown option of loss {key!r}. Received: {wrong}={options[wrong]!r}. {nearest(wrong, valid)}"
        )
    return cls(**options)


def _known() -> dict[str, type[Loss]]:
    import secateur.distillation.losses as package

    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
    return _LOSSES
