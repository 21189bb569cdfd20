"""How hard a teacher's losses pull beside the labels, and what that makes of a network at several rates.

    python -m benchmarks.teaching --teacher resnet20.safetensors --data_path DIR --runs RUNS

HAP's setting: the teacher's own copy with 60 % of its channels, by NGGM. First the length of each loss's
gradient, weighted as it trains, on the first batches, and its cosine with that of the labels. Then one short
training for each row and rate. Every run has a folder of its own under RUNS: what is finished is read. Rows
are compared on the hold-out alone.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from benchmarks.common import print_table, save
from benchmarks.run_tables import parser_of, percent, row, run, slug
from secateur import dataloader, nets
from secateur.dataloader.views import as_read
from secateur.distillation import Lesson, build
from secateur.recipes.engine.inputs import normalisation_of
from secateur.runs import cli, load_snapshot

ROWS = {
    "labels": ["none"],
    "KD": ["kd"],
    "KD, as long as labels": ["kd", "--betas", "0.3"],
    "KD, shares of one": ["kd", "--label_weight", "0.1", "--betas", "0.9"],
    "KD + HAP": ["kd+hap"],
}
"""Row → words behind `--distill`."""
PARTS = {"KD": ("kd", 0.9), "AT": ("at", 1000.0), "SP": ("sp", 3000.0), "HAP": ("hap", 700.0)}
BATCH, BATCHES = 128, 4


def pulls(student: keras.Model, teacher: keras.Model, batches: Sequence) -> list[dict]:
    """Gradient lengths of labels and of each part by its published weight, means over batches."""
    pairs = [(build(name), weight) for name, weight in PARTS.values()]
    lesson, weights = Lesson(student, teacher, pairs), student.trainable_variables
    factors = [1.0, *(weight for _, weight in pairs)]

    def lengths(images, labels) -> tuple[np.ndarray, np.ndarray]:
        with tf.GradientTape(persistent=True) as tape:
            terms = tf.unstack(lesson({"images": images, "labels": labels}, training=True)["terms"])
        each = (tape.gradient(term, weights, unconnected_gradients="zero") for term in terms)
        flat = [
            factor * np.concatenate([np.ravel(g) for g in gradients])
            for factor, gradients in zip(factors, each, strict=True)
        ]
        norms = np.array([np.linalg.norm(g) for g in flat])
        return norms, np.array([g @ flat[0] for g in flat]) / (norms * norms[0])

    norms, cosines = (np.mean(found, 0) for found in zip(*(lengths(*b) for b in batches), strict=True))
    names = ("labels", *PARTS)
    facts = zip(names, factors, norms.tolist(), cosines.tolist(), strict=True)
    return [{"part": n, "weight": w, "gradient": g, "cosine": c} for n, w, g, c in facts]


def main() -> None:
    """argv → runs → tables and JSON."""
    parser = parser_of("benchmarks.teaching", __doc__)
    parser.add_argument("--teacher", required=True, help="snapshot; its copy is pruned and trained")
    parser.add_argument("--train_images", type=int, default=12800, help="of the one epoch")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--rates", nargs="+", default=["0.05", "0.01", "0.002"])
    args = parser.parse_args()
    words = ["--recipe", "hap", "--arch", args.arch, "--teacher", args.teacher, "--dataset", args.dataset]
    words += ["--data_path", args.data_path] if args.data_path else []
    words += ["--train_images", str(args.train_images), "--batch_size", str(BATCH), "--train_epoch", "1"]

    def report(name: str, rate: str, seed: int) -> dict:
        more = ["--learning_rate", rate, "--seed", str(seed), "--distill", *ROWS[name]]
        return run([*words, *more], args.runs / f"{slug(name)}-{rate}-{seed}")

    seeds = range(1, args.seeds + 1)
    rows = []
    for name in args.rows:
        for rate in args.rates:
            reports = [report(name, rate, seed) for seed in seeds]
            seconds = [one["seconds"]["fine_tune"] for one in reports]
            rows.append({"rate": float(rate), **row(name, reports, seconds)})
    parts = pulls(*networks(args, args.runs / f"{slug(args.rows[0])}-{args.rates[0]}-1"))
    cells = [(p["part"], *(f"{p[key]:.4g}" for key in ("weight", "gradient", "cosine"))) for p in parts]
    print_table("gradients before the training", ("", "weight", "length", "cosine with labels"), cells)
    shown = {(r["name"], f"{r['rate']:g}"): percent(r["holdout_accuracy"]) for r in rows}
    cells = [(name, *(shown[name, f"{float(rate):g}"] for rate in args.rates)) for name in args.rows]
    print_table("hold-out %, by rate", ("", *args.rates), cells)
    facts = {name: getattr(args, name) for name in ("arch", "dataset", "train_images")}
    save(f"teaching_{slug(args.arch)}", {**facts, "gradients": parts, "rows": rows})


def networks(args, folder: Path) -> tuple[keras.Model, keras.Model, list]:
    """The pruned network of a run, its teacher, and (images as they are read, labels) of some batches."""
    snapshot = load_snapshot(args.teacher)
    student = nets.load_params(None, folder / "slimmed_param.pkl")
    splits = dataloader.load(args.dataset, args.data_path, normalisation_of("auto", snapshot))
    some = splits.train.take(np.random.default_rng(0).permutation(len(splits.train))[: BATCHES * BATCH])
    starts = range(0, len(some), BATCH)
    batches = [
        (as_read(some.images[i : i + BATCH], splits.facts), some.labels[i : i + BATCH]) for i in starts
    ]
    return student, nets.load_params(None, snapshot, args.teacher), batches


if __name__ == "__main__":
    sys.exit(cli(main))
