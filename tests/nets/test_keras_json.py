"""What users write between layers is stored and built again; what holds code is not."""

import json

import keras
import numpy as np
import pytest

import secateur
from secateur.nets.keras_json import build, config_of
from secateur.runs import UsageError

L, ops = keras.layers, keras.ops
IMAGES = np.random.default_rng(0).normal(size=(2, 6, 6, 3)).astype("float32")
STORED = {
    "an ellipsis": lambda x: x[..., 1:4],
    "a new axis behind an ellipsis": lambda x: x[..., None][..., 0],
    "an activation": lambda x: keras.activations.relu(x, negative_slope=0.1),
    "a slice": lambda x: ops.slice(x, (0, 1, 1, 0), (2, 3, 3, 4)),
    "an update of a slice": lambda x: ops.slice_update(x, (0, 0, 0, 0), ops.zeros((1, 1, 1, 1))),
    "a tensor of a tensor": lambda x: ops.convert_to_tensor(x),
    "another type": lambda x: ops.saturate_cast(x, "int32"),
    "numbers put in": lambda x: ops.scatter_update(x, [[0, 0, 0, 0]], [9.0]),
    "numbers in a field of zeros": lambda x: ops.scatter([[0], [1]], x[:, 0, 0], (2, 4)),
}


def net(tail) -> keras.Model:
    images = keras.Input((6, 6, 3))
    return keras.Model(images, tail(L.Conv2D(4, 3, padding="same")(images)))


@pytest.mark.parametrize("name", STORED)
def test_operations_are_stored(name):
    model = net(STORED[name])
    again = build(json.loads(json.dumps(config_of(model))), [v.numpy() for v in model.weights])
    np.testing.assert_array_equal(model(IMAGES), again(IMAGES))


def test_a_lambda_of_operations_is_stored_as_operations():
    model = net(L.Lambda(lambda x: x * ops.sigmoid(x)))
    with pytest.raises(UsageError, match="none that runs code. Received: .*Lambda"):
        config_of(model)
    plain = secateur.functional(model)
    again = build(config_of(plain), [v.numpy() for v in plain.weights])
    np.testing.assert_array_equal(model(IMAGES), again(IMAGES))


@pytest.mark.parametrize("code", [lambda x: ops.map(ops.relu, x), lambda x: ops.vectorized_map(ops.relu, x)])
def test_an_operation_that_takes_a_function_is_not_stored(code):
    with pytest.raises(UsageError, match="none that runs code"):
        config_of(net(code))
