"""Plain text: tables for the terminal, numbers, names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns under their titles, two spaces apart; columns of numbers lie to the right."""
    cells = [tuple(map(str, row)) for row in rows]
    columns = list(zip(titles, *cells, strict=True))
    sizes = [max(map(len, column)) for column in columns]
    right = [bool(cells) and all(map(_number, column[1:])) for column in columns]
    lines = [
        "  ".join(c.rjust(n) if r else c.ljust(n) for c, n, r in zip(row, sizes, right, strict=True)).rstrip()
        for row in (tuple(titles), *cells)
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
    return cell.replace(",", "").replace(".", "").isdigit()
