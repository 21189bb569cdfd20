"""Models that are no classifiers: halved by a criterion that reads gradients, fine-tuned by their own loss.

    python -m benchmarks.tasks [--criterion taylor] [--keep_macs 0.5] [--seeds 3]

A scene is two of scikit-learn's digits, one in each half of 32×32 pixels, on noise. One network is to tell
which digits there are (several labels), one in which rows they stand (regression), one what each pixel
belongs to (segmentation). Each is trained by Keras alone, then given to `secateur.compress`, which knows the
loss that it was compiled with and nothing else. Scenes of the test are made of digits that no other has.
"""

from __future__ import annotations

import argparse
import sys

import keras
import numpy as np

import secateur
from benchmarks.common import print_table, save
from benchmarks.run_tables import spread
from secateur.dataloader import Images, load
from secateur.runs import cli

SIDE, DIGIT = 32, 14
TASKS = {"labels": "binary_crossentropy", "numbers": "mse", "maps": "sparse_categorical_crossentropy"}
"""What a network is to tell → its loss."""
TRAIN, HOLDOUT, TEST = 4000, 500, 1000  # scenes
EPOCHS, TUNED = 8, 4  # of the dense network, of the pruned one
RATE = 2e-3  # of Adam, for both


def scenes(digits: Images, count: int, seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """(count, 32, 32, 1) numbers of about 0 to 1, and the labels of each task."""
    rng = np.random.default_rng(seed)
    images = rng.normal(0.1, 0.1, (count, SIDE, SIDE, 1)).astype("float32")
    which = rng.integers(len(digits), size=(count, 2))
    rows, columns = rng.integers(SIDE - DIGIT + 1, size=(count, 2)), rng.integers(3, size=(count, 2))
    maps = np.zeros((count, SIDE, SIDE), "int32")
    for half in range(2):
        ink = digits.images[which[:, half]].astype("float32") / 255
        names = digits.labels[which[:, half]]
        for i, (row, column) in enumerate(
            zip(rows[:, half], columns[:, half] + half * SIDE // 2, strict=True)
        ):
            place = i, slice(row, row + DIGIT), slice(column, column + DIGIT)
            images[place] += ink[i]
            maps[place] = np.where(ink[i, ..., 0] > 0.3, names[i] + 1, 0)
    hot = np.eye(10, dtype="float32")[digits.labels[which]].max(1)
    return images, {"labels": hot, "numbers": (rows / 9 - 1).astype("float32"), "maps": maps}


def network(task: str, seed: int) -> keras.Model:
    """Five convolutions, compiled with the task's loss; maps come from all scales, as in a U-Net."""
    keras.utils.set_random_seed(seed)
    layers = keras.layers

    def block(x, filters: int, strides: int = 1):
        x = layers.Conv2D(filters, 3, strides=strides, padding="same", use_bias=False)(x)
        return layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))

    image = keras.Input((SIDE, SIDE, 1))
    fine = block(block(image, 16), 16)
    middle = block(fine, 32, 2)
    coarse = block(block(middle, 64, 2), 64)
    if task == "maps":
        up = block(layers.Concatenate()([layers.UpSampling2D()(coarse), middle]), 32)
        up = block(layers.Concatenate()([layers.UpSampling2D()(up), fine]), 16)
        output = layers.Conv2D(11, 1, activation="softmax")(up)
    else:
        pooled = layers.Flatten()(layers.MaxPooling2D(2)(coarse))
        output = layers.Dense(*((10, "sigmoid") if task == "labels" else (2,)))(pooled)
    model = keras.Model(image, output, name=task)
    model.compile(keras.optimizers.Adam(RATE), TASKS[task])
    return model


def measured(task: str, seed: int, keep_macs: float, criterion: str) -> dict:
    """The rows of one run's report, and the score right behind the cut."""
    splits = load("DIGITS", shape=(DIGIT, DIGIT, 1))
    parts = [scenes(splits.train, TRAIN, seed), scenes(splits.holdout, HOLDOUT, seed + 100)]
    parts = [(images, labels[task]) for images, labels in (*parts, scenes(splits.test, TEST, seed + 200))]
    model = network(task, seed)
    model.fit(*parts[0], batch_size=64, epochs=EPOCHS, verbose=0)
    found = secateur.compress(
        model, *parts[:2], test=parts[2], recipe="pfec_a", keep_macs=keep_macs, batch_size=64, seed=seed,
        set=[f"prune_fixed.criterion={criterion}", f"train.epochs={TUNED}", f"train.learning_rate={RATE}",
             "train.optimizer=adam", "train.schedule=one_cycle", "train.weight_decay=0"],
    )  # fmt: skip
    before, after = found.report["rows"]
    return {"metric": found.report["metric"], "cut": found.report["cuts"][0]["holdout_after"],
            "before": before, "after": after}  # fmt: skip


def main() -> None:
    """argv → networks → table and JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tasks", description=__doc__.splitlines()[0])
    parser.add_argument("--criterion", default="taylor", help="that reads gradients of the model's own loss")
    parser.add_argument("--keep_macs", type=float, default=0.5)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    rows = []
    for task, loss in TASKS.items():
        runs = [measured(task, seed, args.keep_macs, args.criterion) for seed in range(1, args.seeds + 1)]
        before, after = (runs[0][part] for part in ("before", "after"))
        scores = {
            "dense_holdout": [one["before"]["holdout_accuracy"] for one in runs],
            "cut_holdout": [one["cut"] for one in runs],
            "tuned_holdout": [one["after"]["holdout_accuracy"] for one in runs],
            "dense_test": [one["before"]["test_accuracy"] for one in runs],
            "tuned_test": [one["after"]["test_accuracy"] for one in runs],
        }
        costs = {f"{what}_{cost}": part[cost] for what, part in (("dense", before), ("tuned", after))
                 for cost in ("macs", "params")}  # fmt: skip
        rows.append({"task": task, "loss": loss, "metric": runs[0]["metric"], **costs}
                    | {name: spread(values) for name, values in scores.items()})  # fmt: skip
    titles = (
        "",
        "measured by",
        "MACs",
        "dense hold-out",
        "cut",
        "fine-tuned",
        "dense test",
        "fine-tuned test",
    )
    cells = [
        (row["task"], row["metric"], f"{row['tuned_macs'] / row['dense_macs']:.3f}",
         *(f"{row[name]['mean']:.4f} ± {row[name]['sd']:.4f}" for name in scores))
        for row in rows
    ]  # fmt: skip
    print_table(f"{args.criterion}, {args.seeds} seeds", titles, cells)
    save("tasks", {"criterion": args.criterion, "keep_macs": args.keep_macs, "seeds": args.seeds,
                   "train": TRAIN, "test": TEST, "epochs": [EPOCHS, TUNED], "rows": rows})  # fmt: skip


if __name__ == "__main__":
    sys.exit(cli(main))
