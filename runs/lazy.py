"""Public names of a room that are looked up when they are used, so that importing the room stays light."""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any


def lazy_names(room: str, file: str) -> tuple[Callable[[str], Any], list[str]]:
    """`__getattr__` and `__all__` of a package whose imports stand under `if TYPE_CHECKING:`.

    Type checkers read these imports as they stand. At run time each is done when its name is first used.

    Args:
        room: `__name__` of the package.
        file: its `__file__`.
    """
    imports = (
        node for node in ast.walk(ast.parse(Path(file).read_text())) if isinstance(node, ast.ImportFrom)
    )
    home = {alias.asname: node.module or "" for node in imports for alias in node.names if alias.asname}

    def find(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {room!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(home[name]), name)
        setattr(sys.modules[room], name, value)
        return value

    return find, list(home)
