"""Public names of a room that are looked up when they are used, so that importing the room stays light."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy_names(room: str, home: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package: a name is imported from its module when it is first used.

    Args:
        room: `__name__` of the package.
        home: public name → the module that defines it, relative to the package ("shrink.surgery").
    """

    def find(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{room}.{home[name]}"), name)
        setattr(sys.modules[room], name, value)
        return value

    return find
