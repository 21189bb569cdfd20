"""Draws the pictures of docs/ again from what was measured.

    python -m benchmarks.picture

ekg_resnet56_widths.svg: the channels that EKG's search left, from search_step.json. landscape.svg and
landscape_planes.svg: what became of sub-networks over what was measured before, from landscape.json.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from benchmarks.landscape import MEASURED
from secateur import nets
from secateur.pruning import find_groups
from secateur.reports.command import picture_file, sheet
from secateur.reports.drawing import BLUE, picture, settings
from secateur.reports.panels import hint, two_axes
from secateur.runs import cli, read_json

RESULTS = Path(__file__).parent / "results"
DOCS = RESULTS.parents[1] / "docs"
SIZE, FRAME = (300, 230), (42, 50, 246, 140)  # pixels, as `reports.panels.two_axes` takes them


def main() -> None:
    """Committed results → committed pictures."""
    for name, draw in PICTURES.items():
        (DOCS / name).write_text(draw())


def widths() -> str:
    """The channels of ResNet-56 before and after EKG's search."""
    results = read_json(RESULTS / "search_step.json")
    (found,) = (search for search in results["searches"] if search["name"] == "float32")
    rows = [
        {"group": group.name, "before": group.size, "after": found["widths"][group.name]}
        for group in find_groups(nets.build("ResNet-56"))
    ]
    return picture_file({"config": _subject("ResNet-56", results), "widths": rows}, "widths")


def planes() -> str:
    """The loss around the networks of several plans, before fine-tuning."""
    results = read_json(RESULTS / "landscape.json")
    return picture_file(
        {"config": _subject(results["network"], results), "landscapes": results["planes"]}, "landscapes"
    )


def scattered() -> str:
    """Loss and accuracy of random sub-networks after fine-tuning, over what was measured before it."""
    results = read_json(RESULTS / "landscape.json")
    rows = [row for row in results["rows"] if row["name"].startswith("random")]
    with settings():
        panels = [
            picture(_scatter(rows, measured, final), themed=False) for final in FINAL for measured in MEASURED
        ]
    return sheet(panels, f"sub-networks of {results['network']} on {results['dataset']}")


def _scatter(rows: list[dict], measured: str, final: str) -> Figure:
    x, y = [row[measured] for row in rows], [row[final] for row in rows]
    title, label = f"{MEASURED[measured].capitalize()} before", f"{FINAL[final]} over {MEASURED[measured]}"
    axes = two_axes(title, MEASURED[measured], FINAL[final], label, SIZE, FRAME)
    axes.locator_params(nbins=4)
    for row, *place in zip(rows, x, y, strict=True):
        (dot,) = axes.plot(*place, "o", color=BLUE, mew=0)
        hint(dot, f"{row['name']}: {place[0]:.3g}, {place[1]:.3g}")
    return axes.figure


def _subject(network: str, results: Mapping) -> dict:
    return {"arch": network, "dataset": results["dataset"]}


FINAL = {"final_loss": "loss after fine-tuning", "final_accuracy": "accuracy after fine-tuning"}
PICTURES = {
    "ekg_resnet56_widths.svg": widths,
    "landscape.svg": scattered,
    "landscape_planes.svg": planes,
}


if __name__ == "__main__":
    sys.exit(cli(main))
