"""Options of both programs: the command lines are made from them, with published names."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from secateur.dataloader.pipelines import NORMALISATIONS, PIPELINES, Pipeline
from secateur.pruning.search.settings import SearchSettings
from secateur.recipes.engine.options import Options, option
from secateur.runs.errors import UsageError

CRITERIA = ("ekg", "l1", "l2", "random")
VOLATILE = ("gpu_id", "tpu", "do_log", "compile", "train_path", "data_path", "setting")
"""Options that may differ when a run continues; device and XLA change the last bits. `val_batch_size` is none
of them: teachers and re-estimated averages use the BN statistics of batches of that size. Options with a
`stage` may differ too: what depends on them is done again (see `recipes.stages`)."""


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
        "moving", "evaluate with moving averages or, as EKG does, batch statistics", stage="report"
    )
    normalisation: Literal["auto", "rgb", "bgr", "imagenet", *NORMALISATIONS] = option(
        "auto", "constants of the images; EKG's weights need bgr, those from PyTorch imagenet"
    )


class RunOptions(Common):
    """What every run needs to know: where to, from what, on how many images at a time.

    A recipe's class adds its own options, and names its `STEPS` in their order: an option with a `stage` may
    differ when a folder goes on, and the steps from that one on are done again (`recipes.stages`).
    """

    STEPS: ClassVar[tuple[str, ...]] = ()

    train_path: str = option("../test", "run folder; the same command continues a run that was killed")
    trained_param: str | None = option(
        None, "snapshot to start from, published or ours; without it a network with random weights"
    )
    batch_size: int = option(128, "of training", ge=1)
    train_images: int | None = option(None, "train on this many images only", ge=1)
    seed: int = option(1, "of training", ge=0, lt=2**31)
    accum: int = option(1, "micro-batches per batch (gradient accumulation)", ge=1)
    do_log: int = option(200, "steps between two updates of the progress line", ge=1)
    setting: str | None = option(None, "a label for this run, shown in its report")
    time_seconds: float = option(
        3.0, "seconds in which the report times its networks, on each backend", gt=0, stage="report"
    )
    shortcut: Literal["A", "A'", "B"] = option("B", "of a ResNet that starts at random")
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
    def steps(self) -> tuple[str, ...]:
        """Those of `STEPS` that a run with these options has."""
        return self.STEPS

    @property
    def system(self) -> str:
        """What reports call the method."""
        raise NotImplementedError(type(self).__name__)

    @property
    def images(self) -> Pipeline:
        """What is done to images before a network reads them."""
        raise NotImplementedError(type(self).__name__)

    def to_json(self) -> dict:
        """Plain types, for config.json."""
        return self.model_dump()


class TrainingOptions(RunOptions):
    """One fine-tuning in steps of the learning rate, with EKG's defaults."""

    learning_rate: float = option(1e-2, "of the fine-tuning", gt=0, stage="fine-tune")
    decay_points: list[Annotated[float, Field(ge=0, le=1)]] = option(
        [0.3, 0.6, 0.8], "parts of the fine-tuning after which the rate decays", stage="fine-tune"
    )
    decay_rate: float = option(0.2, "factor of each decay", gt=0, stage="fine-tune")
    weight_decay: float = option(
        5e-4, "coupled L2 on all weights in the fine-tuning", ge=0, stage="fine-tune"
    )
    train_epoch: int = option(100, "epochs of fine-tuning", ge=1, stage="fine-tune")
    round_to: int = option(1, "widths are multiples of this", ge=1)
    per_batch_crop: bool = option(False, "one crop offset per batch, as in EKG's program")

    @property
    def images(self) -> Pipeline:
        """EKG's, with an offset for each image where `--per_batch_crop` does not ask for its own way."""
        return dataclasses.replace(PIPELINES["ekg"], per_batch_crop=self.per_batch_crop)


class Config(TrainingOptions):
    """Every option of EKG; names and defaults are its own where it has them."""

    STEPS: ClassVar[tuple[str, ...]] = (
        "baseline",
        "warm-up",
        "search",
        "slim",
        "bank",
        "fine-tune",
        "compact",
        "litert",
        "report",
    )

    Knowledge: bool | None = option(
        None, "fine-tune with the memory bank (default: on with --criterion ekg)", stage="fine-tune"
    )
    baseline_epoch: int = option(
        300, "epochs that train the baseline, where no --trained_param is given", ge=1
    )
    num_teacher: int = option(5, "interim networks in the memory bank", ge=1, stage="bank")
    searching: bool = option(False, "stop after the search and the slimmed network", stage="report")
    search_target_rate: float = option(0.45, "operations to keep, EKG's count", alias="target_rate")
    search_step: float = option(0.2, "ratio of channels that one step of the search removes")
    search_batch_size: int = option(256, "of warm-up and search")
    search_seed: int = option(1, "of the warm-up and of --criterion random", ge=0, lt=2**31)
    criterion: Literal[CRITERIA] = option(
        "ekg", "how to choose channels: ekg searches, the others prune uniformly"
    )
    search_dtype: Literal["float32", "bfloat16"] = option("float32", "of the search")

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        if self.Knowledge and self.criterion != "ekg":
            raise UsageError(
                f"The memory bank needs the search. Received: --Knowledge with --criterion {self.criterion}"
            )
        if self.Knowledge is None:  # said or not, it is the same run
            object.__setattr__(self, "Knowledge", self.criterion == "ekg")
        self.search_settings()

    @property
    def steps(self) -> tuple[str, ...]:
        """Without a search no warm-up, without knowledge no bank, with `--searching` nothing behind it."""
        left_out = set() if self.criterion == "ekg" else {"warm-up", "search"}
        left_out |= set() if self.Knowledge else {"bank"}
        left_out |= {"fine-tune", "compact", "litert"} if self.searching else set()
        return tuple(step for step in self.STEPS if step not in left_out)

    @property
    def system(self) -> str:
        """EKG, or the criterion that takes its place."""
        return "EKG" if self.criterion == "ekg" else f"{self.criterion}, uniform"

    def search_settings(self) -> SearchSettings:
        """The options of the search; raises `UsageError` when one is out of range."""
        return SearchSettings(
            self.search_target_rate,
            self.search_step,
            self.search_batch_size,
            self.round_to,
            self.search_dtype,
        )


class EvaluateConfig(Common):
    """Evaluate snapshots on the test images."""

    trained_param: list[str] = option([], "snapshots; several are evaluated as an ensemble")

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        if not self.trained_param:
            raise UsageError("Which snapshot? Give --trained_param FILE.pkl")
