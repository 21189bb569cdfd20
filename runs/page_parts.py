"""What the sections of the report page are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from secateur.runs.markup import Markup, element


def section(title: str, *children: object) -> Markup:
    """A titled section of the page."""
    return element("section", element("h2", title), *children)


def figure(picture: Markup, caption: str, *before: Markup) -> Markup:
    """A picture with its caption below and `before` above it."""
    return element(
        "figure", *before, element("div", picture, class_="pictures"), element("figcaption", caption)
    )


def legend(*entries: tuple[str, str]) -> Markup:
    """What colours mean: pairs of a class of the style and a text."""
    items = (
        element("li", element("i", class_=f"key {class_}", aria_hidden="true"), text)
        for class_, text in entries
    )
    return element("ul", *items, class_="legend")


def note(text: str) -> Markup:
    """A remark in grey."""
    return element("p", text, class_="note")


def table(titles: Sequence[str], rows: Iterable[Sequence[object]]) -> Markup:
    """A table with a line of titles."""
    head = element("tr", *(element("th", title, scope="col") for title in titles))
    lines = (element("tr", *(element("td", value) for value in row)) for row in rows)
    return element("table", element("thead", head), element("tbody", *lines))


def details(title: str, titles: Sequence[str], rows: Iterable[Sequence[object]]) -> Markup:
    """A table that opens on a click."""
    return element("details", element("summary", title), element("div", table(titles, rows), class_="scroll"))
