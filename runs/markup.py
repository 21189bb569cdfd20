"""Elements of HTML and SVG as text: what is not markup already is escaped on its way in."""

from __future__ import annotations

import html
from collections.abc import Iterable


class Markup(str):
    """Text that is markup already; every other string is escaped on its way into an element."""


def element(name: str, /, *children: object, **attributes: object) -> Markup:
    """`<name attribute="…">children</name>`; `class_` is class, `a_b` is a-b, None leaves one out."""
    pairs = (
        (key.rstrip("_").replace("_", "-"), value) for key, value in attributes.items() if value is not None
    )
    opening = name + "".join(f' {key}="{html.escape(_plain(value))}"' for key, value in pairs)
    if name == "meta":
        return Markup(f"<{opening}/>")
    return Markup(f"<{opening}>{join(children)}</{name}>")


def join(parts: Iterable[object]) -> Markup:
    """Parts in a row, what is not `Markup` escaped."""
    return Markup("".join(p if isinstance(p, Markup) else html.escape(_plain(p)) for p in parts))


def _plain(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
