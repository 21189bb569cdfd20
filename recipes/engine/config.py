"""Options of `train` and `test`: their command lines are made from these, with published names."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

from secateur.dataloader.pipelines import NORMALISATIONS, PIPELINES, Pipeline
from secateur.recipes.engine.options import NameIn, Options, option
from secateur.runs.errors import UsageError

VOLATILE = ("gpu_id", "tpu", "do_log", "compile", "train_path", "data_path", "setting")
"""Options that may differ when a run continues; device and XLA change the last bits. `val_batch_size` is none
of them: teachers and re-estimated averages use the BN statistics of batches of that size."""


class Common(Options):
    """What training and evaluation both need to know."""

    arch: str = option("ResNet-56", "architecture; must be that of the snapshots")
    dataset: str = option("CIFAR10", "data set")
    data_path: str | None = option(None, "tfds data_dir (default: tfds' own)")
    val_batch_size: int = option(256, "images per batch of evaluation", ge=1)
    gpu_id: list[int] = option([0], "GPUs to use")
    tpu: str | None = option(None, "address of a TPU, or local")
    compile: bool | None = option(None, "force XLA on or off (default: on for GPU and TPU)")
    bn: Literal["moving", "batch"] = option(
        "moving", "evaluate with moving averages or, as EKG does, batch statistics"
    )
    normalisation: Literal["auto", "rgb", "bgr", "imagenet", *NORMALISATIONS] = option(
        "auto", "constants of the images; EKG's weights need bgr, those from PyTorch imagenet"
    )


class RunOptions(Common):
    """What every run needs to know: which recipe, where to, from what, on how many images at a time."""

    recipe: str = option("ekg", "name or file, behind --recipe")
    set: list[str] = option(
        [],
        "STEP.KEY=VALUE …: other values for steps of the recipe, such as train.epochs=2",
        action="extend",
    )
    until: str | None = option(None, "stop behind this step of the recipe, and report")
    train_path: str = option("../test", "run folder; the same command continues a run that was killed")
    trained_param: str | None = option(
        None, "snapshot to start from, published or ours; without it a network with random weights"
    )
    teacher: list[str] = option(
        [],
        'snapshots that a step with teacher = "files" learns from: logits of all, features of the first',
    )
    batch_size: int = option(128, "of training", ge=1)
    train_images: int | None = option(None, "train on this many images only", ge=1)
    seed: int = option(1, "of training", ge=0, lt=2**31)
    accum: int = option(1, "micro-batches per batch (gradient accumulation)", ge=1)
    do_log: int = option(200, "steps between two updates of the progress line", ge=1)
    setting: str | None = option(None, "a label for this run, shown in its report")
    time_seconds: float = option(3.0, "seconds in which the report times its networks, on each backend", gt=0)
    pipeline: Annotated[str, NameIn(PIPELINES)] = option(
        "kesi", "the system whose crops, batches and constants are used"
    )
    per_batch_crop: bool | None = option(
        None, "one crop offset per batch, as in EKG's program (default: the system's own)"
    )
    shortcut: Literal["A", "A'", "B"] | None = option(
        None, "of a ResNet that starts at random (default: the system's own)"
    )
    head: Literal["hidden", "single"] | None = option(
        None, "of a VGG that starts at random (default: the published one)"
    )
    stem: Literal["imagenet", "cifar"] | None = option(
        None, "of a net for both sizes of images (default: its family's)"
    )
    dropout: float | None = option(None, "of a wide ResNet that starts at random", ge=0, lt=1)

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        if self.batch_size % self.accum:
            raise UsageError(
                f"--accum must divide --batch_size {self.batch_size}. Received: accum={self.accum}"
            )

    @property
    def images(self) -> Pipeline:
        """What is done to images before a network reads them."""
        system = PIPELINES.find(self.pipeline)
        if self.per_batch_crop is None:
            return system
        return dataclasses.replace(system, per_batch_crop=self.per_batch_crop)


class EvaluateOptions(Common):
    """Evaluate snapshots on the test images."""

    trained_param: list[str] = option([], "snapshots; several are evaluated as an ensemble")

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        if not self.trained_param:
            raise UsageError("Which snapshot? Give --trained_param FILE.pkl")
