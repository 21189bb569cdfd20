"""Options of learning from teachers: which losses, how they are weighed, what they are told. Plain Python."""

from __future__ import annotations

from dataclasses import dataclass

from secateur.recipes.engine.options import option
from secateur.recipes.engine.published_losses import with_weights
from secateur.runs.errors import UsageError

NO_LOSS = "none"
MEANS = ("kl", "logits", "softmax", "tempered")


@dataclass(frozen=True, kw_only=True)
class LearningOptions:
    """The loss is CE · label_weight + Σ beta · loss."""

    distill: str = option(
        "kd", f"losses joined by +, such as kd+hap; none: labels alone; published weights: {with_weights()}",
        stage="bank",
    )  # fmt: skip
    betas: list[float] = option(
        [], "weights of the losses, of the last ones if fewer (default: published)", nargs="+",
        at_least=0, stage="fine-tune",
    )  # fmt: skip
    label_weight: float = option(1.0, "of the cross-entropy with the labels", at_least=0, stage="fine-tune")
    temperature: float = option(4.0, "of kd and of --teacher_filter", above=0, stage="fine-tune")
    kd_factor: str = option("T2", "of kd by the temperature", choices=("T2", "T", "1"), stage="fine-tune")
    kd_over_classes: bool = option(
        False, "kd divided by the number of classes, as KESI's program does", stage="fine-tune"
    )
    mean: str = option(
        "kl", "of several teachers in kd: of divergences, or of what they say; behind a filter kl is logits",
        choices=MEANS, stage="fine-tune",
    )  # fmt: skip
    teacher_weights: list[float] = option(
        [], "of several teachers in kd (default: all alike)", nargs="+", at_least=0, stage="fine-tune"
    )
    hap_ts: int = option(3, "last blocks of the teacher in hap and lsp", at_least=1, stage="fine-tune")

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
