"""What is run to be scored runs as at inference."""

import inspect

import keras
import numpy as np
import pytest

from pruning.evidence import Evidence
from pruning.gates import Gated
from pruning.groups import analyse

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
    analysis = analyse(net)
    values = Evidence(net, analysis, images)._run([images])
    np.testing.assert_allclose(
        values[analysis.graph.outputs[0]], net(images, training=False), rtol=0, atol=1e-5
    )


def test_the_source_of_layers_is_run_as_it_is():
    class Halved(L.Layer):
        def call(self, x):
            self.stack = [frame.filename for frame in inspect.stack(0)]
            return x / 2

    images = keras.Input((4,))
    halved = Halved()
    model = keras.Model(images, L.Dense(2)(halved(L.Dense(3)(images))))
    Gated(analyse(model))(np.ones((2, 4), np.float32), {})
    assert __file__ in halved.stack
    assert not [name for name in halved.stack if "autograph_generated" in name]  # a rewritten copy
