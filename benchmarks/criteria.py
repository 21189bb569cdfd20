"""Criteria side by side: one network, cut once by each, without any fine-tuning, on the same hold-out images.

    python -m benchmarks.criteria --trained_param resnet20.safetensors --data_path DIR

Every criterion that looks at images sees the same ones, drawn from the training images by the seed. Averages
of BatchNorm are estimated anew behind every cut, from images that warm up. No test image is read. The file of
results is written after every criterion: what is finished is kept.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.common import print_table, save
from secateur import dataloader, nets
from secateur.dataloader.views import as_read
from secateur.op_utils import make_reestimator
from secateur.pruning import Plan, complexity, find_groups, list_criteria, make_plan
from secateur.pruning.score.registry import get_criterion
from secateur.pruning.score.scores import score_groups
from secateur.pruning.search.trial import PlanScorer
from secateur.recipes.engine.inputs import normalisation_of
from secateur.runs import cli, load_snapshot

CRITERIA = ("random", "l1", "l2", "taylor", "movement", "obd_c", "lfh", "chip", "obd")
ALLOCATIONS = ("uniform", "global")
WARM = 1024  # images behind averages


class Subject:
    """A trained network with its images: criteria see some of training, plans are scored on the hold-out."""

    def __init__(self, path: str, dataset: str, data_path: str | None) -> None:
        snapshot = load_snapshot(path)
        self.model = nets.load_params(None, snapshot, path)
        splits = dataloader.load(dataset, data_path, normalisation_of("auto", snapshot))
        self._train, self._reads = splits.train, partial(as_read, facts=splits.facts)
        held, warm = splits.holdout, splits.warmup.images
        warm = warm[np.random.default_rng(0).permutation(len(warm))[:WARM]]

        def prepare(model: Any) -> Any:
            return partial(make_reestimator(model, self._reads), warm, 256)

        self.held = len(held)
        self.accuracy = PlanScorer(self.model, (self._arrays(held.images), held.labels), prepare=prepare)

    def sample(self, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Training images as the network reads them, and labels."""
        images = self._train.take(np.random.default_rng(seed).permutation(len(self._train))[:count])
        return self._arrays(images.images), images.labels

    def _arrays(self, images: Any) -> np.ndarray:
        return np.asarray(self._reads(tf.convert_to_tensor(images)))


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
    parser.add_argument("--allocations", nargs="+", choices=ALLOCATIONS, default=ALLOCATIONS)
    parser.add_argument("--criteria", nargs="+", choices=list_criteria(), default=CRITERIA)
    args = parser.parse_args()
    subject, rows = Subject(args.trained_param, args.dataset, args.data_path), []
    dense = subject.accuracy(Plan.full(find_groups(subject.model)))
    about = {name: getattr(args, name) for name in ("dataset", "keep_macs", "images", "seeds")}
    about |= {"network": subject.model.name, "held": subject.held, "dense": dense}
    for name in args.criteria:
        rows.append(_row(subject, name, args))
        save("criteria", about | {"rows": rows})
    titles = ("criterion", *(f"{allocation} %" for allocation in args.allocations), "seconds to score")
    print_table(
        f"{subject.model.name}, {100 * dense:.2f} % on {subject.held:,} hold-out images, "
        f"{args.keep_macs:.0%} of the MACs left",
        titles,
        [(r["criterion"], *(_percent(r[a]) for a in args.allocations), f"{r['seconds']:.1f}") for r in rows],
    )


def _row(subject: Subject, name: str, args: argparse.Namespace) -> dict:
    """Accuracies of one criterion, one for each seed where seeds mean anything; seconds to score once."""
    known = get_criterion(name)
    seeds = range(1, args.seeds + 1) if known.needs_data or "rng" in known.inputs else (1,)
    found: dict = {"criterion": name, **{allocation: [] for allocation in args.allocations}, "macs": []}
    seconds = []
    for seed in seeds:
        data = subject.sample(args.images, seed) if known.needs_data else None
        start = time.perf_counter()
        scores = score_groups(subject.model, name, data=data, seed=seed)
        seconds.append(time.perf_counter() - start)
        for allocation in args.allocations:
            plan = make_plan(subject.model, scores, keep_macs=args.keep_macs, allocation=allocation)
            found[allocation].append(subject.accuracy(plan))
            found["macs"].append(complexity(subject.model, plan=plan).macs)
            print(f"{name}, seed {seed}, {allocation}: {found[allocation][-1]:.4f}", flush=True)
    return found | {"seconds": statistics.median(seconds)}


def _percent(shares: list[float]) -> str:
    """Mean ± standard deviation in %."""
    spread = f" ± {100 * statistics.stdev(shares):.2f}" if len(shares) > 1 else ""
    return f"{100 * statistics.mean(shares):.2f}{spread}"


if __name__ == "__main__":
    sys.exit(cli(main))
