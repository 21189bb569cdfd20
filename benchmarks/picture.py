"""Draws docs/ekg_resnet56_widths.svg again: the channels that EKG's search left, from search_step.json.

python -m benchmarks.picture
"""

from __future__ import annotations

import sys
from pathlib import Path

from secateur import nets
from secateur.pruning import find_groups
from secateur.reports.command import picture_file
from secateur.runs import cli, read_json

HERE = Path(__file__).parent
PICTURE = HERE.parent / "docs" / "ekg_resnet56_widths.svg"


def main() -> None:
    """The committed result → the committed picture."""
    results = read_json(HERE / "results" / "search_step.json")
    (found,) = (search for search in results["searches"] if search["name"] == "float32")
    widths = [
        {"group": group.name, "before": group.size, "after": found["widths"][group.name]}
        for group in find_groups(nets.build("ResNet-56"))
    ]
    report = {"config": {"arch": "ResNet-56", "dataset": results["dataset"]}, "widths": widths}
    PICTURE.write_text(picture_file(report, "widths"))


if __name__ == "__main__":
    sys.exit(cli(main))
