"""Criteria side by side: one network, cut once by each, without any fine-tuning, on the same hold-out images.

    python -m benchmarks.criteria --trained_param resnet20.safetensors --data_path DIR

Every criterion that looks at images sees the same ones, drawn from the training images by the seed. Averages
of BatchNorm are re-estimated behind every cut, from the images that warm up. No test image is read.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from benchmarks.common import print_table, save
from secateur import dataloader, nets
from secateur.dataloader import Splits
from secateur.dataloader.views import as_read
from secateur.op_utils import make_forward, reestimate_batch_norm
from secateur.pruning import compact, complexity, list_criteria, make_plan
from secateur.pruning.score.registry import get_criterion
from secateur.pruning.score.scores import score_groups
from secateur.recipes.engine.inputs import normalisation_of
from secateur.recipes.training.scoring import score
from secateur.runs import cli, load_snapshot

CRITERIA = ("random", "l1", "l2", "taylor", "movement", "obd_c", "lfh", "chip", "obd")
ALLOCATIONS = ("uniform", "global")


class Subject:
    """A trained network and its images."""

    def __init__(self, path: str, dataset: str, data_path: str | None) -> None:
        snapshot = load_snapshot(path)
        self.model = nets.load_params(None, snapshot, path)
        self.splits: Splits = dataloader.load(dataset, data_path, normalisation_of("auto", snapshot))

    def reads(self, images: Any) -> tf.Tensor:
        """Bytes as the network reads them."""
        return as_read(images, self.splits.facts)

    def accuracy(self, model: keras.Model) -> float:
        """On the hold-out images."""
        return score(make_forward(model, self.reads), self.splits.holdout, 256).accuracy

    def sample(self, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Training images, normalised, and their labels."""
        order = np.random.default_rng(seed).permutation(len(self.splits.train))[:count]
        images = self.splits.train.take(order)
        return np.asarray(self.reads(images.images)), images.labels

    def cut(self, scores: dict, allocation: str, keep_macs: float) -> keras.Model:
        """The small network, with averages of its own."""
        plan = make_plan(self.model, scores, keep_macs=keep_macs, allocation=allocation)
        small = compact(self.model, plan)
        reestimate_batch_norm(small, self.reads, self.splits.warmup.images)
        return small


def main() -> None:
    """argv → table and JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.criteria", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--trained_param", required=True, help="the network that all start from")
    parser.add_argument("--dataset", default="CIFAR10")
    parser.add_argument("--data_path")
    parser.add_argument("--keep_macs", type=float, default=0.7)
    parser.add_argument("--images", type=int, default=256, help="that criteria see")
    parser.add_argument(
        "--seeds", type=int, default=3, help="of these images, and of what is drawn at random"
    )
    parser.add_argument("--criteria", nargs="+", choices=list_criteria(), default=CRITERIA)
    args = parser.parse_args()
    subject = Subject(args.trained_param, args.dataset, args.data_path)
    dense = subject.accuracy(subject.model)
    rows = [_row(subject, name, args) for name in args.criteria]
    titles = ("criterion", *(f"{allocation} %" for allocation in ALLOCATIONS), "seconds to score")
    print_table(
        f"{subject.model.name}, {100 * dense:.2f} % on the hold-out, {args.keep_macs:.0%} of the MACs left",
        titles,
        [(r["criterion"], *(_percent(r[a]) for a in ALLOCATIONS), f"{r['seconds']:.1f}") for r in rows],
    )
    about = {name: getattr(args, name) for name in ("dataset", "keep_macs", "images", "seeds")}
    save("criteria", about | {"network": subject.model.name, "dense": dense, "rows": rows})


def _row(subject: Subject, name: str, args: argparse.Namespace) -> dict:
    """Accuracies of one criterion, one for each seed where seeds mean anything; seconds to score once."""
    known = get_criterion(name)
    seeds = range(1, args.seeds + 1) if known.needs_data or "rng" in known.inputs else (1,)
    found: dict = {"criterion": name, **{allocation: [] for allocation in ALLOCATIONS}, "macs": []}
    seconds = []
    for seed in seeds:
        data = subject.sample(args.images, seed) if known.needs_data else None
        start = time.perf_counter()
        scores = score_groups(subject.model, name, data=data, seed=seed)
        seconds.append(time.perf_counter() - start)
        for allocation in ALLOCATIONS:
            small = subject.cut(scores, allocation, args.keep_macs)
            found[allocation].append(subject.accuracy(small))
            found["macs"].append(complexity(small).macs)
            print(f"{name}, seed {seed}, {allocation}: {found[allocation][-1]:.4f}", flush=True)
    return found | {"seconds": statistics.median(seconds)}


def _percent(shares: list[float]) -> str:
    """Mean ± standard deviation in %."""
    spread = f" ± {100 * statistics.stdev(shares):.2f}" if len(shares) > 1 else ""
    return f"{100 * statistics.mean(shares):.2f}{spread}"


if __name__ == "__main__":
    sys.exit(cli(main))
