"""What LiteRT has no operation for is made of others, for any number of samples."""

import keras
import numpy as np
import pytest

from secateur.exports import export
from secateur.exports.lowering import lowered

L, ops = keras.layers, keras.ops
TABLE = {
    "a number for each position": lambda x: L.EinsumDense(
        "abc,cb->abc", (6, 4), bias_axes="bc", bias_initializer="random_normal"
    )(x),
    "one for each channel": lambda x: L.EinsumDense("abc,c->abc", (6, 4), activation="relu")(x),
    "a roll along two axes": lambda x: ops.roll(x, (2, -1), (1, 2)),
    "a roll by more than there is": lambda x: ops.roll(x, 9, -1),
}


@pytest.mark.parametrize("name", TABLE)
def test_the_same_numbers_from_a_file(name, tmp_path):
    x = keras.Input((6, 4))
    model = keras.Model(x, TABLE[name](x))
    assert export(model, tmp_path / "net.tflite", "litert").relative < 1e-6
    images = np.random.default_rng(0).normal(size=(3, 6, 4)).astype("float32")
    np.testing.assert_allclose(lowered(model)(images), model(images), atol=1e-6)


def test_a_model_without_such_stays():
    x = keras.Input((6, 4))
    model = keras.Model(x, L.EinsumDense("abc,cd->abd", (6, 3))(x))
    assert lowered(model) is model
