"""EKG's claim: does the landscape of the loss around a sub-network say what fine-tuning will make of it?

    python -m benchmarks.landscape --trained_param resnet20.safetensors --data_path DIR [--plan EKG=plan.json]

Random sub-networks of one network, all with the same share of its MACs: each group's scores are drawn, times
a factor of the group's own, and the best channels of all groups in one row stay, so that widths differ. Each
is measured (averages of BatchNorm estimated anew; loss, condition number and change under noise on the images
that score candidates), then fine-tuned alike for a short time, and the hold-out says what became of it. Plans
of criteria go the same way, for comparison; around these and one random network the loss is measured on a
plane. All are masks on one network, so that nothing is compiled twice. What is finished is kept in the file
of results, of which `benchmarks.picture` makes pictures. No test image is read.
"""

from __future__ import annotations

import argparse
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.stats

from benchmarks.common import RESULTS, named_paths, print_table, save
from secateur import dataloader, nets
from secateur.dataloader.augment import augment
from secateur.dataloader.views import as_read
from secateur.distillation import labels_only
from secateur.distillation.tasks import task_for
from secateur.op_utils import Trainer, make_forward, make_reestimator
from secateur.pruning import Plan, complexity, find_groups, make_plan, mask
from secateur.pruning.landscape import LossAt, directions, noise, plane, spectrum
from secateur.recipes.engine.inputs import normalisation_of
from secateur.recipes.training.schedules import cosine
from secateur.recipes.training.scoring import score_logits
from secateur.runs import UsageError, cli, load_snapshot, read_json, sha256

BATCH, RATE, AT_ONCE = 128, 0.01, 64  # more images at a time do not stay in the caches of a processor
MEASURED = {"loss": "loss", "condition": "condition number", "noise": "change under noise"}
RESAMPLES = 2000


