"""A budget of milliseconds beside one of operations: accuracy on the holdout at equal time.

    python -m benchmarks.latency_budget                                  ResNet-20, trained on the digits
    python -m benchmarks.latency_budget --trained_param res56_cifar10.pkl --data_path DATA      CIFAR-10

The same dense network, the same scores and the same training behind each plan; LiteRT, one thread, one image.
The budget of operations is one that takes as long, measured, as the network that the milliseconds gave.
NetAdapt searches milliseconds by accuracy on the images that score candidates, channels in Taylor's order.
--plan EKG=plan.json adds plans as they are, whatever they take.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import functools
import sys
import tempfile

import numpy as np

from benchmarks.common import named_paths, print_table, save
from secateur.runs import UsageError, cli, read_json
from secateur.runs.start import start_tensorflow

ARCH, CRITERION = "ResNet-20", "l1"
IMAGES = 6400  # of CIFAR-10 that a pruned network is trained on: minutes, not hours
OURS = "milliseconds"
SEARCHED = "milliseconds, NetAdapt"
SHARES = ("ms_left", "macs_left", "holdout_accuracy")


class Operations:
    """MACs as a cost for `pruning.latency.greedy`: the same rule for the widths, another currency."""

    def __init__(self, analysis, counter) -> None:
        from secateur.pruning.count.costs import operations
        from secateur.pruning.count.polynomial import Polynomial

        orders = {group.name: range(group.size) for group in analysis.groups}
        self._macs = Polynomial(operations(analysis, counter.rule), orders)
        self.touching = {group.name: {0} for group in analysis.groups}

    def __call__(self, widths) -> float:
        return self._macs(widths)

    def around(self, group: str, widths) -> float:
        return self._macs(widths)


@contextlib.contextmanager
def dense_network(args: argparse.Namespace):
    """The dense network, and a run to train and to measure it in; the test images are not read."""
    import tensorflow as tf

    from secateur import dataloader, nets
    from secateur.pruning import compact
    from secateur.recipes.engine.config import RunOptions
    from secateur.recipes.engine.context import RunContext
    from secateur.runs import MetricsLog, RunFolder

    given = args.trained_param  # EKG's published weights read blue for red
    splits = dataloader.load("CIFAR10" if given else "DIGITS", args.data_path, "bgr" if given else "rgb")
    chosen = np.random.default_rng(0).permutation(len(splits.train))[: IMAGES if given else None]
    splits = dataclasses.replace(splits, train=splits.train.take(chosen))
    config = RunOptions(batch_size=args.batch_size, augmentation="none")
    with (
        tempfile.TemporaryDirectory() as path,
        RunFolder(path, {}) as folder,
        MetricsLog(folder) as log,
    ):
        context = RunContext(config, folder, log, splits, tf.distribute.get_strategy())
        model = compact(nets.load_params(None, given) if given else nets.build(ARCH))
        if not given:
            train(context, model, args.epochs, 0.05)
        yield context, model


def train(context, model, epochs: int, rate: float) -> None:
    """SGD with Nesterov's momentum, in place."""
    from secateur.recipes.engine.step import State
    from secateur.recipes.steps.train import Train
    from secateur.recipes.training.loop import fit

    step = Train(epochs=epochs, learning_rate=rate, schedule="cosine", optimizer="nesterov", weight_decay=0.0)
    fit(context, model, step.spec(context, State(name="train")))
    context.folder.drop_checkpoints("train")


def plans(context, model, ratio: float, setup) -> dict:
    """Name → plan: ours, and for every rule with operations the widest that takes as long, measured."""
    from secateur.pruning.choose.ranking import Limits, Ranking
    from secateur.pruning.count.counting import Counter
    from secateur.pruning.groups.analysis import analyse
    from secateur.pruning.latency.fit import fit
    from secateur.pruning.latency.greedy import widths_for
    from secateur.pruning.planning import make_plan
    from secateur.pruning.score.scores import score_groups
    from secateur.recipes.steps.trials import adapted

    analysis = analyse(model)
    scores = score_groups(model, CRITERION, analysis=analysis)
    ranking = Ranking.of(analysis, scores, Limits())
    macs = Operations(analysis, Counter(model, analysis=analysis))
    ours = fit(model, analysis, ranking, keep_ms=ratio, setup=setup).best
    rules = {
        "operations, same rule": lambda keep: widths_for(
            analysis.groups, ranking, macs, keep * macs(ranking.sizes)
        ),
        "operations, uniform": lambda keep: make_plan(model, scores, keep_macs=keep).widths(),
        "operations, uniform, ×8": lambda keep: make_plan(model, scores, keep_macs=keep, round_to=8).widths(),
        "operations, global": lambda keep: make_plan(
            model, scores, keep_macs=keep, allocation="global"
        ).widths(),
    }
    found = {OURS: ours.plan, SEARCHED: adapted(context, model, "keep_ms", ratio, np.inf)}
    for name, rule in rules.items():
        try:
            choose = widest_within(rule)
            same = fit(model, analysis, ranking, max_ms=ours.measured, setup=setup, choose=choose).best
            found[name] = same.plan
        except UsageError as error:  # its smallest network is slower
            print(f"{name}: {error}")
    return found


