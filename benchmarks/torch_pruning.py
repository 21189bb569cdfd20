"""Groups, L1, a plan to 45 % of the operations and the small network: beside Torch-Pruning 1.6.1, on the CPU.

    python -m benchmarks.torch_pruning
    python -m benchmarks.torch_pruning --timm      five of keras.applications beside their twins of timm

ResNet-56 and VGG-16 (13 convolutions, one dense layer, 32×32). Both sides rank all channels together by L1
over all members of a group, and start from a network that is there. Torch-Pruning is run as its authors do
for a target: 400 small steps, counting after each, until the target is met; for comparison in 20 steps, which
overshoot, and in one step to a ratio that a search found before, which nothing here counts. Then ours alone
on ResNet-20 … ResNet-1202: seconds, and the slope of their logarithm over that of the depth. With --timm to
half of the operations at 64×64 pixels and 1000 classes, in 20 steps and in one; it needs timm.

The peer: `make bench` installs it, or `pip install --no-deps torch-pruning==1.6.1` beside PyTorch.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import sys
from collections.abc import Callable

from benchmarks.common import print_summary, print_table, save, summary, take_turns, timed
from benchmarks.worker import Worker, serve
from secateur.runs import UsageError, cli
from secateur.runs.start import start_tensorflow

KEEP, CLASSES, SIDE = 0.45, 10, 32
NETS = ("ResNet-56", "VGG-16")
OF_TIMM = ("MobileNetV2", "ResNet50", "DenseNet121", "EfficientNetB0", "ConvNeXtTiny")
KEEP_OF_TIMM, SIDE_OF_TIMM = 0.5, 64
DEPTHS = (20, 32, 56, 110, 218, 434, 1202)
OURS = "ours"
STEPS = {"Torch-Pruning, 400 steps": 400, "Torch-Pruning, 20 steps": 20, "Torch-Pruning, 1 step": 1}

Job = Callable[[], dict]  # one run: seconds and the share of the operations that it kept


def keras_net(name: str):
    """The Keras network, stock or ours."""
    import keras

    from secateur import nets

    if name in OF_TIMM:
        return getattr(keras.applications, name)(weights=None, input_shape=(SIDE_OF_TIMM, SIDE_OF_TIMM, 3))
    if name.startswith("ResNet"):
        from secateur.nets.families.resnet_cifar import resnet

        return resnet(nets.NetSpec(name, input_shape=(SIDE, SIDE, 3), num_classes=CLASSES))
    body = keras.applications.VGG16(include_top=False, weights=None, input_shape=(SIDE, SIDE, 3))
    x = keras.layers.Flatten()(body.output)
    return keras.Model(body.inputs, keras.layers.Dense(CLASSES)(x))


def kept_of(name: str) -> float:
    """The share of the operations that a network is to keep."""
    return KEEP_OF_TIMM if name in OF_TIMM else KEEP


def ours(name: str) -> Job:
    """Our job on one network; compaction copies, so the network is as it was."""
    from secateur.pruning import compact, complexity, make_plan

    model, keep = keras_net(name), kept_of(name)
    dense = complexity(model).macs

    def run() -> dict:
        made = []
        seconds = timed(
            lambda: made.append(
                compact(model, make_plan(model, "group_l1", keep_macs=keep, allocation="global"))
            )
        )
        return {"seconds": seconds, "kept": complexity(made[0]).macs / dense}

    return run


def work(job: str) -> None:
    """The worker: "competitor on network" → one line of JSON for each line."""
    competitor, _, name = job.partition(" on ")
    if competitor == OURS:
        start_tensorflow()
        run = ours(name)
        run()  # warms up
    else:
        from benchmarks.torch_pruner import job as peer

        run = peer(name, CLASSES, kept_of(name), STEPS[competitor])
    serve(lambda _: json.dumps(run()))


def compare(name: str, competitors: list[str], turns: int) -> list[dict]:
    """Rows of the table for one network, each with the share of the operations that was kept."""
    workers, kept = {}, {}

    def turn(competitor: str) -> float:
        answer = json.loads(workers[competitor].ask("run"))
        kept[competitor] = answer["kept"]
        return answer["seconds"]

    try:
        for competitor in competitors:
            workers[competitor] = Worker("benchmarks.torch_pruning", f"{competitor} on {name}")
        calls = {c: lambda c=c: turn(c) for c in competitors}
        return [row | {"kept": kept[row["name"]]} for row in summary(take_turns(calls, turns), OURS)]
    finally:
        for worker in workers.values():
            worker.close()


def linearity(turns: int) -> dict:
    """Seconds of ours by depth, and the slope of log(seconds) over log(depth): 1 is linear."""
    import numpy as np

    start_tensorflow()
    rows = []
    for depth in DEPTHS:
        run = ours(f"ResNet-{depth}")
        run()  # warms up
        rows.append({"depth": depth, "seconds": statistics.median(run()["seconds"] for _ in range(turns))})
    depths, seconds = np.log([[row["depth"], row["seconds"]] for row in rows]).T
    return {"rows": rows, "slope": float(np.polyfit(depths, seconds, 1)[0])}


def main() -> None:
    """argv → tables and JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.torch_pruning", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--turns", type=int, default=5, help="how often each takes its turn")
    parser.add_argument("--timm", action="store_true", help="five networks of timm in place of these")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return work(args.worker)
    if args.turns < 1:
        raise UsageError(f"At least 1 turn. Received: turns={args.turns}")
    competitors = [OURS]
    if importlib.util.find_spec("torch") and importlib.util.find_spec("torch_pruning"):
        competitors += STEPS
    else:
        print("Torch-Pruning is not installed: its rows are left out (make bench installs it)")
    if args.timm:
        competitors = [name for name in competitors if STEPS.get(name, 0) < 400]
    tables = {n: compare(n, competitors, args.turns) for n in (OF_TIMM if args.timm else NETS)}
    for name, rows in tables.items():
        title = f"{name} to {kept_of(name):.0%} of the operations, CPU, {os.cpu_count()} cores"
        print_summary(title, rows, OURS, "s")
        print(", ".join(f"{row['name']} keeps {row['kept']:.4f}" for row in rows))
    if args.timm:
        save("torch_pruning_timm", {"keep": KEEP_OF_TIMM, "side": SIDE_OF_TIMM, "nets": tables})
        return None
    deep = linearity(args.turns)
    cells = [(f"ResNet-{row['depth']}", f"{row['seconds']:.3f}") for row in deep["rows"]]
    print_table(f"ours by depth: slope {deep['slope']:.2f}", ("", "seconds"), cells)
    save("torch_pruning", {"keep": KEEP, "nets": tables, "depths": deep})


if __name__ == "__main__":
    sys.exit(cli(main))
