"""Options of `--recipe distill` and `--recipe hap`: teachers, losses, and what is pruned before."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from secateur.recipes.engine.config import TrainingOptions
from secateur.recipes.engine.config_learning import LearningOptions
from secateur.recipes.engine.options import option
from secateur.runs.errors import UsageError
from secateur.runs.files import sha256


class DistillConfig(LearningOptions, TrainingOptions):
    """Every option of distillation."""

    STEPS: ClassVar[tuple[str, ...]] = (
        "student",
        "plan",
        "slim",
        "bank",
        "fine-tune",
        "compact",
        "litert",
        "report",
    )

    teacher: list[str] = option(
        [], "snapshots to learn from; of several all give logits, the first also features"
    )
    copy_teacher: bool = option(False, "the student starts with the weights of the first teacher")
    teacher_filter: Literal["none", "batch", "sample", "dataset"] = option(
        "none",
        "leave out teachers farther from the first, the best, than the student is: EKG's rule",
        stage="bank",
    )
    augment: bool = option(True, "crop and mirror at random; without it teachers run once", stage="bank")
    bank_dtype: Literal["float32", "float16"] = option("float32", "of stored logits", stage="bank")

    criterion: str = option("l1", "which channels stay, with --keep below 1")
    keep: float = option(1.0, "ratio of the channels of each group that stay", gt=0, le=1)

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        self.check_losses()
        if self.losses and not self.teacher:
            raise UsageError(
                "Who teaches? Give --teacher FILE.pkl …, or --distill none. Received: no teacher"
            )
        if self.teacher_weights and self.teacher_filter != "none":
            raise UsageError(
                "Teachers are weighed or filtered, not both: a filter makes one of them. Received: "
                f"teacher_weights={self.teacher_weights}, teacher_filter={self.teacher_filter}"
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

    @property
    def stored(self) -> bool:
        """Whether a bank answers for the teachers: images do not change, and only logits are looked at."""
        from secateur.distillation import get_loss  # imports TensorFlow, which a command line does without

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