def widest_within(rule):
    """(cost, target) → widths of the largest share of operations whose layers take no longer."""
    known = functools.cache(rule)

    def choose(cost, target: float):
        for percent in range(98, 3, -1):
            if cost(widths := known(percent / 100)) <= target:
                return widths
        return widths

    return choose


def timed(setup, models: dict) -> dict[str, float]:
    """Name → milliseconds of the fastest call: half a second each, five times in turns.

    Calls one by one in turns would find the caches full of another network.
    """
    from secateur.exports.timing import least

    calls = {name: setup.caller(model) for name, model in models.items()}
    rounds = [{name: least({name: call}, 0.5)[name] for name, call in calls.items()} for _ in range(5)]
    return {name: min(times[name] for times in rounds) for name in calls}


def trained(context, model, plan, epochs: int) -> float:
    """Accuracy on the holdout of what a plan leaves, after averages of BN and some epochs."""
    from secateur.pruning import compact

    small = compact(model, plan)
    context.reestimate(small)
    train(context, small, epochs, 0.02)
    return context.accuracy(small, context.splits.holdout)


def run(args: argparse.Namespace, context, model) -> None:
    """Prunes the dense network to every ratio by every rule, prints and writes."""
    from secateur.exports.timing import Setup
    from secateur.pruning import Plan, compact, complexity

    setup, rows = Setup(), []
    given = {n: Plan.from_json(read_json(path)) for n, path in named_paths("plan", args.plan).items()}
    dense = context.accuracy(model, context.splits.holdout)
    for ratio in args.keep_ms:
        found = plans(context, model, ratio, setup) | given
        times = timed(setup, {"dense": model} | {n: compact(model, p) for n, p in found.items()})
        for name, plan in found.items():
            right = trained(context, model, plan, args.finetune_epochs)
            macs = complexity(model, plan=plan).macs / complexity(model).macs
            widths = list(plan.widths().values())
            share = times[name] / times["dense"]
            rows.append(
                {"keep_ms": ratio, "budget": name, "ms": times[name], "ms_left": share, "macs_left": macs,
                 "holdout_accuracy": right, "widths": widths}
            )  # fmt: skip
            print(f"{ratio:g}, {name}: {times[name]:.3f} ms, {macs:.1%} of the MACs, {right:.2%}")
    cells = [
        (f"{r['keep_ms']:g} · {r['budget']}", f"{r['ms']:.3f}", *(f"{r[key]:.1%}" for key in SHARES))
        for r in rows
    ]
    columns = ("kept milliseconds · budget", "ms", "of dense", "MACs", "holdout")
    data_set = "CIFAR10" if args.trained_param else "DIGITS"
    print_table(f"{model.name}, {data_set}, dense {dense:.2%} on the holdout", columns, cells)
    about = {"model": model.name, "dataset": data_set, "criterion": CRITERION, "setup": str(setup)}
    about |= {"dense": dense, "images": len(context.splits.train), "finetune_epochs": args.finetune_epochs}
    save("latency_budget", {**about, "rows": rows})


def main() -> None:
    """argv → table and JSON."""
    summary = __doc__.splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency_budget", description=summary)
    parser.add_argument("--keep_ms", type=float, nargs="+", default=[0.5, 0.3])
    parser.add_argument("--trained_param", help="published weights of a CIFAR-10 network")
    parser.add_argument("--data_path", help="data_dir of tfds, with cifar10")
    parser.add_argument("--plan", nargs="*", default=[], metavar="NAME=PLAN.json", help="of a search")
    parser.add_argument("--epochs", type=int, default=15, help="of the dense network, where it is trained")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--finetune_epochs", type=int, default=2)
    args = parser.parse_args()
    start_tensorflow()
    with dense_network(args) as (context, model):
        run(args, context, model)


if __name__ == "__main__":
    sys.exit(cli(main))
