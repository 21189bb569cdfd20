"""Help for a mistyped name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from secateur.runs.errors import UsageError

CUTOFF = 0.5  # of difflib's ratio: half of the letters, in order


def closest(received: str, valid: Iterable[str]) -> str | None:
    """The valid name most like `received`, whatever the case of either; None when none is alike.

    Names that have all of it in them come first: float16 means mixed_float16, not float32.
    """
    names, word = {name.lower(): name for name in valid}, str(received).lower()
    whole = [name for name in names if len(word) > 2 and word in name]
    found = difflib.get_close_matches(word, whole or names, n=1, cutoff=0.0 if whole else CUTOFF)
    return names[found[0]] if found else None


def nearest(received: str, valid: Iterable[str], most: int | None = None) -> str:
    """One sentence: the closest valid name if there is one, then all valid names, or the `most` alike."""
    names = list(valid)
    found = closest(received, names)
    hint = "" if found is None else f"Did you mean {found!r}? "
    if most is not None and len(names) > most:
        alike = difflib.get_close_matches(str(received), names, n=most, cutoff=0.0)
        return f"{hint}Valid: {', '.join(alike)} and {len(names) - len(alike)} more"
    return f"{hint}Valid: {', '.join(names)}"


def require(value: object, valid: Iterable[str], noun: str, option: str = "", more: str = "") -> None:
    """Raises `UsageError` with the nearest valid name for a value that is none.

    Args:
        noun: what the message calls such a value: "rounding".
        option: where it was given; default: the noun.
        more: end of the message.
    """
    names = list(valid)
    if value not in names:
        hint = nearest(str(value), names)
        raise UsageError(f"Unknown {noun}. Received: {option or noun}={value!r}. {hint}{more}")
