"""What a user takes home: a plain Keras model and a LiteRT file, and how fast they are."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

from pruning import compact
from recipes.context import RunContext
from runs import warn
from runs.quiet import quiet_stderr

TOLERANCE = 1e-3  # of logits; float32 in another order of operations differs by about 1e-5


def save_compact(context: RunContext, snapshot: Path) -> None:
    """Two steps: compact.keras (plain layers) and model.tflite (float32) from a snapshot."""
    context.step("compact", "compact.keras", lambda path: compact(context.load(snapshot)).save(path))
    context.step("litert", "model.tflite", lambda path: save_litert(compact(context.load(snapshot)), path))


def save_litert(model: keras.Model, path: Path) -> dict:
    """Writes a LiteRT file. Returns {"max_difference"}, of its logits from the model's on random images."""
    path.write_bytes(data := to_litert(model))
    images = np.random.default_rng(1).normal(size=(8, *model.input_shape[1:])).astype(np.float32)
    difference = float(np.abs(litert_runner(data, len(images))(images) - model(images).numpy()).max())
    if not difference <= TOLERANCE:
        warn(
            f"the logits of the LiteRT file differ by up to {difference:.2g} from the Keras model's; use that"
        )
    return {"max_difference": difference}


def to_litert(model: keras.Model) -> bytes:
    """A LiteRT (TensorFlow Lite) float32 flat buffer of a model, weights included, any batch size."""
    return tf.lite.TFLiteConverter.from_concrete_functions([_frozen(model, None)]).convert()


def litert_runner(data: bytes, batch_size: int, threads: int = 2) -> Callable[[np.ndarray], np.ndarray]:
    """f(float32 (batch, h, w, c)) → logits, on the LiteRT interpreter."""
    from ai_edge_litert.interpreter import Interpreter

    with quiet_stderr():  # it announces its delegate
        interpreter = Interpreter(model_content=data, num_threads=threads)
        source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
        interpreter.resize_tensor_input(source["index"], [batch_size, *source["shape"][1:]])
        interpreter.allocate_tensors()

    def run(images: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(source["index"], images)
        interpreter.invoke()
        return interpreter.get_tensor(target["index"])

    return run


def frozen_runner(model: keras.Model, batch_size: int) -> Callable[[np.ndarray], np.ndarray]:
    """f(float32 (batch, h, w, c)) → logits, as a TensorFlow function whose weights are constants."""
    frozen = _frozen(model, batch_size)
    return lambda images: frozen(tf.convert_to_tensor(images))[0].numpy()


def _frozen(model: keras.Model, batch_size: int | None):
    spec = tf.TensorSpec([batch_size, *model.input_shape[1:]], tf.float32)
    function = tf.function(lambda x: model(x, training=False), autograph=False)
    # The converter itself leaves the variables of a Keras 3 model out of the file.
    return convert_variables_to_constants_v2(function.get_concrete_function(spec))


def milliseconds(run: Callable, images: np.ndarray, repeats: int = 15) -> float:
    """Median time of one call after two warm-up calls."""
    for _ in range(2):
        run(images)
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run(images)
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times))
