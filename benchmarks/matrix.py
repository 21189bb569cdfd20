"""Every recipe on models that nobody here built: a row for each recipe, a column for each model.

    python -m benchmarks.matrix --runs RUNS [--models MobileNetV2 …] [--recipes ekg …] [--limit SECONDS]

The images are three kinds of stripes that this program draws, in a folder; the models train on them for a
few epochs first. A run is killed in its second step, or later, and started again. A cell is done when the
recipe has ended in a plain Keras model at its budget of MACs, if it removes channels, as report.json
says. What is finished, here or in the file of results, is read; what did not end goes on. A cell that cannot
be names the reason. It says that things run, and nothing of how good they are.
"""

from __future__ import annotations

import argparse
import importlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np

from benchmarks.common import RESULTS, save
from secateur.runs import cli, read_json, write_json
from secateur.runs.text import table

SIDE, CLASSES, EACH = 32, 3, 40
BUDGET = 0.7  # of the MACs
SHORT = "--batch_size 32 --time_seconds 0.02 --shorten 0.001 --pixels -1..1".split()
ROUNDS = ["--set", "rounds.times=2"]
RECIPES: dict[str, list[str]] = {
    "ekg": ["ekg", "--search_step", "0.5"],
    "kesi": ["kesi", *ROUNDS],
    "kesi_weights": ["kesi_weights", *ROUNDS],
    "one-shot": ["pfec_a"],
    "lottery": ["lottery", *ROUNDS],
    "hap": ["hap"],
    "sfp": ["sfp"],
    "fpgm": ["fpgm"],
    "slimming": ["slimming"],
    "agp": ["agp", *ROUNDS],
    "netadapt": ["netadapt", "--set", "netadapt.share=0.2"],
    "admm": ["autocompress", "--set", "rounds.times=1", "anneal.tries=4"],
    "backward": ["backward", *ROUNDS, "rounds.until_macs=0.7"],
    "int8": ["int8", "--set", "int8.epochs=1"],
    "encode": ["fewest_bytes", "--set", "int8.epochs=1"],
}
UNPRUNED = ("kesi_weights", "int8", "encode", "backward")  # no budget of MACs, or as far as two rounds go


def two_inputs() -> keras.Model:
    """A U-Net-like classifier that reads the image twice, whole and at half its size."""
    layers = keras.layers
    image, small = keras.Input((SIDE, SIDE, 3)), keras.Input((SIDE // 2, SIDE // 2, 3))

    def block(x, filters: int):
        for _ in range(2):
            x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(filters, 3, padding="same")(x)))
        return x

    first = block(image, 16)
    second = block(
        layers.Concatenate()([layers.MaxPooling2D()(first), layers.Conv2D(8, 3, padding="same")(small)]), 32
    )
    up = layers.Conv2DTranspose(16, 2, strides=2)(second)
    x = block(layers.Concatenate()([first, up]), 16)
    return keras.Model([image, small], layers.Dense(CLASSES, "softmax")(layers.GlobalAveragePooling2D()(x)))


def application(name: str) -> Callable[[], keras.Model]:
    """A model of keras.applications with random weights."""
    make = getattr(keras.applications, name)
    return lambda: make(weights=None, input_shape=(SIDE, SIDE, 3), classes=CLASSES)


def zoo(name: str) -> Callable[[], keras.Model]:
    """A model of kimm, where that is installed."""

    def make() -> keras.Model:
        models = importlib.import_module("kimm").models  # no dependency: a zoo of somebody else's
        return getattr(models, name)(
            input_shape=[SIDE, SIDE, 3], classes=CLASSES, weights=None, include_preprocessing=False
        )

    return make


MODELS = {
    "MobileNetV2": application("MobileNetV2"),
    "EfficientNetB0": application("EfficientNetB0"),
    "DenseNet121": application("DenseNet121"),
    "two inputs": two_inputs,
    "kimm ResNet18": zoo("ResNet18"),
    "kimm MobileNetV3": zoo("MobileNetV3W100Small"),
}


def photos(folder: Path) -> Path:
    """Upright, lying and slanting stripes, PNG."""
    if (folder / "done").exists():
        return folder / "images"
    rng, grid = np.random.default_rng(0), np.mgrid[:SIDE, :SIDE]
    for label, angle in enumerate(np.linspace(0, np.pi / 2, CLASSES)):
        place = folder / "images" / f"{label}"
        place.mkdir(parents=True, exist_ok=True)
        for i in range(EACH):
            phase = grid[1] * np.cos(angle) + grid[0] * np.sin(angle)
            wave = (
                127
                + 90 * np.sin(rng.uniform(0.6, 1) * phase + rng.uniform(0, 6))
                + rng.normal(0, 20, (SIDE, SIDE))
            )
            keras.utils.save_img(
                place / f"{i:02}.png", np.repeat(wave[..., None], 3, 2).clip(0, 255), scale=False
            )
    (folder / "done").touch()
    return folder / "images"


