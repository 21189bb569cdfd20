"""What is run to be scored is the model at inference."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

from secateur.pruning import Plan, compact, find_groups, mask
from secateur.pruning.groups.analysis import analyse
from secateur.pruning.score.gated import Gated
from secateur.pruning.score.scores import score_groups

L = keras.layers


@pytest.fixture(scope="module")
def net():
    keras.utils.set_random_seed(0)
    images = keras.Input((8, 8, 3))
    x = L.Conv2D(4, 3, activation="relu", name="stem")(L.RandomTranslation(0.4, 0.4)(images))
    return keras.Model(images, L.Dense(3, name="classes")(L.Flatten()(x)))


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)


def test_a_gated_network_does_not_augment(net, images):
    gated = Gated(analyse(net))
    found = [gated(images, {"stem": np.ones(4, bool)}) for _ in range(2)]
    np.testing.assert_array_equal(*found)
    np.testing.assert_allclose(found[0], net(images, training=False), atol=1e-5)


def test_evidence_does_not_augment(net, images):
    shown = keras.Model(net.inputs, net.get_layer("stem").output)
    found = score_groups(net, "mean_activation", data=images, normalise="none")["stem"]
    np.testing.assert_allclose(found, shown(images, training=False).numpy().mean((0, 1, 2)), atol=1e-5)
    augmented = shown(images, training=True).numpy().mean((0, 1, 2))
    assert np.abs(found - augmented).max() > 1e-3  # which would be seen


def test_the_source_of_layers_is_run_as_it_is():
    class Halved(L.Layer):
        def call(self, x):
            self.stack = [frame.filename for frame in inspect.stack(0)]
            return tf.divide(x, 2)  # no operation of Keras: the layer stays whole

    images = keras.Input((4,))
    halved = Halved()
    model = keras.Model(images, L.Dense(2)(halved(L.Dense(3)(images))))
    Gated(analyse(model))(np.ones((2, 4), np.float32), {})
    assert __file__ in halved.stack
    assert not [name for name in halved.stack if "autograph_generated" in name]  # a rewritten copy


@pytest.mark.parametrize("as_dict", [False, True])
def test_a_nested_model_called_with_more_than_it_reads(as_dict):
    keras.utils.set_random_seed(0)
    b, a = keras.Input((4,), name="b"), keras.Input((4,), name="a")
    made = L.Subtract()([L.Dense(3, name="of_b")(b), L.Dense(3, name="of_a")(a)])
    inner = keras.Model({"a": a, "b": b} if as_dict else [b, a], made, name="inner")
    x, y, z = (keras.Input((4,)) for _ in range(3))
    model = keras.Model([x, y, z], L.Dense(2)(inner({"a": x, "b": y, "c": z})))
    values = [np.random.default_rng(i).normal(size=(2, 4)).astype(np.float32) for i in range(3)]
    found = Gated(analyse(model))(values, {"inner/of_b": np.ones(3, bool)})
    np.testing.assert_allclose(found, model(values), atol=1e-5)


class Shift(L.Layer):
    """Adds 1 in training, which is its default, as that of augmentation is."""

    def call(self, x, training=True):
        return x + 1.0 if training else x


@pytest.mark.parametrize("said", [None, False, True])
@pytest.mark.parametrize("of_backbone", [None, False, True])
def test_a_rebuilt_model_is_in_the_mode_that_keras_gives_it(of_backbone, said):
    keras.utils.set_random_seed(0)
    x = keras.Input((4,))
    inner = keras.Model(x, Shift()(x), name="inner")
    y = L.BatchNormalization()(L.Dense(4, name="dense")(x))
    backbone = keras.Model(x, inner(Shift()(y), training=True), name="backbone")
    z = keras.Input((4,))
    model = keras.Model(
        z, L.Dense(2)(backbone(z, **({} if of_backbone is None else {"training": of_backbone})))
    )
    batch = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    for again in (compact(model), mask(model, Plan.full(find_groups(model)))):
        np.testing.assert_allclose(again(batch, training=said), model(batch, training=said), atol=1e-5)
