"""What a plan gains in milliseconds: the dense net beside pruned ones, in LiteRT and as a frozen tf.function.

    python -m benchmarks.latency --plan searched=RUN1 --plan rounded=RUN2
    python -m benchmarks.latency                   uniform plans at 45 % of the operations, any width and ×8

A plan is a JSON file or a run folder that holds one. Only widths matter here: the weights are random.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.common import MEAN, STD, named_paths, print_summary, save, summary, take_turns, timed
from secateur.runs import UsageError, cli, read_json
from secateur.runs.start import start_tensorflow

DENSE = "dense"
MULTIPLE = 8


def find_plan(path: Path) -> Path:
    """The plan file of a run folder, or the file itself. Raises `UsageError` if there is not exactly one."""
    if path.is_file():
        return path
    found = sorted(path.glob("plan_*.json"))
    if len(found) != 1:
        raise UsageError(
            f"A plan is a JSON file or a run folder with one plan_*.json. Received: {str(path)!r}"
        )
    return found[0]


def read_plans(pairs: list[str], model, rate: float) -> dict:
    """Name → plan, from name=path pairs; without any, uniform plans with the best L1 norms."""
    from secateur.pruning import Plan, make_plan

    if not pairs:
        uniform = {
            "uniform, widths as they come": {},
            f"uniform, multiples of {MULTIPLE}": {"round_to": MULTIPLE},
        }
        return {
            name: make_plan(model, keep_macs=rate, convention="ekg", fill=False, **more)
            for name, more in uniform.items()
        }
    paths = named_paths("plan", pairs)
    return {name: Plan.from_json(read_json(find_plan(path))) for name, path in paths.items()}


def runners(models: dict, batch: int, threads: int) -> dict[str, dict]:
    """Backend → network → f() that runs one batch."""
    import numpy as np

    from secateur.exports import frozen_runner, litert_runner, to_litert

    pixels = np.random.default_rng(1).integers(0, 256, (batch, 32, 32, 3))
    images = ((pixels - np.array(MEAN)) / np.array(STD)).astype(np.float32)
    lite = {name: litert_runner(to_litert(model), batch, threads) for name, model in models.items()}
    frozen = {name: frozen_runner(model, batch) for name, model in models.items()}
    backends = {f"LiteRT float32, {threads} threads": lite, "frozen tf.function": frozen}
    return {
        title: {name: lambda run=run: run(images) for name, run in each.items()}
        for title, each in backends.items()
    }


def measure(calls: dict, turns: int) -> list[dict]:
    """Rows of milliseconds; every network is warmed up twice, then they take turns."""
    for call in calls.values():
        for _ in range(2):
            call()
    return summary(take_turns({name: lambda c=call: timed(c) for name, call in calls.items()}, turns), DENSE)


def describe(model, plan) -> dict:
    """Operations and parameters that a plan keeps."""
    from secateur.pruning import complexity

    cost = complexity(model, plan=plan)
    return {"macs": cost.macs, "params": cost.params, "rate": cost.macs / complexity(model).macs}


def run(args: argparse.Namespace) -> None:
    """Builds, measures, prints, writes."""
    from secateur import nets
    from secateur.pruning import Plan, compact, find_groups

    model = nets.build(args.arch)
    plans = {DENSE: Plan.full(find_groups(model)), **read_plans(args.plan, model, args.target_rate)}
    facts = {name: describe(model, plan) for name, plan in plans.items()}
    for name, fact in facts.items():
        print(f"{name}: {fact['macs']:,} MACs ({fact['rate']:.1%}), {fact['params']:,} parameters")
    models = {name: compact(model, plan) for name, plan in plans.items()}
    results = {}
    for title, calls in runners(models, args.batch_size, args.threads).items():
        results[title] = measure(calls, args.turns)
        print_summary(f"{args.arch}, batch {args.batch_size}, {title}", results[title], DENSE)
    about = {"arch": args.arch, "batch": args.batch_size, "plans": facts, "rows": results}
    save("latency", about)


def main() -> None:
    """argv → tables and JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.latency", description=__doc__.splitlines()[0])
    parser.add_argument("--plan", action="append", default=[], metavar="NAME=PATH", help="may be repeated")
    parser.add_argument("--arch", default="ResNet-56")
    parser.add_argument("--target_rate", type=float, default=0.45, help="of the uniform plans")
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2, help="of LiteRT")
    parser.add_argument("--turns", type=int, default=21)
    args = parser.parse_args()
    if args.turns < 1:
        raise UsageError(f"At least 1 turn. Received: turns={args.turns}")
    start_tensorflow()
    run(args)


if __name__ == "__main__":
    sys.exit(cli(main))
