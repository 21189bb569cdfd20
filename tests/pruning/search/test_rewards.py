"""Rewards by their formulas."""

import numpy as np
import pytest

from secateur.pruning.search.rewards import Reward
from secateur.runs.errors import UsageError

RNG = np.random.default_rng(0)
Z, T = RNG.normal(size=(2, 5, 4)).astype(np.float32)
Y = RNG.integers(0, 4, 5).astype(np.int32)


def log_softmax(z):
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def binary(p, z):
    return -(p * -np.log1p(np.exp(-z)) + (1 - p) * -np.log1p(np.exp(z)))


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def test_of_classes_it_is_two_cross_entropies():
    expected = -log_softmax(Z)[np.arange(5), Y] - (np.exp(log_softmax(T)) * log_softmax(Z)).sum(1)
    reward = Reward.of("classes")
    np.testing.assert_allclose(reward(Y, T, Z), expected, rtol=1e-5)
    assert reward.metric(Y, Z) == np.mean(Z.argmax(1) == Y)


def test_of_one_logit_it_is_that_of_two_classes():
    two, of_teacher = (np.stack([0 * x, x], 1) for x in (Z[:, 0], T[:, 0]))
    one = Reward.of("classes")(Y % 2, T[:, :1], Z[:, :1])
    np.testing.assert_allclose(one, Reward.of("classes")(Y % 2, of_teacher, two), rtol=1e-5)
    assert Reward.of("classes").metric(Y % 2, Z[:, :1]) == Reward.of("classes").metric(Y % 2, two)


def test_of_maps_it_is_the_mean_of_the_positions():
    labels = np.array([[0, 1], [2, 3], [3, 1], [0, 0], [1, 2]], np.int32)
    each = [Reward.of("classes")(labels[:, i], T, Z) for i in range(2)]
    both = np.stack([Z, Z], 1), np.stack([T, T], 1)
    np.testing.assert_allclose(Reward.of("maps")(labels, both[1], both[0]), np.mean(each, 0), rtol=1e-5)


def test_of_several_labels_each_decides_by_itself():
    labels = (RNG.uniform(size=(5, 4)) > 0.5).astype(np.float32)
    expected = (binary(labels, Z) + binary(sigmoid(T), Z)).mean(1)
    np.testing.assert_allclose(Reward.of("labels")(labels, T, Z), expected, rtol=1e-5)
    assert Reward.of("labels").metric(labels, Z) == np.mean((Z > 0) == (labels > 0))


def test_of_numbers_it_is_the_squared_distance_to_the_labels_and_to_the_teacher():
    expected = ((Z - 1) ** 2 + (Z - T) ** 2).mean(1)
    np.testing.assert_allclose(Reward.of("numbers")(np.ones((5, 4)), T, Z), expected, rtol=1e-5)


def test_several_outputs_add_up():
    one, both = (
        Reward.of("classes"),
        Reward.of("classes")({"a": Y, "b": Y}, {"a": T, "b": Z}, {"a": Z, "b": T}),
    )
    np.testing.assert_allclose(both, one(Y, T, Z) + one(Y, Z, T), rtol=1e-6)


def test_a_loss_of_ones_own_leaves_the_teachers_part():
    labels = np.zeros(5, np.int32)
    own = Reward.of("classes", lambda labels, z: z[:, 0])
    expected = Z[:, 0] + Reward.of("classes").knowledge(T, Z)
    np.testing.assert_allclose(own(labels, T, Z), expected, rtol=1e-6)
    np.testing.assert_allclose(
        Reward.of("own", lambda labels, z: z[:, 0])(labels, T, Z), Z[:, 0] + ((Z - T) ** 2).mean(1), rtol=1e-5
    )
    with pytest.raises(UsageError, match="Received: kind='own'"):
        Reward.of("own")
    with pytest.raises(UsageError, match="Received: kind='clases'. Did you mean 'classes'"):
        Reward.of("clases")
