"""LiteRT (TensorFlow Lite): a flat buffer, and its interpreter."""

from __future__ import annotations

import re

import keras
import numpy as np
import tensorflow as tf
from tensorflow.lite.python.convert_phase import ConverterError

from exports.frozen import freeze
from exports.signature import Runner, alone
from runs.errors import UsageError
from runs.quiet import quiet_stderr


def to_litert(model: keras.Model) -> bytes:
    """A float32 flat buffer of a model, weights included, any batch size.

    Raises `UsageError` for a model with operations, or types of numbers, that LiteRT lacks.
    """
    try:
        return tf.lite.TFLiteConverter.from_concrete_functions([freeze(model, None)]).convert()
    except (ConverterError, ValueError) as error:  # ValueError: for types of numbers
        raise UsageError(
            f"{model.name!r} has operations that LiteRT lacks. Received: {_operations(str(error))}\n"
            "export it as savedmodel or onnx"
        ) from error


def _operations(message: str) -> str:
    """What a converter's page-long message is about."""
    found = re.search(r"(?:TF Select ops|Custom ops|Flex ops): ([^\n]{1,120})", message)
    return found[1].strip() if found else message.strip().splitlines()[0][:120]


def litert_runner(data: bytes, batch_size: int, threads: int | None = 2) -> Runner:
    """f(one array (batch, …) per input) → outputs, on the LiteRT interpreter."""
    from ai_edge_litert.interpreter import Interpreter

    with quiet_stderr():  # it announces its delegate
        interpreter = Interpreter(model_content=data, num_threads=threads)
        sources, targets = interpreter.get_input_details(), interpreter.get_output_details()
        for source in sources:
            interpreter.resize_tensor_input(source["index"], [batch_size, *source["shape"][1:]])
        interpreter.allocate_tensors()

    def run(*inputs: np.ndarray):
        for source, values in zip(sources, inputs, strict=True):
            if -1 in source["shape_signature"][1:]:  # open sizes, which the file gives as 1
                interpreter.resize_tensor_input(source["index"], values.shape)
                interpreter.allocate_tensors()
        for source, values in zip(sources, inputs, strict=True):
            interpreter.set_tensor(source["index"], values)
        interpreter.invoke()
        return alone([interpreter.get_tensor(target["index"]) for target in targets])

    return run
