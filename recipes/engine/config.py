"""Options of `train` and `test`: their command lines are made from these, with published names."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr

from secateur.dataloader.pipelines import NORMALISATIONS, PIPELINES, PIXELS, Pipeline
from secateur.recipes.engine.options import FilePath, NameIn, Options, option
from secateur.runs.errors import UsageError

MODELS = (".keras", ".h5")
"""What files of models of one's own end in."""
VOLATILE = (
    *("gpu_id", "tpu", "compile", "auto_accum", "do_log", "save_minutes", "setting"),
    *("force", "train_path", "data_path", "data", "stream", "skip_bad", "nan"),
)
"""Options that may differ when a run continues; device, XLA and micro-batches change the last bits.
`val_batch_size` is none of them: teachers and re-estimated averages use the BN statistics of batches of that
size."""


class DeviceOptions(Options):
    """Where it runs."""

    gpu_id: list[int] = option([0], "GPUs to use")

    @property
    def devices(self) -> list[int]:
        """The GPUs that were asked for; [] where nobody said which: the first one, if there is one."""
        return self.gpu_id if "gpu_id" in self.model_fields_set else []


class TypeOptions(Options):
    """How precisely it trains."""

    dtype: Literal["float32", "mixed_bfloat16", "mixed_float16"] = option(
        "float32", "of what trainings and teachers compute; weights, losses and reports are float32 always"
    )


class ImageOptions(Options):
    """Images, and how a network reads them."""

    data: FilePath | None = option(
        None, "images: a folder with a sub-folder for each class, or tfds:NAME, tfds:NAME/CONFIG:VERSION"
    )
    data_path: FilePath | None = option(None, "tfds data_dir (default: tfds' own)")
    stream: bool = option(
        False, "decode images from their files while they are needed, as is done where memory is too small"
    )
    skip_bad: bool = option(False, "leave out files of a folder that cannot be read; the report counts them")
    val_batch_size: int = option(256, "images per batch of evaluation", ge=1)
    normalisation: Literal["auto", "rgb", "bgr", "imagenet", *NORMALISATIONS, *PIXELS] = option(
        "auto",
        "what the network reads: a range of numbers, keras.applications' caffe or torch, or constants; EKG's "
        "weights need bgr, those from PyTorch imagenet; auto asks the file, and tries all on a model of "
        "one's own",
        alias="pixels",
    )
    mean: list[float] | None = option(
        None, "of each channel, 0 to 255, that the network wants subtracted; with --std", alias="pixel_mean"
    )
    std: list[Annotated[float, Field(gt=0)]] | None = option(
        None, "of each channel, by which it wants them divided", alias="pixel_std"
    )

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        if (self.mean is None) != (self.std is None) or len(self.mean or ()) != len(self.std or ()):
            raise UsageError(f"--mean and --std go together. Received: mean={self.mean}, std={self.std}")

    @property
    def constants(self) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
        """Mean and standard deviation of each channel, where they were given."""
        return (tuple(self.mean), tuple(self.std)) if self.mean and self.std else None


class OwnOptions(ImageOptions):
    """What is done to a model of one's own on images."""

    loss: str | None = option(
        None, "Keras' name of the loss (default: what the model was compiled with, else cross-entropy)"
    )
    unfreeze: bool = option(True, "train frozen layers of the model, which are frozen again in the file")
    force: bool = option(False, "go on with a model that gets its images no better than by chance")
    batch_size: int = option(128, "images at a time in training", ge=1)
    balanced: bool = option(
        False, "train on every class equally often: images of small classes come several times an epoch"
    )
    seed: int = option(1, "of training, and of what is drawn at random", ge=0, lt=2**31)
    train_path: FilePath | None = option(
        None, "run folder, in which the same command goes on when it was killed (default: a temporary one)"
    )

    _given_at: float = PrivateAttr(default_factory=time.monotonic)

    @property
    def given_at(self) -> float:
        """When the options were read, which is before TensorFlow is imported, as `time.monotonic` counts."""
        return self._given_at


class Common(ImageOptions, DeviceOptions):
    """What training and evaluation both need to know."""

    arch: str = option("ResNet-56", "architecture; must be that of the snapshots")
    dataset: str = option("CIFAR10", "data set; --data instead of it names one's own images")
    tpu: str | None = option(None, "address of a TPU, or local")
    compile: bool | None = option(None, "force XLA on or off (default: on for GPU and TPU)")
    bn: Literal["moving", "batch"] = option(
        "moving", "evaluate with moving averages or, as EKG does, batch statistics"
    )

    def __init__(self, **values: Any) -> None:
        super().__init__(**_spelled_out(values))


