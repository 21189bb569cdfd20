"""Makes snapshots of the weights that came back, evaluates them on the test images once, and prints a table.

    python -m benchmarks.gpu.collect EXPORT RESULTS… --data_path DATA --out OUT

RESULTS are what sessions of `benchmarks.gpu.run` wrote, the latest last. OUT gets <run>/trained_param.pkl,
which test.py evaluates to the same figures, and full_schedules.json. Runs cut off have fewer epochs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.common import command, print_table
from benchmarks.gpu.run import probed
from secateur import nets
from secateur.pruning import Plan, narrow
from secateur.recipes.commands.evaluate import run as evaluate
from secateur.recipes.engine.config import EvaluateOptions
from secateur.runs import Snapshot, cli, load_snapshot, read_json, read_jsonl, save_snapshot, write_json

Weights = dict[str, tuple[int, list[np.ndarray]]]  # run → epochs, parameters and statistics


def weights_in(folders: Sequence[Path]) -> Weights:
    """The weights of every run, those of most epochs."""
    found: Weights = {}
    for path in (path for folder in folders for path in sorted(folder.glob("weights-*.npz"))):
        parts: dict[str, dict[str, np.ndarray]] = defaultdict(dict)
        with np.load(path) as file:
            for key in file:
                label, _, place = key.rpartition("/")
                parts[label][place] = file[key]
        for label, arrays in parts.items():
            name, _, epochs = label.rpartition("@")
            if int(epochs) >= found.get(name, (0,))[0]:
                found[name] = int(epochs), [arrays[place] for place in sorted(arrays)]
    return found


def epochs_in(folders: Sequence[Path]) -> dict[str, list[dict]]:
    """The log of every run, a row for each epoch; a later session has the earlier rows too."""
    rows = {(row["run"], row["epoch"]): row for f in folders for row in read_jsonl(f / "epochs.jsonl")}
    found: dict[str, list[dict]] = defaultdict(list)
    for (name, _), row in sorted(rows.items()):
        found[name].append(row)
    return found


def save_trained(bare: Snapshot, network: Mapping, arrays: Sequence[np.ndarray], path: Path) -> None:
    """Writes a snapshot of a network as trained, without the channels that only made it faster."""
    named = {name: array for name, array in zip(network["names"], arrays, strict=True) if name}
    model = nets.load_params(None, Snapshot(named, bare.spec))
    if network["inner"]:
        model = narrow(model, Plan.from_json(network["inner"]))
    path.parent.mkdir(parents=True, exist_ok=True)
    save_snapshot(path, nets.snapshot_of(model, bare.facts, bare.plan))


def rows_of(
    contents: Mapping, export: Path, folders: Sequence[Path], out: Path, data_path: str | None
) -> list[dict]:
    """One row for each run that got somewhere: what it was, its log in short, its test accuracy."""
    weights, logs, rows = weights_in(folders), epochs_in(folders), []
    for run in (run for run in contents["runs"] if run["name"] in weights):
        epochs, arrays = weights[run["name"]]
        path = out / run["name"] / "trained_param.pkl"
        network = contents["networks"][run["network"]]
        save_trained(load_snapshot(export / f"{run['network']}.pkl"), network, arrays, path)
        log = [row for row in logs[run["name"]] if row["epoch"] <= epochs]
        rows.append({**run, "trained_epochs": epochs, **_in_short(log), **_tested(network, path, data_path)})
        print(f"{run['name']}: {100 * rows[-1]['test_accuracy']:.2f} % after {epochs} epochs", flush=True)
    return rows


def _in_short(log: Sequence[Mapping]) -> dict:
    """Hold-out accuracy by epoch, and what the epochs cost."""
    return {
        "holdout_accuracy": [row["holdout_accuracy"] for row in log],
        "loss": [row["loss"] for row in log],
        "seconds": sum(row["seconds"] for row in log),
        "images_per_second": statistics.median(row["images_per_second"] for row in log),
    }


def _tested(network: Mapping, path: Path, data_path: str | None) -> dict:
    options = {"arch": network["arch"], "dataset": network["dataset"], "data_path": data_path}
    [row] = evaluate(EvaluateOptions(**options, trained_param=[str(path)]))
    return {
        "test_accuracy": row["accuracy"],
        "test_loss": row["loss"],
        "params": row["params"],
        "macs": row["macs"],
    }


def summary(rows: Sequence[Mapping]) -> list[tuple[str, ...]]:
    """Runs that differ in their seed alone, as cells: name, seeds, epochs, MACs, accuracies, seconds."""
    groups: dict[tuple[str, int], list[Mapping]] = defaultdict(list)
    for row in rows:
        groups[row["name"].rpartition("-")[0], row["trained_epochs"]].append(row)
    return [
        (
            name,
            str(len(group)),
            f"{epochs}/{group[0]['epochs']}",
            f"{group[0]['macs'] / 1e6:.1f}M",
            _spread([row["test_accuracy"] for row in group]),
            _spread([row["holdout_accuracy"][-1] for row in group]),
            f"{statistics.mean(row['seconds'] for row in group):.0f}",
        )
        for (name, epochs), group in groups.items()
    ]


def _spread(values: Sequence[float]) -> str:
    text = f"{100 * statistics.mean(values):.2f}"
    return text if len(values) < 2 else f"{text} ± {100 * statistics.stdev(values):.2f}"


def main() -> None:
    """argv → snapshots, table and JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("export", type=Path)
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--data_path")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    contents = read_json(args.export / "runs.json")
    rows = rows_of(contents, args.export, args.results, args.out, args.data_path)
    columns = ("run", "seeds", "epochs", "MACs", "test %", "hold-out %", "s")
    print_table("Full schedules on a GPU", columns, summary(rows))
    notes = read_jsonl(args.results[-1] / "notes.jsonl")
    if lines := probed(notes):
        print("", *lines, sep="\n")
    device = next(note for note in reversed(notes) if note.get("event") == "device")
    about = {name: contents[name] for name in ("commit", "tensorflow")} | {"command": command()}
    about |= {name: device[name] for name in ("device", "jax", "precision")}
    write_json(args.out / "full_schedules.json", {**about, "rows": rows, "notes": notes})


if __name__ == "__main__":
    sys.exit(cli(main))
