"""Movement: what a descent does to the size of filters, to first order."""

import numpy as np
import pytest
import tensorflow as tf

from secateur.pruning.score.scores import score_groups
from tests.helpers import toys

IMAGES, LABELS = toys.images(12), np.arange(12) % 4


@pytest.fixture(scope="module")
def model():
    return toys.plain_net()


def gradient(model, part):
    losses = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    kernel = model.get_layer("inner").kernel.value
    with tf.GradientTape() as tape:
        loss = losses(LABELS[part], model(IMAGES[part], training=False))
    return tape.gradient(loss, kernel).numpy()


def test_it_is_the_sum_over_batches(model):
    kernel = model.get_layer("inner").kernel.numpy()
    parts = [slice(0, 5), slice(5, 10), slice(10, 12)]
    expected = sum(-(kernel * gradient(model, part)).sum((0, 1, 2)) for part in parts)
    found = score_groups(model, "movement", data=(IMAGES, LABELS), batch_size=5)["inner"]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-6)


def test_it_is_how_half_the_squared_norm_of_a_filter_grows_in_a_step(model):
    """‖w − ηg‖²/2 − ‖w‖²/2 = −η w·g + O(η²)."""
    rate = 1e-3
    kernel = model.get_layer("inner").kernel.numpy().astype(np.float64)
    moved = kernel - rate * gradient(model, slice(None))
    growth = ((moved**2).sum((0, 1, 2)) - (kernel**2).sum((0, 1, 2))) / 2 / rate
    found = score_groups(model, "movement", data=(IMAGES, LABELS))["inner"]
    np.testing.assert_allclose(found, growth, rtol=0.02, atol=1e-3)
    assert (found < 0).any() and (found > 0).any()
