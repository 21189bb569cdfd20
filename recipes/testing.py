"""What `test.py` does: snapshots in, accuracy on the test images out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from recipes.config import Parser, add_option, option
from runs import Snapshot, SnapshotError, UsageError, load_snapshot
from runs.suggest import nearest


@dataclass(frozen=True)
class TestConfig:
    """Every option of `test.py`; names and defaults as in EKG where EKG has them."""

    trained_param: list[str] = option([], "snapshots; several are evaluated as an ensemble", nargs="+")
    arch: str = option("ResNet-56", "architecture; must be that of the files")
    dataset: str = option("CIFAR10", "data set")
    data_path: str | None = option(None, "tfds data_dir (default: tfds' own)")
    val_batch_size: int = option(256, "images per batch")
    gpu_id: list[int] = option([0], "GPUs to use", nargs="+")
    tpu: str | None = option(None, "address of a TPU, or local")
    compile: bool | None = option(None, "force XLA on or off (default: on for GPU and TPU)")
    bn: str = option(
        "moving", "moving averages or, as EKG does, batch statistics", choices=("moving", "batch")
    )
    normalisation: str = option("auto", "order of the constants", choices=("auto", "rgb", "bgr"))

    def __post_init__(self) -> None:
        if not self.trained_param:
            raise UsageError("Which snapshot? Give --trained_param FILE.pkl")
        if self.val_batch_size < 1:
            raise UsageError(
                f"--val_batch_size must be at least 1. Received: val_batch_size={self.val_batch_size}"
            )


def parse(argv: Sequence[str] | None = None) -> TestConfig:
    """Command line → `TestConfig`."""
    parser = Parser(prog="test.py", description="Evaluate snapshots on the test images.")
    for field in dataclasses.fields(TestConfig):
        add_option(parser, field)
    return TestConfig(**vars(parser.parse_args(argv)))


def run(config: TestConfig) -> list[dict]:
    """Prints one line per snapshot, and one for the ensemble of several; returns the same as rows."""
    import dataloader
    from op_utils import make_strategy
    from recipes.training import score_logits

    check_names(config.arch, config.dataset)
    snapshots = [load_snapshot(path) for path in config.trained_param]
    strategy = make_strategy(config.gpu_id, config.tpu)
    models = [
        load_fitting(path, snapshot, config.arch, config.dataset, strategy)
        for path, snapshot in zip(config.trained_param, snapshots, strict=True)
    ]
    splits, rows, total = {}, [], 0.0
    for path, snapshot, model in zip(config.trained_param, snapshots, models, strict=True):
        order = normalisation_of(config.normalisation, snapshot)
        if order not in splits:
            splits[order] = dataloader.load(config.dataset, config.data_path, order)
        logits, labels = _logits(config, model, splits[order])
        total = total + _softmax(logits)
        rows.append(_row(path, model, score_logits(logits, labels)))
        _print(rows[-1], config)
    if len(rows) > 1:
        accuracy = float(np.mean(total.argmax(1) == labels))
        rows.append(
            {"name": f"ensemble of {len(rows)} (mean of softmax)", "accuracy": accuracy, "count": len(labels)}
        )
        _print(rows[-1], config)
    return rows


def normalisation_of(wanted: str, snapshot: Snapshot | None) -> str:
    """What the weights were trained with: EKG's published file needs its authors' order of the constants."""
    if wanted != "auto":
        return wanted
    if snapshot is None:
        return "rgb"
    return snapshot.facts.get("normalisation", "rgb") if snapshot.spec else "bgr"


def check_names(arch: str, dataset: str) -> None:
    """Raises `UsageError` for an unknown architecture or data set, before anything is read or made."""
    import nets
    from dataloader.registry import find_dataset

    find_dataset(dataset)
    if arch not in nets.list_nets():
        raise UsageError(f"Unknown arch. Received: arch={arch!r}. {nearest(arch, nets.list_nets())}")


def load_fitting(path: str, snapshot: Snapshot, arch: str, dataset: str, strategy):
    """The network of a snapshot. Raises `SnapshotError` when it is of another arch or number of classes."""
    import nets
    from dataloader.registry import find_dataset

    with strategy.scope():
        model = nets.load_params(None, snapshot, path)
    classes = find_dataset(dataset).num_classes
    wanted = {"arch": (model.spec.arch, arch), "classes": (model.spec.num_classes, classes)}
    for name, (found, expected) in wanted.items():
        if found != expected:
            raise SnapshotError(
                f"{path} does not fit --arch {arch} --dataset {dataset}, whose {name} is {expected}. "
                f"Received: {name}={found}"
            )
    return model


def _logits(config: TestConfig, model, splits) -> tuple[np.ndarray, np.ndarray]:
    from dataloader.augment import normalise
    from op_utils import make_forward

    mean, std, test = splits.facts.mean, splits.facts.std, splits.test
    forward = make_forward(model, lambda x: normalise(x, mean, std), config.bn == "batch", config.compile)
    return forward(test.images, config.val_batch_size), test.labels


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def _row(path: str, model, result) -> dict:
    from pruning import complexity

    cost = complexity(model)
    found = {"accuracy": result.accuracy, "loss": result.loss, "count": result.count}
    return {"name": path, "params": cost.params, "macs": cost.macs, **found}


def _print(row: dict, config: TestConfig) -> None:
    cost = f"{row['params']:,} parameters, {row['macs']:,} MACs, " if "params" in row else ""
    statistics = (
        "moving averages" if config.bn == "moving" else f"batch statistics of {config.val_batch_size}"
    )
    accuracy = f"accuracy {100 * row['accuracy']:.2f} % on {row['count']:,} test images"
    print(f"{row['name']}: {cost}{accuracy} ({statistics})")
