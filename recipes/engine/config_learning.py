"""Options of learning from teachers: which losses, how they are weighed, what they are told. Plain Python."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from secateur.recipes.engine.options import Options, option
from secateur.recipes.engine.published_losses import with_weights
from secateur.runs.errors import UsageError

NO_LOSS = "none"
MEANS = ("kl", "logits", "softmax", "tempered")


class LearningOptions(Options):
    """The loss is CE · label_weight + Σ beta · loss."""

    distill: str = option(
        "kd",
        f"losses joined by +, such as kd+hap; none: labels alone; published weights: {with_weights()}",
        stage="bank",
    )
    betas: list[Annotated[float, Field(ge=0)]] = option(
        [], "weights of the losses, of the last ones if fewer (default: published)", stage="fine-tune"
    )
    label_weight: float = option(1.0, "of the cross-entropy with the labels", ge=0, stage="fine-tune")
    temperature: float = option(4.0, "of kd and of --teacher_filter", gt=0, stage="fine-tune")
    kd_factor: Literal["T2", "T", "1"] = option("T2", "of kd by the temperature", stage="fine-tune")
    kd_over_classes: bool = option(
        False, "kd divided by the number of classes, as KESI's program does", stage="fine-tune"
    )
    mean: Literal[MEANS] = option(
        "kl",
        "of several teachers in kd: of divergences, or of what they say; behind a filter kl is logits",
        stage="fine-tune",
    )
    teacher_weights: list[Annotated[float, Field(ge=0)]] = option(
        [], "of several teachers in kd (default: all alike)", stage="fine-tune"
    )
    hap_ts: int = option(3, "last blocks of the teacher in hap and lsp", ge=1, stage="fine-tune")

    @property
    def losses(self) -> list[str]:
        """Names of the losses."""
        return [] if self.distill == NO_LOSS else self.distill.split("+")

    def check_losses(self, prefix: str = "--") -> None:
        """Raises `UsageError` for a loss twice, more weights than losses, and nothing to learn from.

        `prefix` stands before the names of options in messages.
        """
        names = self.losses
        if len(self.betas) > len(names):
            raise UsageError(
                f"{prefix}betas has a weight for each loss, {len(names)}. Received: {len(self.betas)}"
            )
        if len(set(names)) < len(names):
            raise UsageError(f"Each loss once; {prefix}betas weighs it. Received: distill={self.distill}")
        if not names and self.label_weight == 0:
            raise UsageError(
                f"Nothing to learn from: {prefix}distill none needs the labels. Received: label_weight=0.0"
            )
