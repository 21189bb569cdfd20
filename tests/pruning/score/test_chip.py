"""Channel independence beside its definition: nuclear norms of maps with and without a channel."""

import numpy as np
import pytest

from secateur.pruning.score.registry import get_criterion

RNG = np.random.default_rng(0)


def chip(activations):
    return get_criterion("chip").score(np.asarray(activations, np.float32))


def by_definition(activations):
    def nuclear(rows):
        return np.linalg.norm(rows, "nuc")

    scores = np.zeros(activations.shape[-1])
    for image in activations.astype(np.float64):
        for i in range(len(scores)):
            masked = image.T.copy()
            masked[i] = 0
            scores[i] += (nuclear(image.T) - nuclear(masked)) / len(activations)
    return scores


@pytest.mark.parametrize("shape", [(3, 20, 6), (3, 6, 20), (2, 8, 8), (4, 1, 5)])
def test_it_is_the_change_of_the_nuclear_norm(shape):
    activations = np.maximum(RNG.normal(size=shape), 0).astype(np.float32)
    np.testing.assert_allclose(chip(activations), by_definition(activations), rtol=1e-5, atol=1e-5)


def test_of_orthogonal_maps_each_is_worth_its_length():
    maps = np.diag([1.0, 2.0, 3.0])[None]
    np.testing.assert_allclose(chip(maps), [1, 2, 3], rtol=1e-6)


def test_a_copy_is_less_independent_than_what_nobody_copies():
    image = RNG.normal(size=(1, 50, 4))
    image /= np.linalg.norm(image, axis=1, keepdims=True)
    image[..., 3] = image[..., 0]
    assert set(np.argsort(chip(image))[:2]) == {0, 3}


def test_it_grows_as_the_maps_do_and_is_that_of_any_order_of_positions():
    image = RNG.normal(size=(2, 30, 5))
    np.testing.assert_allclose(chip(4 * image), 4 * chip(image), rtol=1e-5)
    np.testing.assert_allclose(chip(image[:, ::-1]), chip(image), rtol=1e-5)