def trained(name: str, folder: Path) -> Path:
    """The model's file, after some epochs on the images; a zoo's preprocessing is left out of it."""
    path = folder / f"{name.replace(' ', '_')}.keras"
    if path.exists():
        return path
    keras.utils.set_random_seed(0)
    model = MODELS[name]()
    data = keras.utils.image_dataset_from_directory(
        photos(folder), image_size=(SIDE, SIDE), batch_size=32, seed=0
    )
    several = len(model.inputs) > 1

    def read(images, labels):
        images = images / 127.5 - 1
        return ((images, images[:, ::2, ::2]) if several else images), labels

    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.8
    model.compile(keras.optimizers.Adam(1e-3), "sparse_categorical_crossentropy")
    model.fit(data.map(read), epochs=12, verbose=0)
    plain = keras.Model(model.inputs, model.outputs, name=path.stem)
    plain.save(path)
    return path


def cell(model: str, recipe: str, folder: Path, limit: float) -> dict:
    """What became of one run, in a process of its own; "seconds" of the last attempt."""
    run, start = folder / f"{model}-{recipe}".replace(" ", "_"), time.monotonic()
    budget = [] if recipe in UNPRUNED else ["--keep_macs", str(BUDGET)]
    words = ["--model", str(trained(model, folder)), "--recipe", *RECIPES[recipe]]
    words += ["--data", str(photos(folder)), *SHORT, *budget, "--force", "--train_path", str(run)]
    command = [sys.executable, "train_cifar.py", *words]
    killed = not run.exists() and _killed(command, run / "manifest.json")
    if not (run / "report.json").exists():
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
        except subprocess.TimeoutExpired:
            return {"state": f"not ended after {limit:.0f} s"}
        if done.returncode:
            lines = [
                line for line in done.stderr.splitlines() if line.startswith("error:")
            ] or done.stderr.splitlines()
            return {"state": lines[-1][:200], "code": done.returncode}
    report = read_json(run / "report.json")
    before, after = report["rows"][0], report["rows"][-1]
    small = keras.models.load_model(run / "compact.keras", compile=False)
    plain = all(type(layer).__module__.startswith("keras.") for layer in small.layers)
    kept = after["macs"] / before["macs"]
    fits = recipe in UNPRUNED or kept <= BUDGET
    found = {"state": "done" if plain and fits else f"plain: {plain}, MACs {kept:.2f}", "macs": kept}
    accuracies = {name: row["holdout_accuracy"] for name, row in (("before", before), ("after", after))}
    return found | accuracies | {"seconds": time.monotonic() - start, "killed": killed}


def _killed(command: list[str], manifest: Path) -> bool:
    """Whether a run could be killed some seconds behind its first step; what failed before tells it again."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (manifest.exists() and read_json(manifest)["steps"]):
        time.sleep(0.1)
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return process.returncode < 0


def main() -> None:
    """argv → a line for each cell, then the table and the JSON, of as many as there are."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--limit", type=float, default=1800, help="seconds of a cell")
    args = parser.parse_args()
    args.runs.mkdir(parents=True, exist_ok=True)
    known, stored = args.runs / "cells.json", RESULTS / "matrix.json"

    def read() -> dict:
        before = read_json(stored)["cells"] if stored.exists() else {}
        return before | (read_json(known) if known.exists() else {})

    for model in args.models:
        for recipe in args.recipes:
            name = f"{model} / {recipe}"
            if (found := read().get(name, {})).get("state") != "done":
                found = cell(model, recipe, args.runs, args.limit)
                write_json(known, read() | {name: found})  # others may have other models of it
            print(f"{name}: {found}", flush=True)
    cells = read()
    rows = [[r, *(cells.get(f"{m} / {r}", {}).get("state", "not tried") for m in MODELS)] for r in RECIPES]
    print(table(("recipe", *MODELS), rows))
    print(f"{len(cells)} of {len(MODELS) * len(RECIPES)} cells")
    save("matrix", {"cells": cells, "budget": BUDGET, "side": SIDE, "cores": os.cpu_count()})


if __name__ == "__main__":
    sys.exit(cli(main))
