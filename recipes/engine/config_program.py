"""Options of recipes that are files. Plain Python."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.dataloader.pipelines import PIPELINES, Pipeline, find_pipeline
from secateur.recipes.engine.config import RunOptions
from secateur.recipes.engine.options import option


@dataclass(frozen=True, kw_only=True)
class ProgramOptions(RunOptions):
    """What the command line says of a recipe; what its steps do stands in its file."""

    recipe: str = option("", "name or file, behind --recipe")
    set: list[str] = option(
        [],
        "STEP.KEY=VALUE …: other values for steps of the recipe, such as train.epochs=2",
        nargs="+",
        action="extend",
    )
    pipeline: str = option(
        "kesi", "the system whose crops, batches and constants are used", choices=tuple(PIPELINES)
    )

    shortcut: str | None = option(
        None, "of a ResNet that starts at random (default: the system's own)", choices=("A", "A'", "B")
    )

    @property
    def images(self) -> Pipeline:
        """What is done to images before a network reads them."""
        return find_pipeline(self.pipeline)

    @property
    def system(self) -> str:
        """The name of the recipe, for reports."""
        return self.recipe
