"""What a user takes home: a plain Keras model and a LiteRT file, and how fast they are."""

from __future__ import annotations

import os
from pathlib import Path

import keras
import tensorflow as tf

import nets
from exports import compare, frozen_runner, litert_runner, milliseconds, to_litert
from exports.parity import TOLERANCE
from exports.signature import outputs, sample_inputs
from pruning import compact
from runs import RunFolder, warn

__all__ = ["frozen_runner", "litert_runner", "milliseconds", "save_compact", "save_litert", "to_litert"]


def save_compact(folder: RunFolder, strategy: tf.distribute.Strategy, snapshot: Path) -> None:
    """Writes compact.keras (plain layers) and model.tflite (float32) from a snapshot."""

    def model() -> keras.Model:
        with strategy.scope():
            return compact(nets.load_params(None, snapshot))

    folder.step("compact", "compact.keras", lambda path: _save_keras(model(), path))
    folder.step("litert", "model.tflite", lambda path: save_litert(model(), path))


def _save_keras(model: keras.Model, path: Path) -> None:
    named = path.with_suffix(".keras")  # Keras looks at the suffix
    model.save(named)
    os.replace(named, path)


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
