"""BatchNorm folded into the layer in front: the same outputs, fewer layers."""

import keras
import numpy as np
import pytest
from keras import layers

from secateur import nets
from secateur.nets.folding import fold_batch_norm
from secateur.pruning import compact
from tests.helpers.toys import images, randomised, small_resnet


def norms(model: keras.Model) -> list[str]:
    return [layer.name for layer in model.layers if isinstance(layer, layers.BatchNormalization)]


def same(model: keras.Model, batch: np.ndarray) -> keras.Model:
    """The folded model, after its outputs were compared."""
    expected = np.asarray(model(batch, training=False))
    folded = fold_batch_norm(model)
    found = np.asarray(folded(batch, training=False))
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    return folded


def test_a_residual_network_keeps_its_outputs_without_any_norm():
    model = compact(small_resnet())
    assert norms(model)
    assert norms(same(model, images(8))) == []


def test_a_norm_in_front_of_its_convolution_becomes_one_of_a_pixel():
    model = compact(randomised(nets.build("PreResNet-20", input_shape=(8, 8, 3))))
    folded = same(model, images(8))
    assert norms(folded) == []
    assert folded.get_layer("bn").kernel.shape == (1, 1, 64, 1)


def test_a_norm_of_vectors_stays_and_is_frozen():
    inputs = keras.Input((9,))
    model = randomised(keras.Model(inputs, layers.BatchNormalization()(layers.ReLU()(inputs))))
    batch = np.random.default_rng(1).normal(size=(8, 9)).astype(np.float32)
    folded = same(model, batch)
    assert len(norms(folded)) == 1
    before = [v.numpy() for v in folded.non_trainable_variables]
    folded(batch, training=True)
    pairs = zip(before, folded.non_trainable_variables, strict=True)
    assert all(np.array_equal(a, v.numpy()) for a, v in pairs)


KINDS = {
    "convolution without bias": lambda: layers.Conv2D(5, 3, use_bias=False),
    "convolution with bias": lambda: layers.Conv2D(5, 3),
    "grouped": lambda: layers.Conv2D(6, 3, groups=3),
    "depthwise": lambda: layers.DepthwiseConv2D(3, depth_multiplier=2),
    "transposed": lambda: layers.Conv2DTranspose(4, 3, strides=2),
    "dense": lambda: layers.Dense(7),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_linear_layer_takes_its_norm(kind):
    inputs = keras.Input((8, 8, 3))
    x = layers.BatchNormalization()(KINDS[kind]()(inputs))
    assert norms(same(randomised(keras.Model(inputs, layers.ReLU()(x))), images(4))) == []


def test_a_norm_that_is_always_in_training_stays():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(4, 3)(inputs)
    model = randomised(keras.Model(inputs, layers.BatchNormalization()(x, training=True)))
    assert len(norms(same(model, images(8)))) == 1


def test_towers_inside_are_folded():
    inner = keras.Input((8, 8, 3))
    tower = keras.Model(inner, layers.BatchNormalization()(layers.Conv2D(4, 3)(inner)), name="tower")
    outer = keras.Input((8, 8, 3))
    model = randomised(keras.Model(outer, layers.Dense(2)(layers.Flatten()(tower(outer)))))
    assert norms(same(compact(model), images(4))) == []


def test_what_is_not_linear_or_read_twice_or_called_twice_keeps_its_norm():
    inputs = keras.Input((8, 8, 3))
    bent = layers.BatchNormalization(name="bent")(layers.Conv2D(3, 1, activation="relu")(inputs))
    shared = layers.Conv2D(3, 1)
    twice = layers.BatchNormalization(name="twice")(shared(shared(inputs)))
    read = layers.Conv2D(3, 1)(inputs)
    also = layers.Add()([layers.BatchNormalization(name="read")(read), read])
    model = randomised(keras.Model(inputs, layers.Concatenate()([bent, twice, also])))
    folded = same(model, images(4))
    for name in ("bent", "twice", "read"):
        assert isinstance(folded.get_layer(name), layers.DepthwiseConv2D)
