"""LiteRT in whole numbers: what types and scales are in the file, and how near it comes."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers

from exports import litert_runner, to_int8
from runs.errors import UsageError


@pytest.fixture(scope="module")
def network() -> keras.Model:
    keras.utils.set_random_seed(1)
    inputs = keras.Input((8, 8, 3))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(6, 3, padding="same")(inputs)))
    x = layers.Add()([layers.DepthwiseConv2D(3, padding="same")(x), x])
    return keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


@pytest.fixture(scope="module")
def samples() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(48, 8, 8, 3)).astype(np.float32)


def opened(data: bytes) -> Interpreter:
    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    return interpreter


def test_everything_inside_is_whole(network, samples):
    interpreter = opened(to_int8(network, [[samples]]))
    ends = {d["index"] for d in interpreter.get_input_details() + interpreter.get_output_details()}
    inside = {d["dtype"] for d in interpreter.get_tensor_details() if d["index"] not in ends}
    assert inside <= {np.int8, np.int32}
    assert all(d["dtype"] is np.float32 for d in interpreter.get_input_details())


def test_each_filter_has_a_scale_and_no_offset(network, samples):
    kernels = [
        d["quantization_parameters"]
        for d in opened(to_int8(network, [[samples]])).get_tensor_details()
        if d["dtype"] is np.int8 and tuple(d["shape"]) in {(6, 3, 3, 3), (1, 3, 3, 6), (4, 6)}
    ]
    assert sorted(len(found["scales"]) for found in kernels) == [4, 6, 6]
    assert all((found["zero_points"] == 0).all() for found in kernels)


def test_outputs_are_near_and_any_batch_may_come(network, samples):
    expected = np.asarray(network(samples))
    data = to_int8(network, [[samples[:24]], [samples[24:]]])
    for size in (1, 48):
        found = litert_runner(data, size)(samples[:size])
        assert np.abs(found - expected[:size]).max() < 0.05 * np.ptp(expected)


@pytest.mark.parametrize("numbers", ["int8", "uint8"])
def test_whole_inputs_and_outputs_say_the_same_through_the_runner(network, samples, numbers):
    data = to_int8(network, [[samples]], numbers)
    details = opened(data)
    assert details.get_input_details()[0]["dtype"] is getattr(np, numbers)
    assert details.get_output_details()[0]["dtype"] is getattr(np, numbers)
    floats = litert_runner(to_int8(network, [[samples]]), 48)(samples)
    step = details.get_output_details()[0]["quantization"][0]
    assert np.abs(litert_runner(data, 48)(samples) - floats).max() <= 1.01 * step


def test_what_cannot_be_done_is_refused(network, samples):
    with pytest.raises(UsageError, match="samples=\\[\\]"):
        to_int8(network, [])
    with pytest.raises(UsageError, match="'int16'.*int8"):
        to_int8(network, [[samples]], "int16")
