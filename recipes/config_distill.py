"""Options of `--recipe distill` and `--recipe hap`: teachers, losses, and what is pruned before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from recipes.config import TrainingOptions
from recipes.options import option
from recipes.published_losses import with_weights
from runs.errors import UsageError
from runs.files import sha256

NO_LOSS = "none"
MEANS = ("kl", "logits", "softmax", "tempered")


@dataclass(frozen=True, kw_only=True)
class DistillConfig(TrainingOptions):
    """Every option of distillation. The loss is CE · label_weight + Σ beta · loss."""

    STEPS: ClassVar[tuple[str, ...]] = (
        "student", "plan", "slim", "bank", "fine-tune", "compact", "litert", "report"
    )  # fmt: skip

    teacher: list[str] = option(
        [], "snapshots to learn from; of several all give logits, the first also features", nargs="+"
    )
    copy_teacher: bool = option(False, "the student starts with the weights of the first teacher")
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
    teacher_filter: str = option(
        "none", "leave out teachers farther from the first, the best, than the student is: EKG's rule",
        choices=("none", "batch", "sample", "dataset"), stage="bank",
    )  # fmt: skip
    hap_ts: int = option(3, "last blocks of the teacher in hap and lsp", at_least=1, stage="fine-tune")
    augment: bool = option(True, "crop and mirror at random; without it teachers run once", stage="bank")
    bank_dtype: str = option("float32", "of stored logits", choices=("float32", "float16"), stage="bank")
    train_images: int | None = option(None, "use this many training images only", at_least=1)

    criterion: str = option("l1", "which channels stay, with --keep below 1")
    keep: float = option(1.0, "ratio of the channels of each group that stay", above=0, at_most=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        names = self.losses
        if len(self.betas) > len(names):
            raise UsageError(f"--betas has a weight for each loss, {len(names)}. Received: {len(self.betas)}")
        if len(set(names)) < len(names):
            raise UsageError(f"Each loss once; --betas weighs it. Received: distill={self.distill}")
        if names and not self.teacher:
            raise UsageError(
                "Who teaches? Give --teacher FILE.pkl …, or --distill none. Received: no teacher"
            )
        if self.copy_teacher and (self.trained_param or not self.teacher):
            raise UsageError(
                "--copy_teacher starts from the first --teacher, so it excludes --trained_param. "
                f"Received: teacher={self.teacher}, trained_param={self.trained_param}"
            )
        if self.teacher_weights and len(self.teacher_weights) != len(self.teacher):
            raise UsageError(
                f"--teacher_weights has one for each of {len(self.teacher)} teachers. "
                f"Received: {len(self.teacher_weights)}"
            )
        if self.teacher_filter != "none" and len(self.teacher) < 2:
            raise UsageError(
                f"A filter chooses among several teachers. Received: teacher_filter={self.teacher_filter}, "
                f"{len(self.teacher)} teachers"
            )
        if not names and self.label_weight == 0:
            raise UsageError(
                "Nothing to learn from: --distill none needs the labels. Received: label_weight=0.0"
            )

    @property
    def losses(self) -> list[str]:
        """Names of the losses."""
        return [] if self.distill == NO_LOSS else self.distill.split("+")

    @property
    def stored(self) -> bool:
        """Whether a bank answers for the teachers: images do not change, and only logits are looked at."""
        from distillation import get_loss  # imports TensorFlow, which a command line does without

        read = [get_loss(name) for name in self.losses]
        logits = all(loss.reads == "logits" and not loss.moves_kernels for loss in read)
        return bool(read) and logits and not self.augment

    @property
    def steps(self) -> tuple[str, ...]:
        """Nothing is planned or sliced while all channels stay; no bank where nobody would ask it."""
        left_out = set() if self.keep < 1 else {"plan", "slim"}
        left_out |= set() if self.stored or self.teacher_filter == "dataset" else {"bank"}
        return tuple(step for step in self.STEPS if step not in left_out)

    def to_json(self) -> dict:
        """Plain types, for config.json; with the digests of the files, which must not change either."""
        files = [path for path in (*self.teacher, self.trained_param) if path]
        return super().to_json() | {"sha256": {path: sha256(path) for path in files}}

    @property
    def system(self) -> str:
        """Losses, and the criterion if something was pruned."""
        losses = self.distill if self.losses else "labels alone"
        return " · ".join([losses, *([f"{self.criterion}, keep {self.keep:g}"] if self.keep < 1 else [])])
