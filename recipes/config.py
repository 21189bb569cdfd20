"""Options of a run: one frozen dataclass, from which the command line is made. Published names are kept."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from pruning.settings import SearchSettings
from runs.errors import UsageError
from runs.suggest import nearest

CRITERIA = ("ekg", "l1", "l2", "random")
VOLATILE = ("gpu_id", "tpu", "do_log", "compile", "train_path", "data_path")
"""Options that do not change a result: a run may be continued with others. `val_batch_size` is none of them:
teachers and re-estimated averages use the BN statistics of batches of that size."""


def option(default, help_: str, **more):
    """A field of an options class: default, help text, and what argparse should know besides."""
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata={"help": help_, **more})
    return dataclasses.field(default=default, metadata={"help": help_, **more})


@dataclass(frozen=True)
class Config:
    """Every option of `train_cifar.py`; the names and defaults of the upper part are EKG's."""

    train_path: str = option("../test", "run folder; the same command continues a run that was killed")
    data_path: str | None = option(None, "tfds data_dir (default: tfds' own)")
    arch: str = option("ResNet-56", "architecture")
    dataset: str = option("CIFAR10", "data set")
    trained_param: str | None = option(
        None, "snapshot to prune, published or ours; without it the baseline is trained"
    )
    Knowledge: bool | None = option(None, "fine-tune with the memory bank (default: on with --criterion ekg)")
    num_teacher: int = option(5, "interim networks in the memory bank")
    learning_rate: float = option(1e-2, "of the fine-tuning")
    decay_points: list[float] = option(
        [0.3, 0.6, 0.8], "parts of the fine-tuning after which the rate decays", nargs="+"
    )
    decay_rate: float = option(0.2, "factor of each decay")
    weight_decay: float = option(5e-4, "coupled L2 on all weights")
    batch_size: int = option(128, "of training")
    val_batch_size: int = option(256, "of evaluation")
    train_epoch: int = option(100, "epochs of fine-tuning")
    searching: bool = option(False, "stop after the search and the slimmed network")
    search_target_rate: float = option(0.45, "operations to keep, EKG's count", alias="target_rate")
    search_step: float = option(0.2, "ratio of channels that one step of the search removes")
    search_batch_size: int = option(256, "of warm-up and search")
    search_seed: int = option(1, "of the warm-up")
    gpu_id: list[int] = option([0], "GPUs to use", nargs="+")
    seed: int = option(1, "of training")
    accum: int = option(1, "micro-batches per batch (gradient accumulation)")
    do_log: int = option(200, "steps between two updates of the progress line")
    compile: bool | None = option(None, "force XLA on or off (default: on for GPU and TPU)")
    setting: str | None = option(None, "a label for this run, shown in its report")

    criterion: str = option(
        "ekg", "how to choose channels: ekg searches, the others prune uniformly", choices=CRITERIA
    )
    round_to: int = option(1, "widths are multiples of this")
    search_dtype: str = option("float32", "of the search", choices=("float32", "bfloat16"))
    baseline_epoch: int = option(300, "epochs of the baseline, when it has to be trained")
    shortcut: str = option("B", "shortcut of a baseline that has to be trained", choices=("A", "A'", "B"))
    bn: str = option(
        "moving",
        "evaluate with moving averages or, as EKG does, batch statistics",
        choices=("moving", "batch"),
    )
    normalisation: str = option(
        "auto", "order of the constants; bgr is what EKG's weights need", choices=("auto", "rgb", "bgr")
    )
    per_batch_crop: bool = option(False, "one crop offset per batch, as in EKG's program")
    tpu: str | None = option(None, "address of a TPU, or local")

    def __post_init__(self) -> None:
        if self.Knowledge and self.criterion != "ekg":
            raise UsageError(
                f"The memory bank needs the search. Received: --Knowledge with --criterion {self.criterion}"
            )
        for name in (
            "num_teacher",
            "batch_size",
            "val_batch_size",
            "train_epoch",
            "baseline_epoch",
            "accum",
            "do_log",
        ):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name} must be at least 1. Received: {name}={getattr(self, name)}")
        for name in ("seed", "search_seed"):
            if not 0 <= getattr(self, name) < 2**31:
                raise UsageError(f"--{name} must lie in [0, 2^31). Received: {name}={getattr(self, name)}")
        if not all(0 <= point <= 1 for point in self.decay_points):
            raise UsageError(f"--decay_points must lie in [0, 1]. Received: decay_points={self.decay_points}")
        for name in ("learning_rate", "decay_rate"):
            if not 0 < getattr(self, name) < float("inf"):
                raise UsageError(f"--{name} must be positive. Received: {name}={getattr(self, name)}")
        if not 0 <= self.weight_decay < float("inf"):
            raise UsageError(
                f"--weight_decay must not be negative. Received: weight_decay={self.weight_decay}"
            )
        if self.batch_size % self.accum:
            raise UsageError(
                f"--accum must divide --batch_size {self.batch_size}. Received: accum={self.accum}"
            )
        self.search_settings()

    @property
    def with_knowledge(self) -> bool:
        """Whether the fine-tuning has teachers."""
        return self.criterion == "ekg" if self.Knowledge is None else self.Knowledge

    def search_settings(self) -> SearchSettings:
        """The options of the search; raises `UsageError` when one is out of range."""
        return SearchSettings(
            self.search_target_rate,
            self.search_step,
            self.search_batch_size,
            self.round_to,
            self.search_dtype,
        )

    def to_json(self) -> dict:
        """Plain types, for config.json."""
        return dataclasses.asdict(self)


