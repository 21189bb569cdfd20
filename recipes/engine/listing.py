"""What `--recipe list` prints: every recipe with its command, the work that it is, and what was published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from secateur.recipes.engine.recipe import find_recipe, published_recipes

if TYPE_CHECKING:
    from secateur.recipes.engine.registry import Recipe

MINUTES = 2.2
"""An epoch of ResNet-56 on CIFAR-10 with two CPU cores: 368 steps of 352 ms (README, "Speed")."""


def listing(recipes: Mapping[str, Recipe]) -> str:
    """A paragraph for each recipe."""
    parts = [_paragraph(name, one.about, f"--recipe {name}", None, "") for name, one in recipes.items()]
    for name in published_recipes():
        file = find_recipe(name)
        command = f"--recipe {name} {file.command}".strip()
        parts.append(_paragraph(name, file.about, command, epochs(file.steps), file.published))
    return "\n\n".join(parts)


def epochs(steps: Any) -> int:
    """Epochs of all trainings of a recipe."""
    total = 0
    for table in steps:
        if table["kind"] == "repeat":
            total += table["times"] * epochs(table["steps"])
        total += table.get("epochs", 0)
    return total


def _paragraph(name: str, about: str, command: str, work: int | None, published: str) -> str:
    lines = [f"{name}: {about}", f"  python train_cifar.py {command}"]
    if work:
        lines.append(
            f"  {work} epochs; of ResNet-56 on CIFAR-10 {work * MINUTES / 60:.0f} h on two CPU cores"
        )
    if published:
        lines.append(f"  published: {published}")
    return "\n".join(lines)
