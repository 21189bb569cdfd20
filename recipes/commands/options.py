"""Options of the commands on a model of one's own, and of `report`. Plain Python."""

from __future__ import annotations

from typing import Any, Literal

from secateur.coding.sharing.kernels import KINDS, VECTOR_BITS
from secateur.recipes.engine.config import DeviceOptions, OwnOptions, TypeOptions
from secateur.recipes.engine.cutting import PlanOptions
from secateur.recipes.engine.options import FilePath, Options, option
from secateur.runs.errors import UsageError

NO_IMAGES = "needs images: give --data FOLDER or tfds:NAME. Received: data=None"
OF_AUTO = ("keep_macs", "keep_ms", "keep_bytes")  # budgets that the recipe knows


class TuningOptions(OwnOptions):
    """Epochs of training on the images."""

    finetune_epochs: int = option(0, "epochs of fine-tuning", ge=0)
    augmentation: Literal["none", "flip", "crop", "flip+crop"] = option(
        "none",
        "of fine-tuning: mirror images, also shift them; digits and letters must not be mirrored",
        alias="augment",
    )
    optimizer: Literal["sgd", "adam"] = option("sgd", "of fine-tuning")
    learning_rate: float = option(1e-2, "of fine-tuning, falling to 0 along a cosine", gt=0)


class PruneOptions(PlanOptions, TuningOptions, DeviceOptions, TypeOptions):
    """Make a Keras model smaller: whole channels go, plain Keras layers stay."""

    model: FilePath = option(
        ..., "the .keras or .h5 file to prune; it comes first and needs no flag", first="MODEL.keras"
    )
    output: FilePath | None = option(None, "the smaller model, a .keras file", short="-o")
    minutes: float | None = option(
        None, "that this may take: as the recipe auto decides what to try, and trains; with --data", gt=0
    )
    int8: bool = option(
        False,
        "with --minutes, also a LiteRT file of whole numbers, SMALL_int8.tflite; --keep_bytes makes it too",
    )
    dry_run: bool = option(False, "print groups, widths and costs, write no model")
    save_plan: FilePath | None = option(None, "write the plan to this .json file, in a dry run too")
    export: list[str] = option([], "also write these: litert, onnx, savedmodel")
    report: FilePath | None = option(None, "an HTML page; its numbers go to a .json file beside it")

    def model_post_init(self, context: Any, /) -> None:
        """Raises `UsageError` for options that contradict each other."""
        if not self.dry_run and not self.output:
            raise UsageError("Where to? Give -o SMALL.keras, or --dry_run to write no model")
        super().model_post_init(context)
        if self.keep == 1:
            raise UsageError("--keep must be finite and above 0 and below 1. Received: keep=1")
        if self.finetune_epochs and not self.data:
            raise UsageError(f"Fine-tuning {NO_IMAGES}")
        if self.curved and not self.data:
            raise UsageError(f"Sensitivity {NO_IMAGES}")
        for name in ("gpu_id", "dtype"):
            if name in self.model_fields_set and not self.data:
                raise UsageError(f"--{name} {NO_IMAGES}")
        if self.int8 and not self.minutes:
            raise UsageError("--int8 is of --minutes; else: secateur int8 SMALL.keras. Received: int8=True")
        if self.minutes:
            self._check_minutes()

    @property
    def budgets(self) -> tuple[str, ...]:
        return OF_AUTO if self.minutes else super().budgets

    def _check_minutes(self) -> None:
        if not self.data:
            raise UsageError(f"--minutes {NO_IMAGES}")
        decided = {*PlanOptions.model_fields, "finetune_epochs", "optimizer", "learning_rate", "dry_run"}
        for name, field in type(self).model_fields.items():
            if name in decided.difference(OF_AUTO) and getattr(self, name) != field.default:
                raise UsageError(
                    f"--minutes decides by itself, for {' or '.join(f'--{one}' for one in OF_AUTO)}. "
                    f"Received: --minutes and --{name}"
                )


class EncodeOptions(OwnOptions):
    """A Keras model or a snapshot in the fewest bytes; without an option every bit of its weights is kept."""

    file: FilePath = option(
        ..., "a .keras or .h5 file, or a snapshot; it comes first and needs no flag", first="FILE"
    )
    output: FilePath = option(..., "the .kpz file to write", short="-o")
    bits: int | None = option(
        None, "share the weights of each convolution first, at most 2^bits values and 0", ge=1, le=16
    )
    keep_bytes: float | None = option(
        None,
        "values by the rate of their code, for this ratio of these kernels' float32 bytes; with --data",
        gt=0,
        lt=1,
    )
    max_loss: float | None = option(
        None,
        "values by the rate of their code, for so much more loss on images held out; with --data",
        gt=0,
    )
    layers: Literal[KINDS] = option("conv", "whose kernels share weights; all of both")
    vector_bits: int | None = option(
        None,
        "round biases, vectors of normalisations and shared values to so many bits",
        ge=VECTOR_BITS[0],
        le=VECTOR_BITS[-1],
    )

    def model_post_init(self, context: Any, /) -> None:
        """Raises `UsageError` for two ways to few values, and where images are missing or have no use."""
        super().model_post_init(context)
        given = [name for name in ("bits", "keep_bytes", "max_loss") if getattr(self, name) is not None]
        if len(given) > 1:
            raise UsageError(f"Give one of them. Received: --{' and --'.join(given)}")
        if "layers" in self.model_fields_set and not given:
            raise UsageError(
                "Whose kernels share? Give --bits, --keep_bytes or --max_loss. "
                f"Received: layers={self.layers}"
            )
        if self.chooses and not self.data:
            raise UsageError(f"--{given[0]} {NO_IMAGES}")
        if self.data and not self.chooses:
            raise UsageError(
                "Images choose values: give --keep_bytes or --max_loss with --data. "
                f"Received: data={self.data}"
            )

    @property
    def chooses(self) -> bool:
        """Whether images choose the values of each kernel."""
        return self.keep_bytes is not None or self.max_loss is not None


class DecodeOptions(Options):
    """A .kpz file back to a Keras model, bit for bit."""

    file: FilePath = option(..., "the .kpz file; it comes first and needs no flag", first="FILE")
    output: FilePath = option(..., "the .keras file to write", short="-o")


class InspectOptions(Options):
    """What a .kpz file holds, and where its bytes go."""

    file: FilePath = option(..., "the .kpz file; it comes first and needs no flag", first="FILE")


class Int8Options(TuningOptions):
    """A Keras model as a LiteRT file of whole numbers of 8 bits."""

    file: FilePath = option(..., "a .keras or .h5 file; it comes first and needs no flag", first="FILE")
    output: FilePath = option(..., "the .tflite file to write", short="-o")
    data: FilePath = option(..., "images that calibrate it, as for prune; without sub-folders: no labels")
    learning_rate: float = option(1e-3, "of fine-tuning, falling to 0 along a cosine", gt=0)
    samples: int = option(512, "training images that show how large activations become", ge=1)
    numbers: Literal["float32", "int8", "uint8"] = option("float32", "what the file reads and gives")


class ReportOptions(Options):
    """The page of a report.json made again, or one of its pictures."""

    report: FilePath = option(
        ..., "report.json of a run, or the JSON of `prune --report`; it comes first", first="REPORT.json"
    )
    picture: str | None = option(
        None, "write this alone, as SVG: widths, search, training, costs, sensitivity or landscapes"
    )
    output: FilePath | None = option(None, "the file to write (default: beside the report)", short="-o")
