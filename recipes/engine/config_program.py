"""Options of recipes that are files. Plain Python."""

from __future__ import annotations

from typing import Literal

from secateur.dataloader.pipelines import PIPELINES, Pipeline
from secateur.recipes.engine.config import RunOptions
from secateur.recipes.engine.options import option


class ProgramOptions(RunOptions):
    """What the command line says of a recipe; what its steps do stands in its file."""

    recipe: str = option("", "name or file, behind --recipe")
    set: list[str] = option(
        [], "STEP.KEY=VALUE …: other values for steps of the recipe, such as train.epochs=2", action="extend"
    )
    pipeline: Literal[tuple(PIPELINES)] = option(
        "kesi", "the system whose crops, batches and constants are used"
    )

    shortcut: Literal["A", "A'", "B"] | None = option(
        None, "of a ResNet that starts at random (default: the system's own)"
    )

    @property
    def images(self) -> Pipeline:
        """What is done to images before a network reads them."""
        return PIPELINES.find(self.pipeline)

    @property
    def system(self) -> str:
        """The name of the recipe, for reports."""
        return self.recipe
