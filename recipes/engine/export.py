"""What a user takes home: a plain Keras model and a LiteRT file."""

from __future__ import annotations

from pathlib import Path

import keras

from secateur.exports import compare, litert_runner, to_litert
from secateur.exports.parity import TOLERANCE
from secateur.exports.signature import outputs, sample_inputs
from secateur.pruning import compact
from secateur.recipes.engine.context import RunContext
from secateur.runs import warn


def save_compact(context: RunContext, snapshot: Path) -> None:
    """Two steps: compact.keras (plain layers) and model.tflite (float32) from a snapshot."""
    context.step("compact", "compact.keras", lambda path: compact(context.load(snapshot)).save(path))
    context.step("litert", "model.tflite", lambda path: save_litert(compact(context.load(snapshot)), path))


def save_litert(model: keras.Model, path: Path) -> dict:
    """Writes a LiteRT file and prints how far its outputs on random images are from the model's.

    Returns {"max_difference"}. Unlike `exports.export` it keeps a file that differs and warns: it is the last
    step of a run, and the Keras model is there.
    """
    path.write_bytes(data := to_litert(model))
    inputs = sample_inputs(model, 8)
    parity = compare(outputs(model, inputs), [litert_runner(data, 8)(*inputs)])
    print(f"LiteRT and Keras compute {parity}")
    if not parity.absolute <= TOLERANCE:
        warn(f"the outputs of the LiteRT file differ by up to {parity.absolute:.2g}; use the Keras model")
    return {"max_difference": parity.absolute}
