"""Options of both programs: frozen dataclasses that the command lines are made from, with published names."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from pruning.settings import SearchSettings
from recipes.options import check_ranges, option, parse_into
from runs.errors import UsageError

CRITERIA = ("ekg", "l1", "l2", "random")
VOLATILE = ("gpu_id", "tpu", "do_log", "compile", "train_path", "data_path", "setting")
"""Options that may differ when a run continues; device and XLA change the last bits. `val_batch_size` is none
of them: teachers and re-estimated averages use the BN statistics of batches of that size. Options with a
`stage` may differ too: what depends on them is done again (see `recipes.stages`)."""


@dataclass(frozen=True, kw_only=True)
class Common:
    """What training and evaluation both need to know."""

    arch: str = option("ResNet-56", "architecture; must be that of the snapshots")
    dataset: str = option("CIFAR10", "data set")
    data_path: str | None = option(None, "tfds data_dir (default: tfds' own)")
    val_batch_size: int = option(256, "images per batch of evaluation", at_least=1)
    gpu_id: list[int] = option([0], "GPUs to use", nargs="+")
    tpu: str | None = option(None, "address of a TPU, or local")
    compile: bool | None = option(None, "force XLA on or off (default: on for GPU and TPU)")
    bn: str = option(
        "moving",
        "evaluate with moving averages or, as EKG does, batch statistics",
        choices=("moving", "batch"),
        stage="report",
    )
    normalisation: str = option(
        "auto", "order of the constants; bgr is what EKG's weights need", choices=("auto", "rgb", "bgr")
    )

    def __post_init__(self) -> None:
        check_ranges(self)


@dataclass(frozen=True, kw_only=True)
class Config(Common):
    """Every option of `train_cifar.py`; names and defaults are EKG's where EKG has them."""

    train_path: str = option("../test", "run folder; the same command continues a run that was killed")
    trained_param: str | None = option(
        None, "snapshot to prune, published or ours; without it the baseline is trained"
    )
    Knowledge: bool | None = option(
        None, "fine-tune with the memory bank (default: on with --criterion ekg)", stage="fine-tune"
    )
    num_teacher: int = option(5, "interim networks in the memory bank", at_least=1, stage="bank")
    learning_rate: float = option(1e-2, "of the fine-tuning", above=0, stage="fine-tune")
    decay_points: list[float] = option(
        [0.3, 0.6, 0.8],
        "parts of the fine-tuning after which the rate decays",
        nargs="+",
        at_least=0,
        at_most=1,
        stage="fine-tune",
    )
    decay_rate: float = option(0.2, "factor of each decay", above=0, stage="fine-tune")
    weight_decay: float = option(
        5e-4, "coupled L2 on all weights in the fine-tuning", at_least=0, stage="fine-tune"
    )
    batch_size: int = option(128, "of training", at_least=1)
    train_epoch: int = option(100, "epochs of fine-tuning", at_least=1, stage="fine-tune")
    searching: bool = option(False, "stop after the search and the slimmed network", stage="report")
    search_target_rate: float = option(0.45, "operations to keep, EKG's count", alias="target_rate")
    search_step: float = option(0.2, "ratio of channels that one step of the search removes")
    search_batch_size: int = option(256, "of warm-up and search")
    search_seed: int = option(1, "of the warm-up and of --criterion random", at_least=0, below=2**31)
    seed: int = option(1, "of training", at_least=0, below=2**31)
    accum: int = option(1, "micro-batches per batch (gradient accumulation)", at_least=1)
    do_log: int = option(200, "steps between two updates of the progress line", at_least=1)
    setting: str | None = option(None, "a label for this run, shown in its report")

    criterion: str = option(
        "ekg", "how to choose channels: ekg searches, the others prune uniformly", choices=CRITERIA
    )
    round_to: int = option(1, "widths are multiples of this")
    search_dtype: str = option("float32", "of the search", choices=("float32", "bfloat16"))
    baseline_epoch: int = option(300, "epochs of the baseline, when it has to be trained", at_least=1)
    shortcut: str = option("B", "shortcut of a baseline that has to be trained", choices=("A", "A'", "B"))
    per_batch_crop: bool = option(False, "one crop offset per batch, as in EKG's program")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.Knowledge and self.criterion != "ekg":
            raise UsageError(
                f"The memory bank needs the search. Received: --Knowledge with --criterion {self.criterion}"
            )
        if self.Knowledge is None:  # said or not, it is the same run
            object.__setattr__(self, "Knowledge", self.criterion == "ekg")
        if self.batch_size % self.accum:
            raise UsageError(
                f"--accum must divide --batch_size {self.batch_size}. Received: accum={self.accum}"
            )
        self.search_settings()

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


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(Common):
    """Every option of `test.py`."""

    trained_param: list[str] = option([], "snapshots; several are evaluated as an ensemble", nargs="+")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.trained_param:
            raise UsageError("Which snapshot? Give --trained_param FILE.pkl")


def parse(argv: Sequence[str] | None = None) -> Config:
    """Command line of `train_cifar.py` → `Config`."""
    return parse_into(
        Config, argv, prog="train_cifar.py", description="Prune a CIFAR network and fine-tune it (EKG)."
    )


def parse_evaluate(argv: Sequence[str] | None = None) -> EvaluateConfig:
    """Command line of `test.py` → `EvaluateConfig`."""
    return parse_into(
        EvaluateConfig, argv, prog="test.py", description="Evaluate snapshots on the test images."
    )