class RunOptions(Common, OwnOptions, TypeOptions):
    """What every run needs to know: which recipe, where to, from what, on how many images at a time."""

    recipe: str = option("ekg", "name or file, behind --recipe")
    model: FilePath | None = option(
        None, "a Keras model of one's own, .keras or .h5, instead of --arch", first="[MODEL.keras]"
    )
    from_scratch: bool = option(False, "draw the weights of --model anew: the recipe trains them")
    keep_macs: float | None = option(
        None, "ratio of the MACs that stay at the end, in place of what the recipe removes", gt=0, lt=1
    )
    minutes: float | None = option(
        None, "that the whole command may take, its report included: it decides by itself what to try", gt=0
    )
    shorten: float = option(
        1.0, "factor of the epochs of all trainings behind the first, which keep at least one", gt=0, le=1
    )
    set: list[str] = option(
        [],
        "STEP.KEY=VALUE …: other values for steps of the recipe, such as train.epochs=2",
        action="extend",
    )
    until: str | None = option(None, "stop behind this step of the recipe, and report")
    train_path: FilePath = option("../test", "run folder; the same command continues a run that was killed")
    trained_param: FilePath | None = option(
        None, "snapshot to start from, published or ours; without it a network with random weights"
    )
    teacher: list[FilePath] = option(
        [],
        'snapshots that a step with teacher = "files" learns from: logits of all, features of the first',
    )
    train_images: int | None = option(None, "train on this many images only", ge=1)
    accum: int = option(1, "micro-batches per batch (gradient accumulation)", ge=1)
    sync_bn: bool = option(
        False, "take BatchNorm's statistics over all devices, not over the share of each; not with --accum"
    )
    auto_accum: bool = option(False, "halve micro-batches where memory runs out, and go on")
    nan: Literal["stop", "skip", "rewind"] = option(
        "stop",
        "where loss or gradient are not finite: stop; skip such steps, up to 10 in a row; or rewind to the "
        "last checkpoint with half the learning rate, up to 5 times",
    )
    save_minutes: float = option(10.0, "minutes between two checkpoints of a training", gt=0)
    do_log: int = option(200, "steps between two updates of the progress line", ge=1)
    setting: str | None = option(None, "a label for this run, shown in its report")
    time_seconds: float = option(3.0, "seconds in which the report times its networks, on each backend", gt=0)
    pipeline: Annotated[str, NameIn(PIPELINES)] = option(
        "kesi", "the system whose crops, batches and constants are used"
    )
    per_batch_crop: bool | None = option(
        None, "one crop offset per batch, as in EKG's program (default: the system's own)"
    )
    augmentation: Literal["recipe", "none", "flip", "crop", "flip+crop"] = option(
        "recipe", "of images in training: as the recipe has it, or these; digits must not be mirrored"
    )
    shortcut: Literal["A", "A'", "B"] | None = option(
        None, "of a ResNet that starts at random (default: the system's own)"
    )
    head: Literal["hidden", "single"] | None = option(
        None, "of a VGG that starts at random (default: the published one)"
    )
    stem: Literal["imagenet", "cifar"] | None = option(
        None, "of a net for both sizes of images (default: its family's; of 128 pixels or more imagenet)"
    )
    dropout: float | None = option(None, "of a wide ResNet that starts at random", ge=0, lt=1)

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        if self.sync_bn and (self.accum > 1 or self.auto_accum):
            raise UsageError(
                "--sync_bn takes the statistics of whole batches: leave out --accum and --auto_accum. "
                f"Received: accum={self.accum}, auto_accum={self.auto_accum}"
            )
        if self.batch_size % self.accum:
            raise UsageError(
                f"--accum must divide --batch_size {self.batch_size}. Received: accum={self.accum}"
            )

    @property
    def images(self) -> Pipeline:
        """What is done to images before a net of this project reads them; see `Subject.shown`."""
        system = PIPELINES.find(self.pipeline)
        if self.per_batch_crop is not None:
            system = dataclasses.replace(system, per_batch_crop=self.per_batch_crop)
        if self.augmentation == "recipe":
            return system
        pad = system.pad if "crop" in self.augmentation else 0
        return dataclasses.replace(system, pad=pad, flip="flip" in self.augmentation)


class EvaluateOptions(Common):
    """Evaluate snapshots on the test images."""

    trained_param: list[FilePath] = option([], "snapshots; several are evaluated as an ensemble")
    loss: str | None = option(
        None, "Keras' name of the loss of a model of one's own (default: what the snapshot says)"
    )

    def model_post_init(self, context: Any, /) -> None:
        super().model_post_init(context)
        if not self.trained_param:
            raise UsageError("Which snapshot? Give --trained_param FILE.pkl")


def _spelled_out(values: Mapping[str, Any]) -> dict[str, Any]:
    """`data` as a data set and its folder, the name of a model's file as its architecture.

    Raises `UsageError` for two names of one thing.
    """
    found = dict(values)
    if data := found.get("data"):
        if found.get("dataset", "CIFAR10") != "CIFAR10":
            raise UsageError(f"Give --data or --dataset. Received: {data} and {found['dataset']}")
        folder = {} if data.startswith("tfds:") else {"data_path": data}
        found |= {"dataset": "folder" if folder else data, **folder}
    if model := found.get("model"):
        if found.get("arch", stem := Path(model).stem) != stem:
            raise UsageError(f"Give --model or --arch. Received: {model} and {found['arch']}")
        found["arch"] = stem
    return found
