"""Help for a mistyped name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

CUTOFF = 0.5  # of difflib's ratio: half of the letters, in order


def closest(received: str, valid: Iterable[str]) -> str | None:
    """The valid name most like `received`, whatever the case of either; None when none is alike."""
    names = {name.lower(): name for name in valid}
    found = difflib.get_close_matches(str(received).lower(), names, n=1, cutoff=CUTOFF)
    return names[found[0]] if found else None


def nearest(received: str, valid: Iterable[str]) -> str:
    """One sentence: the closest valid name if there is one, then all valid names."""
    names = list(valid)
    found = closest(received, names)
    hint = "" if found is None else f"Did you mean {found!r}? "
    return f"{hint}Valid: {', '.join(names)}"
