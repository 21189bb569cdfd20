"""A budget of milliseconds beside one of operations: accuracy on the holdout at equal time.

    python -m benchmarks.latency_budget                                  ResNet-20, trained on the digits
    python -m benchmarks.latency_budget --trained_param res56_cifar10.pkl --data_path DATA      CIFAR-10

The same dense network, the same scores and the same training behind each plan; LiteRT, one thread, one image.
The budget of operations is one that takes as long, measured, as the network that the milliseconds gave.
"""

from __future__ import annotations

import argparse
import functools
import sys

from benchmarks.common import print_table, save
from secateur.recipes.commands.options import TuningOptions
from secateur.runs import UsageError, cli
from secateur.runs.quiet import start_tensorflow

ARCH, CRITERION = "ResNet-20", "l1"
IMAGES = 6400  # of CIFAR-10 that a pruned network is trained on: minutes, not hours
OURS = "milliseconds"
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


def subject(args: argparse.Namespace):
    """The dense network, with images to train and to decide with; the test images are not read."""
    from secateur import dataloader, nets
    from secateur.pruning import compact
    from secateur.recipes.commands.training import fine_tune

    if args.trained_param:
        # EKG's published weights read blue for red.
        splits = dataloader.load("CIFAR10", args.data_path, normalisation="bgr", download=False)
        return compact(nets.load_params(None, args.trained_param)), images(splits, IMAGES)
    data = images(dataloader.load("DIGITS"))
    model = compact(nets.build(ARCH))
    fine_tune(model, data, TuningOptions(finetune_epochs=args.epochs, learning_rate=0.05, batch_size=32))
    return model, data


def images(splits, count: int | None = None):
    """Images of train, or some of them, and of the holdout, which the network reads normalised."""
    import numpy as np

    from secateur.recipes.commands.images import ImageData, Scaled

    mean, std = (np.array(x, np.float32) for x in (splits.facts.mean, splits.facts.std))

    def pair(part):
        return Scaled(part.images, (-mean / std, (255 - mean) / std)), part.labels

    chosen = np.random.default_rng(0).permutation(len(splits.train))[:count]
    return ImageData(pair(splits.train.take(chosen)), pair(splits.holdout), splits.facts.num_classes)


def plans(model, ratio: float, setup) -> dict:
    """Name → plan: ours, and for every rule with operations the widest that takes as long, measured."""
    from secateur.pruning.choose.ranking import Limits, Ranking
    from secateur.pruning.count.counting import Counter
    from secateur.pruning.groups.analysis import analyse
    from secateur.pruning.latency.fit import fit
    from secateur.pruning.latency.greedy import widths_for
    from secateur.pruning.planning import make_plan
    from secateur.pruning.score.scores import score_groups

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
    found = {OURS: ours.plan}
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


def trained(model, plan, data, training: TuningOptions) -> float:
    """Accuracy on the holdout of what a plan leaves, after averages of BN and some epochs."""
    from secateur.pruning import compact
    from secateur.recipes.commands.training import accuracy, fine_tune, reestimate

    small = compact(model, plan)
    reestimate(small, data, training.batch_size)
    fine_tune(small, data, training)
    return accuracy(small, data, training.batch_size)


def run(args: argparse.Namespace) -> None:
    """Trains the dense network, prunes it to every ratio by every rule, prints and writes."""
    from secateur.exports.timing import Setup
    from secateur.pruning import compact, complexity
    from secateur.recipes.commands.training import accuracy

    (model, data), setup, rows = subject(args), Setup(), []
    dense = accuracy(model, data, args.batch_size)
    for ratio in args.keep_ms:
        found = plans(model, ratio, setup)
        times = timed(setup, {"dense": model} | {n: compact(model, p) for n, p in found.items()})
        for name, plan in found.items():
            training = TuningOptions(
                finetune_epochs=args.finetune_epochs, learning_rate=0.02, batch_size=args.batch_size
            )
            right = trained(model, plan, data, training)
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
    about |= {"dense": dense, "images": len(data.train[1]), "finetune_epochs": args.finetune_epochs}
    save("latency_budget", {**about, "rows": rows})


def main() -> None:
    """argv → table and JSON."""
    summary = __doc__.splitlines()[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency_budget", description=summary)
    parser.add_argument("--keep_ms", type=float, nargs="+", default=[0.5, 0.3])
    parser.add_argument("--trained_param", help="published weights of a CIFAR-10 network")
    parser.add_argument("--data_path", help="data_dir of tfds, with cifar10")
    parser.add_argument("--epochs", type=int, default=15, help="of the dense network, where it is trained")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--finetune_epochs", type=int, default=2)
    args = parser.parse_args()
    start_tensorflow()
    run(args)


if __name__ == "__main__":
    sys.exit(cli(main))
