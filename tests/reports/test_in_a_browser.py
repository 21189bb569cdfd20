"""Pages in a headless Chromium: light, dark, on a phone. SECATEUR_SCREENSHOTS=FOLDER keeps the pictures."""

import io
import os
from pathlib import Path

import numpy as np
import pytest

from secateur.reports.page import run_page
from tests.helpers.browser import Browser
from tests.helpers.reports import full, learnt, pruned

PAGES = {
    "run": lambda: run_page(full()),
    "pruned": lambda: run_page(pruned()),
    "learnt": lambda: run_page(learnt()),
}
LOOKS = {"light": (1160, False), "dark": (1160, True), "phone": (380, False)}
LIGHT = ("#fbfaf7", "#2f7d4f", "#a8660f", "#3c6fb4")  # paper, green, amber, blue
DARK = ("#141815", "#5dbb80", "#dba04c", "#7fabe6")
# Texts and shapes that lie more than two pixels outside of their picture.
OUTSIDE = """[...document.querySelectorAll('svg')].flatMap(svg => {
  const box = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text, path')].filter(part => {
    const own = part.getBoundingClientRect();
    return own.left < box.left - 2 || own.right > box.right + 2 || own.top < box.top - 2
      || own.bottom > box.bottom + 2;
  }).map(part => part.textContent || part.getAttribute('d'));
})"""

STYLES = """[document.body, ...document.querySelectorAll('svg text, h1, section')].map(part => {
  const style = getComputedStyle(part);
  return [style.color, style.fill, style.backgroundColor];
})"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    files = {name: tmp_path_factory.mktemp("pages") / f"{name}.html" for name in PAGES}
    for name, file in files.items():
        file.write_text(PAGES[name](), encoding="utf-8")
    return files


def pixels(data: bytes) -> np.ndarray:
    """Pixels (n, 3) of a PNG."""
    image = pytest.importorskip("PIL.Image", reason="no Pillow to look at the picture with")
    return np.asarray(image.open(io.BytesIO(data)).convert("RGB")).reshape(-1, 3).astype(int)


def near(found: np.ndarray, colour: str) -> int:
    """How many pixels have about a colour (#rrggbb)."""
    return int((np.abs(found - [*bytes.fromhex(colour[1:])]).max(1) < 12).sum())


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("name", PAGES)
def test_it_is_drawn_in_its_colours_fits_the_window_and_fetches_nothing(browser, pages, name, look):
    width, dark = LOOKS[look]
    browser.show(pages[name], width, dark)
    data = browser.screenshot()
    if folder := os.environ.get("SECATEUR_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        Path(folder, f"{name}_{look}.png").write_bytes(data)
    found, (paper, *colours) = pixels(data), DARK if dark else LIGHT
    assert near(found, paper) > 0.05 * len(found)
    green, amber, blue = (near(found, colour) for colour in colours)
    # Bars and curves, not only text; a page of `python -m pruning` has neither amber nor blue.
    assert green > (3000 if name == "run" else 300) and (name == "pruned" or min(amber, blue) > 100)
    assert browser.fact("document.documentElement.scrollWidth") <= width
    assert browser.requests() == [pages[name].as_uri()]


@pytest.mark.parametrize("width", [1160, 380])
@pytest.mark.parametrize("name", PAGES)
def test_pictures_stay_inside_their_frame(browser, pages, name, width):
    browser.show(pages[name], width)
    assert browser.fact(OUTSIDE) == []


@pytest.mark.parametrize("name", PAGES)
def test_the_dark_changes_every_colour_of_page_and_pictures(browser, pages, name):
    seen = []
    for dark in (False, True):
        browser.show(pages[name], dark=dark)
        seen.append(browser.fact(STYLES))
    assert len(seen[0]) > 20 and all(light != dark for light, dark in zip(*seen, strict=True))


def test_no_script_may_run(browser, tmp_path):
    file = tmp_path / "page.html"
    evil = "<script>document.title = 'ran'</script></head>"
    file.write_text(run_page(full()).replace("</head>", evil), encoding="utf-8")
    browser.show(file)
    assert browser.fact("document.title") != "ran"
