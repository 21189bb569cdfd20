"""Numbers of a report as text; what is unknown is a dash."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """1.2 s, 3 min 5 s, 2 h 7 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def si(value: float) -> str:
    """40.8 M, 1.27 G."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def short(value: float) -> str:
    """Three significant digits."""
    return f"{value:.3g}"


def percent(value: float | None) -> str:
    """0.9123 → 91.23 %."""
    return "–" if value is None else f"{100 * value:.2f} %"


def number(value: float | None, style: str = ".4f") -> str:
    """A number in a format of Python's."""
    return "–" if value is None else format(value, style)


def ratio(row: dict, first: dict, key: str) -> str:
    """What is left of `first[key]` in `row`, in whole per cent."""
    return f"{row[key] / first[key]:.0%}".replace("%", " %") if first.get(key) else "–"


def accuracy(row: dict) -> str:
    """The test accuracy of a row in per cent, without the sign."""
    value = row.get("test_accuracy")
    return "–" if value is None else f"{100 * value:.2f}"


def fit(text: str, size: int) -> str:
    """At most `size` characters, the last of them … where some had to go."""
    return text if len(text) <= size else f"{text[: size - 1]}…"
