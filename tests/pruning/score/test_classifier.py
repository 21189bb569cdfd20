"""Loss and accuracy of classifiers by what their last layer makes."""

import keras
import numpy as np
import pytest

from secateur.nets.graph import trace
from secateur.pruning.choose.sensitivity import measure_sensitivity
from secateur.pruning.groups.analysis import analyse
from secateur.pruning.score.classifier import accuracy, cross_entropy
from secateur.recipes.commands.images import ImageData, Scaled
from secateur.recipes.commands.training import accuracy as holdout_accuracy

L = keras.layers


def classifier(classes, activation):
    images = keras.Input((2,))
    x = L.Dense(3, activation="relu", name="hidden")(images)
    return keras.Model(images, L.Dense(classes, activation=activation, name="out")(x))


@pytest.mark.parametrize(("activation", "right"), [(None, 1.0), ("sigmoid", 0.5)])
def test_one_output_is_a_logit_or_a_share(activation, right):
    outputs = np.array([[-2], [0.2], [0.4], [0.9]])
    assert accuracy(trace(classifier(1, activation)), [0, 1, 1, 1], outputs) == right


def test_accuracy_of_logits_is_that_of_the_sigmoid_behind_them():
    logits, shares = classifier(1, None), classifier(1, "sigmoid")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2)).astype(np.float32)
    weights = [rng.normal(size=w.shape) for w in logits.get_weights()]
    logits.set_weights(weights)
    shares.set_weights(weights)
    y = (rng.random(200) > 0.5).astype(int)
    holdout = Scaled(x, (0.0, 255.0)), y  # numbers as they are
    found = [holdout_accuracy(m, ImageData(holdout, holdout, 2), 64) for m in (logits, shares)]
    found += [measure_sensitivity(m, "l1", data=(x, y), ratios=(0.5,)).whole for m in (logits, shares)]
    assert ((shares.predict(x, verbose=0)[:, 0] > 0.5) != (logits.predict(x, verbose=0)[:, 0] > 0.5)).any()
    assert len(set(found)) == 1


@pytest.mark.parametrize("labels", [[2, 0], [[2], [0]], [[0, 0, 1], [1, 0, 0]]])
def test_several_sigmoids_take_integers_or_one_hot_labels(labels):
    outputs = np.array([[0.1, 0.2, 0.7], [0.5, 0.5, 0.5]], np.float32)
    expected = [-np.log([0.9, 0.8, 0.7]).mean(), np.log(2)]
    found = cross_entropy(analyse(classifier(3, "sigmoid")), labels, outputs)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
