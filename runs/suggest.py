"""Help for a mistyped name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(received: str, valid: Iterable[str]) -> str:
    """One sentence: the nearest valid name if there is one, then all valid names."""
    names = list(valid)
    close = difflib.get_close_matches(str(received).lower(), [n.lower() for n in names], n=1, cutoff=0.5)
    hint = next((f"Did you mean {n!r}? " for n in names if close and n.lower() == close[0]), "")
    return f"{hint}Valid: {', '.join(names)}"
