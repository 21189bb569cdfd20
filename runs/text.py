"""Plain text: tables for the terminal, numbers, names."""

from __future__ import annotations

import itertools
import textwrap
from collections.abc import Iterable, Sequence


def table(titles: Sequence[str], rows: Iterable[Sequence[object]], wrap: int | None = None) -> str:
    """Columns under their titles, two spaces apart; columns of numbers lie to the right.

    `wrap` is the width from which a title goes on in the next line.
    """
    cells = [tuple(map(str, row)) for row in rows]
    parts = [textwrap.wrap(title, wrap) if wrap else [title] for title in titles]
    heads = list(itertools.zip_longest(*parts, fillvalue=""))
    columns = list(zip(*heads, *cells, strict=True))
    sizes = [max(map(len, column)) for column in columns]
    right = [bool(cells) and all(map(_number, column[len(heads) :])) for column in columns]
    lines = [
        "  ".join(c.rjust(n) if r else c.ljust(n) for c, n, r in zip(row, sizes, right, strict=True)).rstrip()
        for row in (*heads, *cells)
    ]
    return "\n".join(lines)


def few(names: Sequence[str], most: int = 4) -> str:
    """The first names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names) if more <= 0 else f"{', '.join(names[:most])} and {more} more"


def number(value: float | None, style: str = ".4f") -> str:
    """A number in a format of Python's; what is unknown is a dash."""
    return "–" if value is None else format(value, style)


def _number(cell: str) -> bool:
    """Whether a cell is a number, perhaps with a remark behind it, or the dash of a missing one."""
    return cell == "–" or cell.partition(" (")[0].translate(_NO_DIGITS).isdigit()


_NO_DIGITS = str.maketrans("", "", ",.")
