"""LiteRT (TensorFlow Lite): a flat buffer, and its interpreter."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import absl.logging
import keras
import numpy as np
import tensorflow as tf
from tensorflow.lite.python.convert_phase import ConverterError

from secateur.exports.frozen import freeze
from secateur.exports.lowering import lowered
from secateur.exports.signature import Runner, alone, in_batches
from secateur.runs.errors import UsageError, first_line, out_of_memory
from secateur.runs.start import quiet_stderr


def to_litert(model: keras.Model) -> bytes:
    """A float32 flat buffer of a model, weights included, any batch size.

    Raises `UsageError` for a model with operations, or types of numbers, that LiteRT lacks.
    """
    return converted(converter_of(model), model, "export it as savedmodel or onnx")


def converter_of(model: keras.Model) -> Any:
    """A converter of a model, any batch size. That of TensorFlow 2 would freeze what is frozen once more."""
    frozen = freeze(lowered(model), None)
    return tf.compat.v1.lite.TFLiteConverter(frozen.graph.as_graph_def(), frozen.inputs, frozen.outputs)


def converted(converter: Any, model: keras.Model, remedy: str) -> bytes:
    """What a converter makes of a model; its long complaints become a `UsageError` with the remedy.

    Raises `OutOfMemoryError` where memory or threads ran out.
    """
    try:
        with _silent_absl():
            return converter.convert()
    except (ConverterError, ValueError, RuntimeError) as error:  # ValueError: for types of numbers
        if known := out_of_memory(error):
            raise known from error
        policies = {layer.dtype_policy.name for layer in model._flatten_layers()} - {"float32"}
        remedy = f"its layers compute in {min(policies)}: make it with float32" if policies else remedy
        raise UsageError(
            f"{model.name!r} has operations that LiteRT lacks. Received: {_operations(str(error))}\n{remedy}"
        ) from error


@contextmanager
def _silent_absl() -> Iterator[None]:
    """Without the advice to keep variables alive: all are constants. An owner would reorder the inputs."""
    before = absl.logging.get_verbosity()
    absl.logging.set_verbosity(absl.logging.ERROR)
    try:
        yield
    finally:
        absl.logging.set_verbosity(before)


def _operations(message: str) -> str:
    """What a converter's page-long message is about."""
    found = re.search(r"(?:TF Select ops|Custom ops|Flex ops): ([^\n]{1,120})", message)
    return found[1].strip() if found else first_line(message)


def litert_runner(data: bytes, batch_size: int, threads: int | None = 2) -> Runner:
    """f(one array (batch, …) per input) → outputs, on the LiteRT interpreter.

    Open sizes become those of the arrays, call by call. A file for a fixed number of samples runs on so many
    at a time. Where the file reads or gives whole numbers of 8 bits with a scale, the arrays are float32 all
    the same.
    """
    from ai_edge_litert.interpreter import Interpreter

    with quiet_stderr():  # it announces its delegate
        interpreter = Interpreter(model_content=data, num_threads=threads)
    sources, targets = interpreter.get_input_details(), interpreter.get_output_details()
    open_sizes = any(-1 in source["shape_signature"][1:] for source in sources)
    fixed = next((int(n) for source in sources if (n := source["shape_signature"][:1].sum()) > 0), None)
    shapes: list[tuple[int, ...]] = []

    def allocate(wanted: list[tuple[int, ...]]) -> None:
        nonlocal shapes
        for source, shape in zip(sources, wanted, strict=True):
            interpreter.resize_tensor_input(source["index"], shape)
        with quiet_stderr():
            interpreter.allocate_tensors()
        shapes = wanted

    def run(*inputs: np.ndarray) -> list[np.ndarray]:
        if open_sizes and shapes != (wanted := [values.shape for values in inputs]):
            allocate(wanted)
        for source, values in zip(sources, inputs, strict=True):
            interpreter.set_tensor(source["index"], _whole(values, source))
        interpreter.invoke()
        return [_real(interpreter.get_tensor(target["index"]), target) for target in targets]

    if not open_sizes:  # the file gives these as 1, on which not every layer can run
        allocate([(fixed or batch_size, *source["shape"][1:]) for source in sources])
    batched = in_batches(run, fixed)
    return lambda *inputs: alone(batched(*inputs))


def litert_outputs(
    data: bytes, read: Callable[[slice], Sequence[np.ndarray]], count: int, batch_size: int
) -> np.ndarray:
    """(count, …): the first output for `count` samples, at most `batch_size` at a time.

    `read` gives the samples of a slice, one array for each input. The last batch is filled up with samples of
    the one before.
    """
    size = min(batch_size, count)
    run, found = litert_runner(data, size), []
    for start in range(0, count, size):
        first = min(start, count - size)
        outputs = run(*read(slice(first, first + size)))
        found.append((outputs[0] if isinstance(outputs, list) else outputs)[start - first :])
    return np.concatenate(found)


def _whole(values: np.ndarray, about: dict) -> np.ndarray:
    """Real numbers as a tensor with a scale keeps them."""
    scale, zero = about["quantization"]
    if not scale:
        return values.astype(about["dtype"], copy=False)  # of whole numbers, such as words
    limits = np.iinfo(about["dtype"])
    return np.clip(np.rint(values / scale) + zero, limits.min, limits.max).astype(about["dtype"])


def _real(values: np.ndarray, about: dict) -> np.ndarray:
    """The real numbers that a tensor with a scale stands for, float32."""
    scale, zero = about["quantization"]
    return ((values.astype(np.float32) - zero) * scale).astype(np.float32) if scale else values
