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

from exports.frozen import freeze
from exports.litert import converted
from runs.errors import UsageError
from runs.quiet import quiet_stderr
from runs.suggest import nearest

NUMBERS = {"float32": tf.float32, "int8": tf.int8, "uint8": tf.uint8}
Samples = Iterable[Sequence[np.ndarray]]


def to_int8(model: keras.Model, samples: Samples, numbers: str = "float32") -> bytes:
    """A flat buffer that computes with whole numbers only, any batch size.

    Args:
        model: functional or Sequential, of inputs of fixed size.
        samples: what calibrates it: training images as the model reads them. Each item has one array
            (b, …) per input, of any b.
        numbers: of its inputs and outputs: "float32", which it rounds by itself, or "int8" or "uint8" with
            the scales that the file states (for microcontrollers and edge accelerators).

    Raises `UsageError` for a model with an operation that LiteRT lacks in 8 bits, and for no samples.
    """
    if numbers not in NUMBERS:
        raise UsageError(f"Unknown numbers. Received: numbers={numbers!r}. {nearest(numbers, NUMBERS)}")
    shown = [[np.asarray(x, np.float32) for x in sample] for sample in samples]
    if not shown:
        raise UsageError("8 bits need samples to be calibrated with. Received: samples=[]")
    converter = tf.lite.TFLiteConverter.from_concrete_functions([freeze(model, None)])
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: shown
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = NUMBERS[numbers]
    with warnings.catch_warnings(), quiet_stderr():  # "Statistics … were expected": the samples bring them
        warnings.simplefilter("ignore")
        return converted(converter, model.name)
