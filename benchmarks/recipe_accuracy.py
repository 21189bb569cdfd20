"""All systems side by side: each recipe from one network to about half of its MACs, one table.

    python -m benchmarks.recipe_accuracy --trained_param resnet20.safetensors --data_path DIR --runs RUNS

Every recipe trains for four passes over the same images, teachers and searches besides; those that prune in
rounds divide the passes among them. Sparsities were chosen for the MACs that they leave, and by nothing else.
Every run has a folder of its own under RUNS: what is finished is read, what was killed goes on. Nothing is
chosen by looking at the test images.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.common import print_table, save
from benchmarks.run_tables import parser_of, percent, row, run, slug, words_of
from secateur.runs import UsageError, cli

PLAN = [str(Path(__file__).parent / "recipes" / "plan.toml"), "--set"]
KESI = ["kesi", "--set", "rounds.times=3", "train.epochs=1", "distil.epochs=1"]
EKG = ["ekg", "--target_rate", "0.5"]
RECIPES = {
    "L1, small rate (PFEC)": [
        *PLAN, "train.learning_rate=0.001", "train.schedule=constant"
    ],
    "L1, one-cycle": [*PLAN, "train.epochs=4"],
    "random, one-cycle": [*PLAN, "prune_fixed.criterion=random"],
    "FPGM's score, one-cycle": [*PLAN, "prune_fixed.criterion=fpgm"],
    "NGGM, one-cycle": [*PLAN, "prune_fixed.criterion=nggm"],
    "NGGM, one-cycle, KD": [*PLAN, "prune_fixed.criterion=nggm", "train.teacher=dense"],
    "NGGM, one-cycle, KD + HAP": [
        *PLAN, "prune_fixed.criterion=nggm", "train.teacher=dense", "train.distill=kd+hap"
    ],
    "random weights in L1's widths": [*PLAN, "reset.to=random"],
    "KESI: rounds, ensemble": KESI,
    "KESI: rounds, no teacher": [*KESI, "distil.distill=none", "distil.label_weight=1.0", "distil.betas=[]"],
    "NNI's lottery, FPGM, KD": [
        "lottery_nni", "--stem", "cifar", "--set", "rounds.times=3", "recover.epochs=1", "distil.epochs=1",
        "prune_ladder.sparsity=0.5",
    ],
    "AGP": [
        "agp", "--set", "rounds.times=3", "train.epochs=1", "finish.epochs=1", "prune_ladder.sparsity=0.17"
    ],
    "SFP": ["sfp", "--set", "soft_train.epochs=4", "soft_train.sparsity=0.3"],
    "FPGM": ["fpgm", "--set", "soft_train.epochs=4", "soft_train.sparsity=0.45"],
    "network slimming": [
        "slimming", "--set", "sparse_train.epochs=2", "train.epochs=2", "prune_scales.percent=0.2",
        "sparse_train.learning_rate=0.01", "train.learning_rate=0.01",
    ],
    "NetAdapt": ["netadapt", "--set", "netadapt.cost=macs", "train.epochs=4"],
    "annealing": ["annealing", "--set", "anneal.cost=macs", "train.epochs=4"],
    "AutoCompress": [
        "autocompress", "--set", "rounds.times=1", "admm_train.epochs=1", "recover.epochs=1",
        "train.epochs=2", "anneal.cost=macs",
    ],
    "EKG, labels alone": [*EKG, "--no-Knowledge", "--train_epoch", "4"],
    "EKG, memory bank": [*EKG, "--train_epoch", "2"],  # two views: every image twice
}  # fmt: skip
"""Row → words behind `--recipe`."""


def main() -> None:
    """argv → runs → table and JSON."""
    parser = parser_of("benchmarks.recipe_accuracy", __doc__)
    parser.add_argument("--trained_param", required=True, help="the network that all start from")
    parser.add_argument("--train_images", type=int, default=12800, help="of each pass")
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    if args.seeds < 1:
        raise UsageError(f"At least 1 seed. Received: seeds={args.seeds}")
    common = [*words_of(args, args.trained_param), "--train_images", str(args.train_images)]
    common += ["--batch_size", "128", "--time_seconds", "1"]
    reports = {
        (name, seed): run(["--recipe", *words[:1], *common, "--seed", str(seed), *words[1:]], folder)
        for seed in range(1, args.seeds + 1)
        for name, words in RECIPES.items()
        for folder in [args.runs / f"{slug(name)}-{seed}-{args.train_images}"]
    }
    rows = [_row(name, [reports[name, seed] for seed in range(1, args.seeds + 1)]) for name in RECIPES]
    dense = next(iter(reports.values()))["rows"][0]
    titles = ("", "MACs", "parameters", "hold-out %", "test %", "passes", "seconds")
    print_table(
        f"{args.arch}, {100 * dense['test_accuracy']:.2f} %", titles, [_cells(r, dense) for r in rows]
    )
    save(
        "recipe_accuracy",
        {"arch": args.arch, "train_images": args.train_images, "dense": dense, "rows": rows},
    )


def _row(name: str, reports: list[dict]) -> dict:
    """Seconds are those of all steps but the reports and exports at the end."""
    ending = ("compact", "litert", "report")
    seconds = [sum(s for step, s in r["seconds"].items() if step not in ending) for r in reports]
    trained = [epoch for epoch in reports[0]["epochs"] if epoch["phase"] != "warm_up"]
    return row(name, reports, seconds) | {"passes": len(trained)}


def _cells(found: dict, dense: dict) -> tuple[str, ...]:
    """A line of the table."""
    return (
        found["name"],
        *(f"{100 * found[key] / dense[key]:.0f} %" for key in ("macs", "params")),
        *(percent(found[key]) for key in ("holdout_accuracy", "test_accuracy")),
        str(found["passes"]),
        f"{found['seconds']:.0f}",
    )


if __name__ == "__main__":
    sys.exit(cli(main))
