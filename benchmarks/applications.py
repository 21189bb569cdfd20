"""Every model of keras.applications, halved: groups, reach, masked = compact, saved, loaded, exported.

    python -m benchmarks.applications                     all of them, a process each
    python -m benchmarks.applications MobileNetV2 VGG16   these again, beside the stored rows of the others
    python -m benchmarks.applications --default           with each model's own size of images

Weights are random, statistics of BN as of a trained network; images have 64×64 pixels, or the smallest that a
model takes. Reachable: the share of the channels, classes left out, that may be removed. Prints Markdown.
"""

from __future__ import annotations

import argparse
import inspect
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.common import RESULTS, save
from secateur.runs import UsageError, cli, read_json
from secateur.runs.quiet import start_tensorflow
from secateur.runs.suggest import nearest

SIDES = (64, 71, 75, 96, 128, 224, 331)  # the first that a model takes
OPEN = 224
KEEP = 0.5
SAME = 1e-4  # of the largest output
IMAGES = 16  # whose statistics BN has
LIMIT = 1800  # seconds for one model


def names() -> list[str]:
    """Models of keras.applications in the order of its documentation: by name."""
    import keras

    return sorted(name for name, make in vars(keras.applications).items() if inspect.isfunction(make))


def build(name: str, default: bool = False):
    """The model at its own size or the smallest of `SIDES`; its logits, as softmax hides differences."""
    import keras

    make, refused = getattr(keras.applications, name), None
    more = (
        {"classifier_activation": None}
        if "classifier_activation" in inspect.signature(make).parameters
        else {}
    )
    if default:
        model = make(weights=None, **more)
        sizes = model.input_shape[1:3]  # MobileNetV3 leaves them open; its weights were trained at 224
        return model if None not in sizes else make(weights=None, input_shape=(OPEN, OPEN, 3), **more)
    for side in SIDES:
        try:
            return make(weights=None, input_shape=(side, side, 3), **more)
        except ValueError as error:
            refused = error
    raise refused


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
    images = sample_inputs(model, IMAGES)[0]
    reestimate_batch_norm(model, lambda x: x, images, IMAGES)


def check(name: str, folder: Path, default: bool = False) -> dict:
    """All figures of one model; `problems` names what does not hold."""
    import keras

    from secateur.exports import compare, export
    from secateur.exports.signature import outputs, sample_inputs
    from secateur.pruning import compact, complexity, make_plan, mask
    from secateur.pruning.groups.analysis import analyse

    model = build(name, default)
    trained_looks(model)
    start = time.perf_counter()
    analysis = analyse(model)
    plan = make_plan(model, keep_macs=KEEP)
    small = compact(model, plan)
    seconds = time.perf_counter() - start
    inputs = sample_inputs(model, 2)
    same = compare(outputs(mask(model, plan), inputs), outputs(small, inputs)).relative
    macs = complexity(small).macs / complexity(model).macs
    parities = {kind: export(small, folder / f"small.{kind}", kind).relative for kind in ("keras", "litert")}
    loaded = keras.models.load_model(folder / "small.keras")
    plain = all(type(layer).__module__.startswith("keras.") for layer in loaded.layers)
    inner = (row for row in analysis.untouched if row.reason != "it is an output of the model")
    free, whole = sum(g.size for g in analysis.groups), sum(row.channels for row in inner)
    problems = {
        f"masked and compact differ by {same:.1e}": same > SAME,
        f"{macs:.1%} of the MACs are left": not 0.9 * KEEP < macs <= KEEP,
        "its file needs more than Keras": not plain,
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
        "macs_left": macs,
        "masked_against_compact": same,
        "parities": parities,
        "seconds": seconds,
        "problems": [problem for problem, holds in problems.items() if holds],
    }


def check_apart(name: str, default: bool = False) -> dict:
    """`check` in a process of its own, which gives its memory back; a failure is a row as well."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.applications",
        "--one",
        name,
        *(["--default"] if default else []),
    ]
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


def run(wanted: list[str], default: bool = False) -> None:
    """All models, a line for each as it is done, then the table and the JSON."""
    known = names()
    if strange := next((name for name in wanted if name not in known), None):
        raise UsageError(f"Unknown model. Received: {strange!r}. {nearest(strange, known)}")
    file = "applications_default" if default else "applications"
    stored = RESULTS / f"{file}.json"
    rows = {row["model"]: row for row in read_json(stored)["rows"]} if wanted and stored.exists() else {}
    for name in wanted or known:
        rows[name] = check_apart(name, default)
        print(f"{name}: {'; '.join(rows[name]['problems']) or 'holds'}", file=sys.stderr, flush=True)
    found = [rows[name] for name in known if name in rows]
    print(markdown(found))
    save(file, {"keep_macs": KEEP, "rows": found})


def main() -> None:
    """argv → table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.applications", description=__doc__.splitlines()[0]
    )
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--one", help="print the row of one model as JSON; used by the program itself")
    parser.add_argument("--default", action="store_true", help="images of each model's own size")
    args = parser.parse_args()
    start_tensorflow()
    if args.one:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(check(args.one, Path(folder), args.default)))
    else:
        run(args.models, args.default)


if __name__ == "__main__":
    sys.exit(cli(main))
