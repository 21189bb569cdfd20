"""LiteRT with whole numbers: weights and activations of 8 bits (Jacob et al. 2018).

Kernels have one scale for each output channel and no offset. Every tensor between layers has one scale and
one offset, from the smallest and the largest number that the samples bring it.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

import keras
import numpy as np
import tensorflow as tf

from secateur.exports.litert import converted, converter_of
from secateur.runs.errors import UsageError
from secateur.runs.start import quiet_stderr
from secateur.runs.suggest import require

NUMBERS = {"float32": tf.float32, "int8": tf.int8, "uint8": tf.uint8}
Samples = Iterable[Sequence[np.ndarray]]
REMEDY = "export it as litert, in float32, or replace those layers"


def to_int8(model: keras.Model, samples: Samples, numbers: str = "float32") -> bytes:
    """A flat buffer that computes with whole numbers, any batch size.

    Args:
        model: functional or Sequential, of inputs of fixed size that are floats.
        samples: what calibrates it: training images as the model reads them. Each item has one array
            (b, …) per input, of any b.
        numbers: of its inputs and outputs: "float32", which it rounds by itself, or "int8" or "uint8" with
            the scales that the file states (for microcontrollers and edge accelerators).

    An operation that LiteRT lacks in 8 bits (elu, LayerNormalization) stays in float32: see `left_in_float`.
    Raises `UsageError` for one that LiteRT lacks altogether, or that stays with whole `numbers`; for inputs
    that are no floats; for no samples.
    """
    require(numbers, NUMBERS, "numbers")
    if kinds := [x.dtype for x in model.inputs if not tf.as_dtype(x.dtype).is_floating]:
        raise UsageError(f"8 bits are made of inputs that are floats. Received: {kinds[0]} in {model.name!r}")
    shown = _alike([[np.asarray(x, np.float32) for x in sample] for sample in samples])
    if not shown:
        raise UsageError("8 bits need samples to be calibrated with. Received: samples=[]")
    converter = converter_of(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: shown
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = NUMBERS[numbers]
    with warnings.catch_warnings(), quiet_stderr():  # "Statistics … were expected": the samples bring them
        warnings.simplefilter("ignore")
        data = converted(converter, model, REMEDY)
    if numbers != "float32" and (left := left_in_float(data)):
        raise UsageError(
            f"{model.name!r} cannot be of whole numbers only. Received: float32 in {left[0]}\n{REMEDY}"
        )
    return data


def _alike(samples: list[list[np.ndarray]]) -> list[list[np.ndarray]]:
    """The same samples in batches of the first one's size; the last batch is filled with samples before it.

    The calibrator resizes one input after the other, and cannot run while their batches differ.
    """
    if len({len(sample[0]) for sample in samples}) < 2:
        return samples
    inputs, size = [np.concatenate(values) for values in zip(*samples, strict=True)], len(samples[0][0])
    last = len(inputs[0]) - size
    starts = [min(start, last) for start in range(0, len(inputs[0]), size)]
    return [[values[start : start + size] for values in inputs] for start in starts]


def left_in_float(data: bytes) -> list[str]:
    """Names of the tensors inside a file that are floats, inputs and outputs apart."""
    from ai_edge_litert.interpreter import Interpreter

    with quiet_stderr():
        interpreter = Interpreter(model_content=data)
    ends = {d["index"] for d in interpreter.get_input_details() + interpreter.get_output_details()}
    return [
        tensor["name"].split(";")[0]
        for tensor in interpreter.get_tensor_details()
        if tensor["index"] not in ends and tensor["dtype"] in (np.float32, np.float16)
    ]
