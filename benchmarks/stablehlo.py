"""Exports the train step and the evaluation as StableHLO, for machines whose GPU has JAX and no TensorFlow.

    python -m benchmarks.stablehlo --run RUN --data_path DATA --out EXPORT      fine-tuning of a run folder
    python -m benchmarks.stablehlo --arch ResNet-20 --dataset DIGITS --out EXPORT      from random weights

EXPORT holds step.mlir and eval.mlir, manifest.json (order, shapes and types of their arguments; the course),
start.npz (first values) and the images as uint8. `benchmarks.run_stablehlo` runs it with JAX and NumPy alone.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from secateur import dataloader, nets
from secateur.dataloader.augment import augment, normalise, two_views
from secateur.distillation import MemoryBank, labels_only, two_view_knowledge
from secateur.nets.names import published_name
from secateur.op_utils import pure_gradients, pure_step
from secateur.recipes.engine.inputs import normalisation_of
from secateur.runs import UsageError, cli, load_snapshot, read_json, write_atomic, write_json

PIECE = 10_000  # images in one file: 30 MB for CIFAR, should they have to travel


@dataclass(frozen=True)
class Course:
    """How the exported network is trained. Fields as in `train_cifar.py`."""

    train_epoch: int = 100
    batch_size: int = 128
    val_batch_size: int = 256
    learning_rate: float = 1e-2
    decay_points: Sequence[float] = (0.3, 0.6, 0.8)
    decay_rate: float = 0.2
    weight_decay: float = 5e-4
    seed: int = 1
    per_batch_crop: bool = False
    teachers: int = 0


# --- functions of flat lists of tensors ---------------------------------------------------------------------


def flat_step(model: keras.Model, facts: dataloader.Facts, course: Course) -> tuple[Callable, list[dict]]:
    """The train step over one flat list of tensors, and one {"role", "shape", "dtype"} per argument.

    Arguments: parameters, momenta, statistics, images (uint8), labels, bank (if there are teachers),
    seed (int32 [2]), learning rate. Results: parameters, momenta, statistics, [loss, accuracy].
    """
    options = {"per_batch_crop": course.per_batch_crop, "flip": facts.flip}
    views = two_views if course.teachers else augment
    step = pure_step(
        pure_gradients(
            model,
            lambda batch, seed: normalise(views(batch["images"], seed, **options), facts.mean, facts.std),
            two_view_knowledge if course.teachers else labels_only,
            course.weight_decay,
        )
    )
    params, stats = model.trainable_variables, model.non_trainable_variables
    n, m = len(params), len(stats)

    def flat(*tensors):
        images, labels, *bank, seed, rate = tensors[2 * n + m :]
        batch = {"images": images, "labels": labels} | ({"bank": bank[0]} if bank else {})
        return tf.nest.flatten(
            step(tensors[:n], tensors[n : 2 * n], tensors[2 * n : 2 * n + m], batch, seed, rate)
        )

    b, classes = course.batch_size, facts.num_classes
    arguments = [_argument("parameter", v.shape) for v in params] + [
        _argument("momentum", v.shape) for v in params
    ]
    arguments += [_argument("statistic", v.shape) for v in stats]
    arguments += [_argument("images", (b, *facts.shape), "uint8"), _argument("labels", (b,), "int32")]
    arguments += [_argument("bank", (b, classes, course.teachers))] if course.teachers else []
    return flat, [*arguments, _argument("seed", (2,), "int32"), _argument("learning_rate", ())]


def flat_evaluation(
    model: keras.Model, facts: dataloader.Facts, batch_size: int
) -> tuple[Callable, list[dict]]:
    """Logits over one flat list: parameters, statistics, images (uint8); moving averages."""
    params, stats = model.trainable_variables, model.non_trainable_variables

    def flat(*tensors):
        x = normalise(tensors[-1], facts.mean, facts.std)
        return model.stateless_call(tensors[: len(params)], tensors[len(params) : -1], x, training=False)[0]

    arguments = [_argument("parameter", v.shape) for v in params] + [
        _argument("statistic", v.shape) for v in stats
    ]
    return flat, [*arguments, _argument("images", (batch_size, *facts.shape), "uint8")]


def to_stablehlo(function: Callable, arguments: Sequence[dict]) -> str:
    """StableHLO text of a function of tensors, whose parameters are exactly the arguments, in their order."""
    example = [tf.zeros(a["shape"], a["dtype"]) for a in arguments]
    compiled = tf.function(function, jit_compile=True, autograph=False)
    return compiled.experimental_get_compiler_ir(*example)(stage="stablehlo")


def _argument(role: str, shape, dtype: str = "float32") -> dict:
    return {"role": role, "shape": list(shape), "dtype": dtype}


# --- a folder -----------------------------------------------------------------------------------------------


def export(
    out: Path,
    model: keras.Model,
    splits: dataloader.Splits,
    course: Course,
    bank: np.ndarray | None = None,
    plan: Mapping | None = None,
    order: str = "rgb",
) -> None:
    """Writes everything that the runner needs; `bank` is (train images, classes, teachers) or None."""
    out.mkdir(parents=True, exist_ok=True)
    step, arguments = flat_step(model, splits.facts, course)
    evaluation, its_arguments = flat_evaluation(model, splits.facts, course.val_batch_size)
    write_atomic(out / "step.mlir", to_stablehlo(step, arguments).encode())
    write_atomic(out / "eval.mlir", to_stablehlo(evaluation, its_arguments).encode())
    parameters, statistics = model.trainable_variables, model.non_trainable_variables
    values = {f"parameter_{i:04d}": v.numpy() for i, v in enumerate(parameters)}
    values |= {f"statistic_{i:04d}": v.numpy() for i, v in enumerate(statistics)}
    write_atomic(out / "start.npz", lambda file: np.savez(file, **values))
    _save_images(out, splits, bank)
    manifest = _manifest(model, splits.facts, order)
    described = {"step": arguments, "eval": its_arguments, "course": vars(course), "plan": plan}
    write_json(out / "manifest.json", {**manifest, **described})


def _manifest(model: keras.Model, facts: dataloader.Facts, order: str) -> dict:
    """Names and facts from which the runner makes a snapshot; masks have no place in one."""
    names = {id(v): published_name(layer.name, v.name) for layer in model.layers for v in layer.variables}
    return {
        "format": "secateur-stablehlo/1",
        "names": {
            "parameter": [names[id(v)] for v in model.trainable_variables],
            "statistic": [names[id(v)] for v in model.non_trainable_variables],
        },
        "order": list(nets.variables(model)),  # that of the file
        "spec": model.spec.to_json(),
        "facts": {"dataset": facts.name, "mean": facts.mean, "std": facts.std, "normalisation": order},
    }


def _save_images(out: Path, splits: dataloader.Splits, bank: np.ndarray | None) -> None:
    for name, part in (("train", splits.train), ("holdout", splits.holdout)):
        for i, start in enumerate(range(0, len(part), PIECE)):
            _save(out / f"{name}_images-{i:02d}.npy", part.images[start : start + PIECE])
        _save(out / f"{name}_labels.npy", part.labels)
    if bank is not None:
        _save(out / "train_bank.npy", np.asarray(bank))


def _save(path: Path, array: np.ndarray) -> None:
    write_atomic(path, lambda file: np.save(file, array))


# --- command line -------------------------------------------------------------------------------------------


def _from_run(args: argparse.Namespace):
    """What `train_cifar.py` would fine-tune in this run folder, and how."""
    run = args.run
    if missing := next((n for n in ("config.json", "slimmed_param.pkl") if not (run / n).exists()), None):
        raise UsageError(f"Not a run folder with a finished search: no {missing}. Received: run={str(run)!r}")
    config, snapshot = read_json(run / "config.json"), load_snapshot(run / "slimmed_param.pkl")
    if config["accum"] != 1:
        raise UsageError(
            f"The exported step does not accumulate. Received: a run with accum={config['accum']}"
        )
    order = normalisation_of("auto", snapshot)
    splits = dataloader.load(config["dataset"], args.data_path or config["data_path"], order)
    bank = None
    if (run / "bank.npy").exists() and not args.labels_alone:
        bank = MemoryBank.open(run / "bank.npy", splits.train.ids).logits
    config |= config["flags"]
    fields = {name: config[name] for name in Course.__dataclass_fields__ if name in config}
    course = Course(**fields, teachers=0 if bank is None else bank.shape[-1])
    return nets.load_params(None, snapshot), splits, course, bank, snapshot.plan, order


def _from_scratch(args: argparse.Namespace):
    splits = dataloader.load(args.dataset or "DIGITS", args.data_path)
    keras.utils.set_random_seed(1)
    model = nets.build(
        args.arch or "ResNet-56", num_classes=splits.facts.num_classes, input_shape=splits.facts.shape
    )
    return model, splits, Course(train_epoch=5), None, None, "rgb"


def main() -> None:
    """argv → export."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.stablehlo", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--run", type=Path, help="run folder with slimmed_param.pkl (and bank.npy)")
    parser.add_argument(
        "--no-Knowledge", dest="labels_alone", action="store_true", help="fine-tune without the bank"
    )
    parser.add_argument("--arch", help="without --run; default: ResNet-56")
    parser.add_argument("--dataset", help="without --run; default: DIGITS")
    parser.add_argument("--data_path")
    parser.add_argument("--train_epoch", type=int)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.run and (args.arch or args.dataset):
        raise UsageError(f"--run has its own. Received: arch={args.arch}, dataset={args.dataset}")
    if args.train_epoch is not None and args.train_epoch < 1:
        raise UsageError(f"--train_epoch must be at least 1. Received: train_epoch={args.train_epoch}")
    model, splits, course, bank, plan, order = _from_run(args) if args.run else _from_scratch(args)
    if args.train_epoch:
        course = Course(**{**vars(course), "train_epoch": args.train_epoch})
    export(args.out, model, splits, course, bank, plan, order)
    size = sum(path.stat().st_size for path in args.out.iterdir()) / 2**20
    print(f"{args.out}: {size:.0f} MiB. There: python -m benchmarks.run_stablehlo {args.out}")


if __name__ == "__main__":
    sys.exit(cli(main))
