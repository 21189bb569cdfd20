"""Every criterion on a few filters, by hand; a new one has to bring its value."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from secateur.pruning.score.registry import get_criterion, list_criteria

SQRT5, SQRT13, SQRT26 = np.sqrt([5, 13, 26])

FILTERS = np.array([[1, -2], [0, 3], [4, 0]], np.float32)
GRADIENTS = np.array([[1, 0], [2, -1], [0, 1]], np.float32)
# Two images with two positions each, two channels.
ACTIVATIONS = np.array([[[1, 0], [2, 0]], [[0, 4], [3, 0]]], np.float32)
BY_ACTIVATIONS = np.array([[[1, 9], [-2, 9]], [[5, 0.5], [0, 9]]], np.float32)
INPUTS = {
    "filters": FILTERS,
    "gradients": GRADIENTS,
    "fisher": np.array([[1, 0], [2, 1], [0.5, 3]], np.float32),
    "hessian": np.array([[2, -1], [3, 1], [0.5, 3]], np.float32),
    "jacobian": np.array([[1, 3], [2, 0], [1, 1]], np.float32),
    "gamma": np.array([-2, 0.5, 0], np.float32),
    "activations": ACTIVATIONS,
    "activation_gradients": BY_ACTIVATIONS,
}

GOLDEN = {
    "l1": [3, 3, 4],
    "l2": [SQRT5, 3, 4],
    "group_l1": [3, 3, 4],
    "group_l2": [5, 9, 16],
    "lamp": [5 / 30, 9 / 25, 1],
    "bn_scale": [2, 0.5, 0],
    "fpgm": [SQRT26 + SQRT13, SQRT26 + 5, SQRT13 + 5],
    "fpgm_squared": [26 + 13, 26 + 25, 13 + 25],
    # 0 and 2 are nearest, √13 apart: they meet half-way, and the smaller one goes. Of 2 and 1 the one farther
    # from the centroid (5/3, 1/3) goes, which is 1.
    "clustering": [1 / 3, 2 / 3, 1],
    "taylor": [1, 9, 0],
    "g_a": [1, 3, 0],
    "gate_taylor": [abs(1 - 4 + 0 + 0), abs(0 + 0 + 2 + 0)],
    "apoz": [3 / 4, 1 / 4],
    "mean_activation": [6 / 4, 4 / 4],
    "obd": [(2 - 4) / 2, 9 / 2, 8 / 2],
    "obd_c": [1 / 2, 9 / 2, 8 / 2],
    "lfh": [5 * 4 / 2, 9 * 2 / 2, 16 * 2 / 2],
    "movement": [-1, 3, 0],
    # Nuclear norms √5 and 4 + 3 of the two maps: their rows are orthogonal, or one of them is 0.
    "chip": [(SQRT5 + 3) / 2, (0 + 4) / 2],
    "nggm": [0.5 / 13, 1, 0],
    "g_gm_1": [39 * 1, 51 * 3, 38 * 1],
    "g_gm_2": [39 + 1, 51 + 3, 38 + 1],
    "g_gm_3": [39 * 1 * 3, 51 * 3 * 3, 38 * 1 * 4],
    "n_g_gm_2": [1 / 13, 1 + 1, 1],
    "n_g_gm_3": [0, 1, 0],
    "n_g_a": [(1 + 2) / 4 + 1 / 2, 3 / 4 + 3 / 2, 4 / 4 + 1 / 2],
    "n_g_a_2": [0, 1, 1],
    "random": np.random.default_rng(7).random(3),
}


@pytest.mark.parametrize("name", list_criteria())
def test_by_hand(name):
    found = get_criterion(name)
    inputs = {key: INPUTS[key] for key in found.inputs if key != "rng"}
    if "rng" in found.inputs:
        inputs["rng"] = np.random.default_rng(7)
    np.testing.assert_allclose(found.score(**inputs), GOLDEN[name], rtol=1e-6, atol=1e-12)


def test_distances_of_wide_filters_are_those_of_scipy():
    filters = np.random.default_rng(0).normal(3, 1, (60, 500)).astype(np.float32)
    filters[1] = filters[0]  # where cancellation would leave 1e-6 instead of nothing
    apart = cdist(filters.astype(float), filters.astype(float))
    np.testing.assert_allclose(get_criterion("fpgm").score(filters), apart.sum(1), rtol=1e-10)
    np.testing.assert_allclose(get_criterion("fpgm_squared").score(filters), (apart**2).sum(1), rtol=1e-10)


def test_fpgm_and_its_square_rank_differently():
    filters = np.array([[0.0], [0.1], [0.2], [10.0], [20.0]])
    paper, squared = (np.argsort(get_criterion(n).score(filters)).tolist() for n in ("fpgm", "fpgm_squared"))
    assert paper[0] == 2 and squared[0] == 3  # next to the median, next to the mean


def test_with_k_channels_left_clustering_keeps_one_of_each_of_k_clusters():
    rng = np.random.default_rng(1)
    centres = rng.normal(0, 10, (5, 8))
    cluster = rng.permutation(np.repeat(np.arange(5), 6))
    score = get_criterion("clustering").score(centres[cluster] + rng.normal(0, 0.1, (30, 8)))
    assert sorted(cluster[np.argsort(-score)[:5]].tolist()) == [0, 1, 2, 3, 4]


def test_lamp_by_its_definition():
    filters = np.random.default_rng(2).normal(size=(9, 4))
    filters[3] = filters[5]  # of equal norm: each counts the other
    energy = (filters**2).sum(1)
    expected = [e / sum(other for other in energy if other >= e) for e in energy]
    np.testing.assert_allclose(get_criterion("lamp").score(filters), expected, rtol=1e-12)