def parse(argv: Sequence[str] | None = None, prog: str = "train_cifar.py") -> Config:
    """Command line → `Config`. Unknown flags are an error that names the nearest one."""
    parser = Parser(prog=prog, description="Prune a CIFAR network and fine-tune it (EKG).")
    for field in dataclasses.fields(Config):
        add_option(parser, field)
    return Config(**vars(parser.parse_args(argv)))


class Parser(argparse.ArgumentParser):
    """Fails with a `UsageError`, and takes no abbreviated flags: a typo must not become another option."""

    def __init__(self, **options) -> None:
        super().__init__(allow_abbrev=False, usage="%(prog)s [--flag value …]", **options)

    def error(self, message: str) -> None:
        """Called by argparse."""
        if message.startswith("unrecognized arguments: --"):
            flag = message.split()[2].split("=")[0]
            hint, _, _ = nearest(flag, self._option_string_actions).partition("Valid:")
            message = f"{message}. {hint}".rstrip()
        raise UsageError(f"{message}\nSee {self.prog} --help")


def add_option(parser: argparse.ArgumentParser, field: dataclasses.Field) -> None:
    """One field of a dataclass as a flag; its type comes from the annotation."""
    flags = [f"--{name}" for name in (field.name, field.metadata.get("alias")) if name]
    default = field.default if field.default is not dataclasses.MISSING else field.default_factory()
    options = {"dest": field.name, "default": default, "help": _help(field.metadata["help"], default)}
    if field.type.startswith("bool"):
        parser.add_argument(*flags, action=argparse.BooleanOptionalAction, **options)
        return
    for name in ("choices", "nargs"):
        if name in field.metadata:
            options[name] = field.metadata[name]
    kinds = {"int": int, "float": float, "list[float]": float, "list[int]": int}
    kind = kinds.get(field.type, str)
    if "choices" not in options:
        options["metavar"] = {int: "N", float: "X", str: "TEXT"}[kind]
    parser.add_argument(*flags, type=kind, **options)


def _help(text: str, default) -> str:
    """The help text with a default that says more than "off" or "see the text"."""
    if default is None or default is False or default == []:
        return text
    return f"{text} (default: {' '.join(map(str, default)) if isinstance(default, list) else default})"
