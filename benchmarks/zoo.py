"""Every model of a zoo, halved: groups, reach, masked = compact, saved, loaded, exported.

    python -m benchmarks.zoo                        keras.applications, a process each
    python -m benchmarks.zoo MobileNetV2 VGG16      these again, beside the stored rows of the others
    python -m benchmarks.zoo --default              with each model's own size of images
    python -m benchmarks.zoo --zoo kimm             or keras_hub, where these are installed

Weights are random, statistics of BN as of a trained network; images have 64×64 pixels, or the smallest that a
model takes. Operations are counted beside TensorFlow's profiler on the frozen graph. Reachable: the share of
the channels, classes left out, that may be removed. A file is loaded by Keras in a process that knows of no
zoo. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS, save
from benchmarks.zoos import ZOOS
from secateur.runs import UsageError, cli, read_json
from secateur.runs.errors import SecateurError, first_line
from secateur.runs.start import start_tensorflow
from secateur.runs.suggest import nearest

KEEP = 0.5
SAME = 1e-4  # of the largest output
COUNTED = 0.01  # of the operations
IMAGES = 16  # whose statistics BN has
LIMIT = 1800  # seconds for one model
LOAD = "import keras, sys; keras.models.load_model(sys.argv[1])"


def trained_looks(model) -> None:
    """Scales as of a trained network, or most channels compute the same; and averages that fit them.

    With averages from elsewhere the deepest networks multiply a rounding error to the size of their outputs.
    """
    import numpy as np

    from secateur.exports.signature import sample_inputs
    from secateur.op_utils import reestimate_batch_norm

    rng = np.random.default_rng(0)
    for variable in model.variables:
        if variable.name == "gamma":
            variable.assign(rng.uniform(0.5, 1.5, variable.shape))
        elif variable.name in ("beta", "bias"):
            variable.assign(rng.normal(0, 0.1, variable.shape))
    reestimate_batch_norm(model, lambda x: x, sample_inputs(model, IMAGES)[0], IMAGES)


def check(make: Callable[[], Any], name: str, folder: Path) -> dict:
    """All figures of one model; `problems` names what does not hold."""
    from secateur.exports import compare, export
    from secateur.exports.signature import outputs, sample_inputs
    from secateur.pruning import compact, complexity, make_plan, mask
    from secateur.pruning.groups.analysis import analyse
    from secateur.pruning.layers.profiling import profiled

    model = make()
    trained_looks(model)
    start = time.perf_counter()
    analysis = analyse(model)
    plan = make_plan(model, keep_macs=KEEP)
    small = compact(model, plan)
    seconds = time.perf_counter() - start
    dense = complexity(model).macs
    inputs = sample_inputs(model, 2)
    same = compare(outputs(mask(model, plan), inputs), outputs(small, inputs)).relative
    macs = complexity(small).macs / dense
    try:
        counted = dense / profiled(model)
    except ValueError:  # a loop, whose turns are in no graph
        counted = None
    parities, refused = {"keras": export(small, folder / "small.keras", "keras").relative}, []
    try:
        parities["litert"] = export(small, folder / "small.tflite", "litert").relative
    except SecateurError as error:
        refused = [first_line(error)]
    loads = subprocess.run([sys.executable, "-c", LOAD, str(folder / "small.keras")], capture_output=True)
    inner = (row for row in analysis.untouched if row.reason != "it is an output of the model")
    free, whole = sum(g.size for g in analysis.groups), sum(row.channels for row in inner)
    problems = {
        f"masked and compact differ by {same:.1e}": same > SAME,
        f"{macs:.1%} of the MACs are left": not 0.9 * KEEP < macs <= KEEP,
        f"{counted} times the MACs of the profiler": counted is not None and abs(counted - 1) > COUNTED,
        "its file needs more than Keras": loads.returncode != 0,
    }
    return {
        "model": name,
        "side": model.inputs[0].shape[1],
        "layers": len(model.layers),
        "groups": len(analysis.groups),
        "reachable": free / (free + whole),
        "untouched": [
            {"layers": list(u.layers), "channels": u.channels, "reason": u.reason} for u in analysis.untouched
        ],
        "macs": dense,
        "against_profiler": counted,
        "macs_left": macs,
        "masked_against_compact": same,
        "parities": parities,
        "seconds": seconds,
        "problems": [*(problem for problem, holds in problems.items() if holds), *refused],
    }


def check_apart(name: str, options: list[str]) -> dict:
    """`check` in a process of its own, which gives its memory back; a failure is a row as well."""
    command = [sys.executable, "-m", "benchmarks.zoo", "--one", name, *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return {"model": name, "problems": [f"took more than {LIMIT} s"]}
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        ended = f"ended with code {done.returncode}" + (", out of memory" if done.returncode == -9 else "")
        return {"model": name, "problems": [(lines or [ended])[-1][:300]]}
    return json.loads(done.stdout.splitlines()[-1])


def markdown(rows: list[dict]) -> str:
    """The table as README holds it."""
    titles = (
        "model",
        "pixels",
        "layers",
        "groups",
        "channels reachable",
        "masked − compact",
        "seconds",
        "problems",
    )
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for row in rows:
        cells = [f"{row['model']}"]
        if "groups" in row:
            cells += [str(row["side"]), str(row["layers"]), str(row["groups"]), f"{row['reachable']:.1%}"]
            cells += [f"{row['masked_against_compact']:.0e}", f"{row['seconds']:.1f}"]
        else:
            cells += ["–"] * 6
        lines.append("| " + " | ".join([*cells, "; ".join(row["problems"]) or "none"]) + " |")
    return "\n".join(lines)


def run(wanted: list[str], zoo: str, default: bool) -> None:
    """All models, a line for each as it is done, then the table and the JSON."""
    known = makers(zoo, default)
    if strange := next((name for name in wanted if name not in known), None):
        raise UsageError(f"Unknown model. Received: {strange!r}. {nearest(strange, known)}")
    file, options = f"{zoo}_default" if default else zoo, ["--zoo", zoo, *(["--default"] if default else [])]
    stored = RESULTS / f"{file}.json"
    rows = {row["model"]: row for row in read_json(stored)["rows"]} if wanted and stored.exists() else {}
    for name in wanted or known:
        rows[name] = check_apart(name, options)
        print(f"{name}: {'; '.join(rows[name]['problems']) or 'holds'}", file=sys.stderr, flush=True)
    found = [rows[name] for name in known if name in rows]
    print(markdown(found))
    save(file, {"keep_macs": KEEP, "rows": found})


def makers(zoo: str, default: bool) -> dict[str, Callable[[], Any]]:
    """What makes each model of a zoo, by name."""
    return ZOOS[zoo](default) if zoo == "applications" else ZOOS[zoo]()


def main() -> None:
    """argv → table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--zoo", choices=ZOOS, default="applications")
    parser.add_argument("--one", help="print the row of one model as JSON; used by the program itself")
    parser.add_argument("--default", action="store_true", help="images of each model's own size")
    args = parser.parse_args()
    start_tensorflow()
    if args.one:
        with tempfile.TemporaryDirectory() as folder:
            make = makers(args.zoo, args.default)[args.one]
            print(json.dumps(check(make, args.one, Path(folder))))
    else:
        run(args.models, args.zoo, args.default)


if __name__ == "__main__":
    sys.exit(cli(main))
