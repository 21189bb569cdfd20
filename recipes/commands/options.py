"""Options of the commands on a model of one's own, and of `report`. Plain Python."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from secateur.coding.sharing.kernels import KINDS
from secateur.pruning.conventions import CONVENTIONS
from secateur.pruning.score.registry import NORMALISERS
from secateur.recipes.engine.options import NameIn, Options, option
from secateur.runs.errors import UsageError

TARGETS = ("keep", "keep_macs", "keep_params", "keep_bytes", "keep_ms", "max_ms")
TIMED = ("keep_ms", "max_ms")
OF_SCORES = ("criterion", "reduce", "normalise")
OF_WIDTHS = ("allocation", "fill", "round_to", "min_channels", "max_drop", "ignore")
SCORED = 2560  # images that a criterion reads at most: its time has a bound, however many there are
AUGMENTATIONS = {"none": (False, False), "flip": (True, False), "flip+crop": (True, True)}
RANGES_OF_PIXELS = {"0..255": (0.0, 255.0), "0..1": (0.0, 1.0), "-1..1": (-1.0, 1.0)}
IMAGES = "images: a folder with a sub-folder for each class, or tfds:NAME, tfds:NAME/CONFIG:VERSION"


class ImageOptions(Options):
    """Images, and how the model reads them."""

    data: str | None = option(None, IMAGES)
    data_path: str | None = option(None, "data_dir of tfds")
    pixels: Literal[tuple(RANGES_OF_PIXELS)] = option("0..255", "what the model reads")
    batch_size: int = option(
        64, "images at a time, but for criteria, which take as many as fit into 1 GiB", ge=1
    )
    seed: int = option(1, "of scores, curves and fine-tuning", ge=0, le=2**31 - 1)


class TuningOptions(ImageOptions):
    """Epochs of training on the images."""

    finetune_epochs: int = option(0, "epochs of fine-tuning", ge=0)
    augment: Literal[tuple(AUGMENTATIONS)] = option(
        "none", "of fine-tuning: mirror images, also shift them; digits and letters must not be mirrored"
    )
    optimizer: Literal["sgd", "adam"] = option("sgd", "of fine-tuning")
    learning_rate: float = option(1e-2, "of fine-tuning, falling to 0 along a cosine", gt=0)


class PruneOptions(TuningOptions):
    """Make a Keras model smaller: whole channels go, plain Keras layers stay."""

    model: str = option(
        ..., "the .keras file to prune; it comes first and needs no flag", first="MODEL.keras"
    )
    output: str | None = option(None, "the smaller model, a .keras file", short="-o")
    dry_run: bool = option(False, "print groups, widths and costs, write no model")

    keep: float | None = option(None, "ratio of the channels to keep", gt=0, lt=1)
    keep_macs: float | None = option(None, "ratio of the operations to keep", gt=0, lt=1)
    keep_params: float | None = option(None, "ratio of the parameters to keep", gt=0, lt=1)
    keep_bytes: float | None = option(None, "ratio of the bytes of the weights to keep", gt=0, lt=1)
    keep_ms: float | None = option(None, "ratio of the measured milliseconds to keep", gt=0, lt=1)
    max_ms: float | None = option(None, "measured milliseconds of one call at most", gt=0)
    plan: str | None = option(None, "apply this plan, a .json file, instead of a budget")
    save_plan: str | None = option(None, "write the plan to this .json file, in a dry run too")

    criterion: str = option("l1", f"which channels stay; one that reads images sees at most {SCORED:,}")
    reduce: Literal["mean", "sum", "max", "first"] = option(
        "mean", "how the members of a group share a score"
    )
    normalise: Literal[NORMALISERS] | None = option(
        None, "what scores of a group are divided by (default: the criterion's choice)"
    )
    allocation: Literal["uniform", "global", "isomorphic", "sensitivity"] | None = option(
        None,
        "how the budget is spread over groups (default: uniform; with --keep_ms and --max_ms a rule of "
        "their own)",
    )
    sensitivity: bool = option(
        False, "measure the accuracy with each group narrowed by itself, on training images"
    )
    convention: Annotated[str, NameIn(CONVENTIONS)] = option("mac", "what is counted as an operation")
    fill: bool = option(True, "add single channels until none fits the budget")
    preserve_norm: bool = option(False, "rescale each kernel that was cut to the norm that it had")
    round_to: int = option(1, "widths are multiples of this", ge=1)
    min_channels: int = option(1, "that every group keeps", ge=1)
    max_drop: float = option(1.0, "largest ratio of its channels that a group loses", gt=0, le=1)
    ignore: list[str] = option([], "layers whose channels all stay; patterns may be used")

    backend: Literal["litert", "frozen"] = option("litert", "what milliseconds are measured on")
    threads: int = option(1, "of the measured call; 0 is the program's own choice", ge=0)
    ms_batch: int = option(1, "images of the measured call", ge=1)
    cache: str | None = option(None, "folder of measured layers (default: the user's cache folder)")

    export: list[str] = option([], "also write these: litert, onnx, savedmodel")
    report: str | None = option(None, "an HTML page; its numbers go to a .json file beside it")

    def model_post_init(self, context: Any, /) -> None:
        """Raises `UsageError` for options that contradict each other."""
        if not self.dry_run and not self.output:
            raise UsageError("Where to? Give -o SMALL.keras, or --dry_run to write no model")
        given = [name for name in (*TARGETS, "plan") if getattr(self, name) is not None]
        if len(given) != 1:
            flags = ", ".join(f"--{name}" for name in (*TARGETS, "plan"))
            got = " and ".join(f"--{name}" for name in given) or "none"
            raise UsageError(f"Give one of {flags}. Received: {got}")
        if self.finetune_epochs and not self.data:
            raise UsageError("Fine-tuning needs images: give --data FOLDER or tfds:NAME. Received: data=None")
        if (self.sensitivity or self.allocation == "sensitivity") and not self.data:
            raise UsageError("Sensitivity needs images: give --data FOLDER or tfds:NAME. Received: data=None")
        if self.target[0] in TIMED and not (self.fill or self.allocation):
            raise UsageError(
                "--no-fill needs an --allocation where milliseconds are measured. Received: "
                f"--{self.target[0]} {self.target[1]:g}"
            )
        # Scores still say which channels of a group the curves of --sensitivity take first.
        decided = OF_WIDTHS if self.sensitivity else (*OF_SCORES, *OF_WIDTHS)
        changed = [f"--{n}" for n in decided if getattr(self, n) != type(self).model_fields[n].default]
        if self.plan and changed:
            raise UsageError(f"--plan says already which channels stay. Received: --plan and {changed[0]}")

    @property
    def target(self) -> tuple[str, float | str]:
        """Which budget was given, and its value; "plan" and its file where that was given instead."""
        names = (*TARGETS, "plan")
        return next((name, value) for name in names if (value := getattr(self, name)) is not None)


class EncodeOptions(ImageOptions):
    """A Keras model or a snapshot in the fewest bytes: every bit of its weights is kept."""

    file: str = option(..., "a .keras file or a snapshot; it comes first and needs no flag", first="FILE")
    output: str = option(..., "the .kpz file to write", short="-o")
    bits: int | None = option(
        None, "share the weights of each convolution first, at most 2^bits values and 0", ge=1, le=16
    )
    keep_bytes: float | None = option(
        None, "choose bits for this ratio of the float32 bytes of these kernels; with --data", gt=0, lt=1
    )
    max_loss: float | None = option(
        None, "choose the bits for so much more loss on images held out; with --data", gt=0
    )
    layers: Literal[KINDS] = option("conv", "whose kernels share weights; all of both")

    def model_post_init(self, context: Any, /) -> None:
        """Raises `UsageError` for two ways to the bits, and where images are missing or have no use."""
        given = [name for name in ("bits", "keep_bytes", "max_loss") if getattr(self, name) is not None]
        if len(given) > 1:
            raise UsageError(f"Give one of them. Received: --{' and --'.join(given)}")
        if self.chooses and not self.data:
            raise UsageError(
                f"--{given[0]} needs images: give --data FOLDER or tfds:NAME. Received: data=None"
            )
        if self.data and not self.chooses:
            raise UsageError(
                f"Images choose bits: give --keep_bytes or --max_loss with --data. Received: data={self.data}"
            )

    @property
    def chooses(self) -> bool:
        """Whether the bits of each convolution are to be chosen."""
        return self.keep_bytes is not None or self.max_loss is not None


class DecodeOptions(Options):
    """A .kpz file back to a Keras model, bit for bit."""

    file: str = option(..., "the .kpz file; it comes first and needs no flag", first="FILE")
    output: str = option(..., "the .keras file to write", short="-o")


class InspectOptions(Options):
    """What a .kpz file holds, and where its bytes go."""

    file: str = option(..., "the .kpz file; it comes first and needs no flag", first="FILE")


class Int8Options(TuningOptions):
    """A Keras model as a LiteRT file of whole numbers of 8 bits."""

    file: str = option(..., "a .keras file; it comes first and needs no flag", first="FILE")
    output: str = option(..., "the .tflite file to write", short="-o")
    data: str = option(..., IMAGES)
    learning_rate: float = option(1e-3, "of fine-tuning, falling to 0 along a cosine", gt=0)
    samples: int = option(512, "training images that show how large activations become", ge=1)
    numbers: Literal["float32", "int8", "uint8"] = option("float32", "what the file reads and gives")


class ReportOptions(Options):
    """The page of a report.json made again, or one of its pictures."""

    report: str = option(
        ..., "report.json of a run, or the JSON of `prune --report`; it comes first", first="REPORT.json"
    )
    picture: str | None = option(
        None, "write this alone, as SVG: widths, search, training, costs or sensitivity"
    )
    output: str | None = option(None, "the file to write (default: beside the report)", short="-o")
