"""A page as a reader sees it, and reports whose every text tries to be markup."""

import copy
from html.parser import HTMLParser

EVIL = "</style><script>alert(1)</script><img src=x onerror='a' \"&amp;"
VOID = {"meta", "br", "hr", "img", "link", "input"}


class Page(HTMLParser):
    """What a reader sees; fails where an element is closed that is not the open one."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.tags, self.attributes, self.seen = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.seen.append(data)

    @property
    def text(self) -> str:
        """All text nodes, a line each."""
        return "\n".join(self.seen)


def texts(value):
    """Every place of a report that holds free text, as (container, key)."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        if isinstance(inner, str):
            yield value, key
        elif isinstance(inner, dict | list):
            yield from texts(inner)


def hostile(report: dict) -> dict:
    """The report with `EVIL` at the end of every free text."""
    report = copy.deepcopy(report)
    for container, key in list(texts(report)):
        container[key] += EVIL
    return report