class Study:
    """A network under masks, and what is done to each sub-network."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, snapshot = args, load_snapshot(args.trained_param)
        self.dense = nets.load_params(None, snapshot, args.trained_param)
        self.splits = dataloader.load(args.dataset, args.data_path, normalisation_of("auto", snapshot))
        self.groups, self._reads = find_groups(self.dense), partial(as_read, facts=self.splits.facts)
        self.net = mask(self.dense, Plan.full(self.groups))
        search = self.splits.search
        data = np.asarray(self._reads(search.images)), search.labels
        self.loss = LossAt(self.net, data, task_for(self.net, None), batch_size=AT_ONCE)
        self._again = make_reestimator(self.net, self._reads)
        self._forward = make_forward(self.net, self._reads)
        flip = self.splits.facts.flip

        def read(batch: Any, seed: Any) -> Any:
            return self._reads(augment(batch["images"], seed, pad_mode="zero", flip=flip))

        self._trainer = Trainer(self.net, read, labels_only, weight_decay=5e-4)

    def random(self, seed: int) -> Plan:
        """A sub-network of random widths."""
        rng = np.random.default_rng(seed)
        scores = {g.name: rng.uniform(0.3, 1) * rng.uniform(size=g.size) for g in self.groups}
        return make_plan(self.dense, scores, keep_macs=self.args.keep_macs, allocation="global")

    def by(self, criterion: str) -> Plan:
        """That of a criterion, the same share of every group."""
        some = self.splits.train.take(np.random.default_rng(0).permutation(len(self.splits.train))[:256])
        data = np.asarray(self._reads(some.images)), some.labels
        return make_plan(self.dense, criterion, keep_macs=self.args.keep_macs, data=data)

    def plane(self, plan: Plan, side: int) -> dict:
        """The loss around what a plan leaves, not fine-tuned, on a plane of filter-normalised directions.

        `at`: (side,) places along both, −1 to 1 times each filter's length; `plane`, `metrics`: (side, side).
        """
        self._narrow(plan)
        at = np.linspace(-1, 1, side)
        values, metrics = plane(self.loss, directions(self.loss, 2), at)
        loss = float(values[side // 2, side // 2])
        return {"at": at.tolist(), "plane": values.tolist(), "metrics": metrics.tolist(), "loss": loss}

    def row(self, name: str, plan: Plan) -> dict:
        """Measures, trains and measures again."""
        start = time.monotonic()
        self._narrow(plan)
        curvature = spectrum(self.loss, self.args.eigen_steps)
        loss, accuracy = self.loss(self.loss.weights)
        found = {"name": name, "macs": complexity(self.dense, plan=plan).macs}
        found |= {"loss": loss, "accuracy": accuracy, "condition": curvature.condition}
        found |= {"smallest": curvature.smallest, "largest": curvature.largest}
        found["noise"] = noise(self.loss, self.args.radius, self.args.noises)
        self._fine_tune()
        held = self.splits.holdout
        final = score_logits(self._forward(held.images, 256), held.labels)
        found |= {"final_loss": final.loss, "final_accuracy": final.accuracy}
        return found | {"seconds": time.monotonic() - start}

    def _narrow(self, plan: Plan) -> None:
        self.net.set_weights(mask(self.dense, plan).get_weights())
        self._average()

    def _average(self) -> None:
        self._again(self.splits.warmup.images[:: max(1, len(self.splits.warmup) // 1024)], 256)

    def _fine_tune(self) -> None:
        for variable in self._trainer.optimizer.state():
            variable.assign(np.zeros(variable.shape))
        train, steps = self.splits.train, self.args.steps
        order = dataloader.epoch_order(len(train), 0, 0)[: steps * BATCH]
        batches = ({"images": b.images, "labels": b.labels} for b in dataloader.batches(train, BATCH, order))
        for _ in self._trainer.train(batches, ((0, i) for i in range(steps)), cosine(RATE, steps)):
            pass
        self._average()


def correlations(rows: list[dict]) -> list[dict]:
    """Pearson's and Spearman's, with intervals of 95 % by bootstrap, of what is measured and what became."""
    rng, found = np.random.default_rng(0), []
    picks = rng.integers(0, len(rows), (RESAMPLES, len(rows)))
    for measured in MEASURED:
        for final in ("final_loss", "final_accuracy"):
            pair = np.array([[row[measured], row[final]] for row in rows]).T
            one = {"measured": measured, "final": final}
            for name, rule in (("pearson", scipy.stats.pearsonr), ("spearman", scipy.stats.spearmanr)):
                drawn = [rule(*pair[:, pick]).statistic for pick in picks]
                low, high = np.nanquantile(drawn, (0.025, 0.975))
                one[name] = [float(rule(*pair).statistic), float(low), float(high)]
            found.append(one)
    return found


def main() -> None:
    """argv → tables and JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.landscape", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--trained_param", required=True, help="the network that all are parts of")
    parser.add_argument("--dataset", default="CIFAR10")
    parser.add_argument("--data_path")
    parser.add_argument("--keep_macs", type=float, default=0.5)
    parser.add_argument("--networks", type=int, default=50)
    parser.add_argument("--criteria", nargs="*", default=["l1", "fpgm", "g_a"], help="g_a is HAP's NGGM")
    parser.add_argument("--plan", nargs="*", default=[], metavar="NAME=PLAN.json", help="of a search")
    parser.add_argument("--steps", type=int, default=100, help=f"of fine-tuning, {BATCH} images each")
    parser.add_argument("--eigen_steps", type=int, default=20)
    parser.add_argument("--radius", type=float, default=0.05, help="of noise, in lengths of each filter")
    parser.add_argument("--noises", type=int, default=10)
    parser.add_argument("--side", type=int, default=11, help="points along a plane, an odd number")
    args = parser.parse_args()
    if args.side % 2 == 0:
        raise UsageError(
            f"The network is the middle of a plane: give an odd number. Received: side={args.side}"
        )
    unlike = ("trained_param", "data_path", "plan", "criteria", "networks", "side")
    about = {name: value for name, value in vars(args).items() if name not in unlike}
    stored = RESULTS / "landscape.json"
    before = read_json(stored) if stored.exists() else {}
    study = Study(args)
    about |= {"network": study.dense.name, "weights": sha256(args.trained_param)}
    same = all(before.get(key) == value for key, value in about.items())
    rows, planes = (before["rows"], before.get("planes", {})) if same else ([], {})
    plans = {f"random {seed}": partial(study.random, seed) for seed in range(1, args.networks + 1)}
    plans |= {name: partial(study.by, name) for name in args.criteria}
    plans |= {name: partial(_read, path) for name, path in named_paths("plan", args.plan).items()}
    for name, plan in plans.items():
        if name not in {row["name"] for row in rows}:
            rows.append(study.row(name, plan()))
            print(f"{len(rows)} of {len(plans)}: {rows[-1]}", flush=True)
            save("landscape", about | {"rows": rows, "planes": planes, "correlations": []})
    for name in [next(iter(plans)), *list(plans)[args.networks :]]:
        if len(planes.get(name, {}).get("at", ())) != args.side:
            planes[name] = study.plane(plans[name](), args.side)
            print(f"the plane around {name}", flush=True)
            save("landscape", about | {"rows": rows, "planes": planes, "correlations": []})
    drawn = [row for row in rows if row["name"].startswith("random")]
    found = correlations(drawn)
    print_table(
        f"{len(drawn)} random sub-networks of {study.dense.name}",
        ("measured before", "with, after fine-tuning", "Pearson", "Spearman"),
        [
            (MEASURED[c["measured"]], c["final"], *map(_interval, (c["pearson"], c["spearman"])))
            for c in found
        ],
    )
    save("landscape", about | {"rows": rows, "planes": planes, "correlations": found})


def _read(path: Path) -> Plan:
    return Plan.from_json(read_json(path))


def _interval(found: list[float]) -> str:
    return "{:+.2f} ({:+.2f} to {:+.2f})".format(*found)


if __name__ == "__main__":
    sys.exit(cli(main))
