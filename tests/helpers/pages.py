"""A page as a reader and as a browser see it."""

import os
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--window-size=1160,3000",
)
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


def drawn(page: str, folder: Path) -> np.ndarray:
    """Pixels (n, 3) of what a browser makes of a page; skips the test where there is no browser."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if not browser:
        pytest.skip("no chromium on PATH")
    image = pytest.importorskip("PIL.Image", reason="no Pillow to look at the picture with")
    (folder / "report.html").write_text(page, encoding="utf-8")
    places = [f"--user-data-dir={folder / 'profile'}", f"--screenshot={folder / 'page.png'}"]
    command = [browser, *FLAGS, *places, (folder / "report.html").as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120, env=dict(os.environ))
    return np.asarray(image.open(folder / "page.png").convert("RGB")).reshape(-1, 3).astype(int)
