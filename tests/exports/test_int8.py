"""LiteRT in whole numbers: what types and scales are in the file, and how near it comes."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter
from keras import layers

from secateur.exports import litert_outputs, litert_runner, to_int8
from secateur.exports.int8 import left_in_float
from secateur.runs.errors import UsageError


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


def with_elu() -> keras.Model:
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3, activation="elu")(inputs)
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))


def test_what_has_no_form_in_8_bits_stays_in_float_and_is_named(samples):
    data = to_int8(with_elu(), [[samples]])
    assert any("Elu" in name for name in left_in_float(data))
    with pytest.raises(UsageError, match="whole numbers only.*\n.*replace those layers"):
        to_int8(with_elu(), [[samples]], "uint8")


def test_a_whole_network_has_nothing_left_in_float(network, samples):
    assert left_in_float(to_int8(network, [[samples]])) == []


def test_two_inputs_two_outputs_and_a_sequential_model(samples):
    a, b = keras.Input((8, 8, 3)), keras.Input((8, 8, 3))
    x = layers.Concatenate()([a, b])
    x = layers.GlobalAveragePooling2D()(layers.SeparableConv2D(4, 3, activation="relu")(x))
    model = keras.Model([a, b], [layers.Dense(2)(x), layers.Dense(3, activation="softmax")(x)])
    found = litert_runner(to_int8(model, [[samples, -samples]]), 48)(samples, -samples)
    for one, other in zip(found, model([samples, -samples]), strict=True):
        assert np.abs(one - np.asarray(other)).max() < 0.05 * max(1, np.abs(other).max())
    parts = [[samples[i : i + 20], -samples[i : i + 20]] for i in (0, 20, 40)]  # the last has 8
    assert to_int8(model, parts) == to_int8(model, [[samples, -samples]])
    alone = keras.Sequential([keras.Input((8, 8, 3)), layers.Flatten(), layers.Dense(2)])
    found = litert_outputs(to_int8(alone, [[samples]]), lambda part: [samples[part]], 48, 20)
    assert np.abs(found - np.asarray(alone(samples))).max() < 0.05 * np.abs(found).max()


def test_inputs_and_layers_that_are_no_floats_of_32_bits_are_named(samples):
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    pixels = keras.Model(inputs, layers.Flatten()(layers.Rescaling(1 / 255)(inputs)))
    with pytest.raises(UsageError, match="inputs that are floats. Received: uint8"):
        to_int8(pixels, [[samples]])
    inputs = keras.Input((8, 8, 3))
    half = keras.Model(inputs, layers.Conv2D(2, 3, dtype="float16")(inputs))
    with pytest.raises(UsageError, match="compute in float16: make it with float32"):
        to_int8(half, [[samples]])
