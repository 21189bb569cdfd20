"""Options of `python -m pruning MODEL.keras`."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields

from secateur.pruning.conventions import CONVENTIONS
from secateur.pruning.score.registry import NORMALISERS
from secateur.recipes.engine.options import check_ranges, option, parse_into
from secateur.runs.errors import UsageError

PROG = "python -m pruning MODEL.keras"
TARGETS = ("keep", "keep_macs", "keep_params", "keep_bytes", "keep_ms", "max_ms")
TIMED = ("keep_ms", "max_ms")
OF_SCORES = ("criterion", "reduce", "normalise")
OF_WIDTHS = ("allocation", "fill", "round_to", "min_channels", "max_drop", "ignore")
RATIOS = {"above": 0, "below": 1}
SCORED = 2560  # images that a criterion reads at most: its time has a bound, however many there are
AUGMENTATIONS = {"none": (False, False), "flip": (True, False), "flip+crop": (True, True)}
RANGES_OF_PIXELS = {"0..255": (0.0, 255.0), "0..1": (0.0, 1.0), "-1..1": (-1.0, 1.0)}


@dataclass(frozen=True, kw_only=True)
class PruneOptions:
    """What to prune, how much, by which rule, and what to write."""

    model: str = option("", "the .keras file to prune; it comes first and needs no flag")
    output: str | None = option(None, "the smaller model, a .keras file (also -o)")
    dry_run: bool = option(False, "print groups, widths and costs, write no model")

    keep: float | None = option(None, "ratio of the channels to keep", **RATIOS)
    keep_macs: float | None = option(None, "ratio of the operations to keep", **RATIOS)
    keep_params: float | None = option(None, "ratio of the parameters to keep", **RATIOS)
    keep_bytes: float | None = option(None, "ratio of the bytes of the weights to keep", **RATIOS)
    keep_ms: float | None = option(None, "ratio of the measured milliseconds to keep", **RATIOS)
    max_ms: float | None = option(None, "measured milliseconds of one call at most", above=0)

    plan: str | None = option(None, "apply this plan, a .json file, instead of a budget")
    save_plan: str | None = option(None, "write the plan to this .json file, in a dry run too")

    criterion: str = option("l1", f"which channels stay; one that reads images sees at most {SCORED:,}")
    reduce: str = option(
        "mean", "how the members of a group share a score", choices=("mean", "sum", "max", "first")
    )
    normalise: str | None = option(
        None, "what scores of a group are divided by (default: the criterion's choice)", choices=NORMALISERS
    )
    allocation: str | None = option(
        None, "how the budget is spread over groups: uniform, global, isomorphic, sensitivity "
        "(default: uniform; with --keep_ms and --max_ms a rule of their own)",
        choices=("uniform", "global", "isomorphic", "sensitivity"),
    )  # fmt: skip
    sensitivity: bool = option(
        False, "measure the accuracy with each group narrowed by itself, on training images"
    )
    convention: str = option("mac", "what is counted as an operation", choices=tuple(CONVENTIONS))
    fill: bool = option(True, "add single channels until none fits the budget")
    preserve_norm: bool = option(False, "rescale each kernel that was cut to the norm that it had")
    round_to: int = option(1, "widths are multiples of this", at_least=1)
    min_channels: int = option(1, "that every group keeps", at_least=1)
    max_drop: float = option(1.0, "largest ratio of its channels that a group loses", above=0, at_most=1)
    ignore: list[str] = option([], "layers whose channels all stay; patterns may be used", nargs="+")
    seed: int = option(1, "of scores, curves and fine-tuning", at_least=0, at_most=2**31 - 1)

    data: str | None = option(
        None, "images: a folder with a sub-folder for each class, or tfds:NAME, tfds:NAME/CONFIG:VERSION"
    )
    data_path: str | None = option(None, "data_dir of tfds")
    pixels: str = option("0..255", "what the model reads", choices=tuple(RANGES_OF_PIXELS))
    finetune_epochs: int = option(0, "epochs of fine-tuning", at_least=0)
    augment: str = option(
        "none", "of fine-tuning: mirror images, also shift them; digits and letters must not be mirrored",
        choices=tuple(AUGMENTATIONS),
    )  # fmt: skip
    optimizer: str = option("sgd", "of fine-tuning", choices=("sgd", "adam"))
    learning_rate: float = option(1e-2, "of fine-tuning, falling to 0 along a cosine", above=0)
    batch_size: int = option(
        64, "images at a time, but for criteria, which take as many as fit into 1 GiB", at_least=1
    )

    backend: str = option("litert", "what milliseconds are measured on", choices=("litert", "frozen"))
    threads: int = option(1, "of the measured call; 0 is the program's own choice", at_least=0)
    ms_batch: int = option(1, "images of the measured call", at_least=1)
    cache: str | None = option(None, "folder of measured layers (default: the user's cache folder)")

    export: list[str] = option([], "also write these: litert, onnx, savedmodel", nargs="+")
    report: str | None = option(None, "an HTML page; its numbers go to a .json file beside it")

    def __post_init__(self) -> None:
        check_ranges(self)
        if not self.model:
            raise UsageError(f"Which model? Its file comes first: {PROG} --keep_macs 0.5 -o SMALL.keras")
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
        if self.plan:
            self._check_free()

    def _check_free(self) -> None:
        """Raises `UsageError` where a plan and something that makes another one were given.

        Scores still say which channels of a group the curves of `--sensitivity` take first.
        """
        defaults = {field.name: field.default for field in fields(self)} | {"ignore": []}
        names = OF_WIDTHS if self.sensitivity else (*OF_SCORES, *OF_WIDTHS)
        if made := [f"--{name}" for name in names if getattr(self, name) != defaults[name]]:
            raise UsageError(f"--plan says already which channels stay. Received: --plan and {made[0]}")

    @property
    def target(self) -> tuple[str, float | str]:
        """Which budget was given, and its value; "plan" and its file where that was given instead."""
        names = (*TARGETS, "plan")
        return next((name, value) for name in names if (value := getattr(self, name)) is not None)


def parse(argv: Sequence[str] | None = None) -> PruneOptions:
    """Command line → `PruneOptions`. Raises `UsageError` for what cannot be understood."""
    words = []
    for word in sys.argv[1:] if argv is None else argv:
        if re.match(r"-[\d.]", word) and words and re.fullmatch(r"--\w+", words[-1]):
            words[-1] += f"={word}"  # argparse takes -1..1 for a flag
        else:
            words.append("--output" if word == "-o" else word)
    if words and not words[0].startswith("-"):
        words.insert(0, "--model")
    description = "Make a Keras model smaller: whole channels go, plain Keras layers stay."
    return parse_into(PruneOptions, words, prog=PROG, description=description)
