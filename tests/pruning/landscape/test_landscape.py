"""Curvature beside the full Hessian, directions and surfaces beside their definitions."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from secateur import nets
from secateur.nets.task import Task
from secateur.pruning.landscape import LossAt, directions, lanczos, line, noise, plane, spectrum


@pytest.fixture(scope="module")
def loss() -> LossAt:
    """A small network in float64 with every kind of weight, at images that it has seen a few times."""
    keras.utils.set_random_seed(1)
    layers, kind = keras.layers, {"dtype": "float64"}
    x = inputs = keras.Input((6, 6, 2), dtype="float64")
    x = layers.Conv2D(3, 3, **kind)(x)
    x = layers.Activation("tanh", **kind)(layers.BatchNormalization(**kind)(x))
    x = layers.DepthwiseConv2D(2, **kind)(x)
    outputs = layers.Dense(3, **kind)(layers.GlobalAveragePooling2D(**kind)(x))
    model, rng = keras.Model(inputs, outputs), np.random.default_rng(0)
    data = rng.normal(size=(20, 6, 6, 2)), rng.integers(0, 3, 20)
    return LossAt(model, data, Task.of(model), batch_size=8)


def full_hessian(loss: LossAt) -> np.ndarray:
    size = sum(w.size for w in loss.weights)
    return np.stack([loss.hessian_times(row) for row in np.eye(size)])


def test_products_are_those_with_differences_of_gradients(loss):
    """The Hessian is symmetric, and a quarter of a quadratic's second difference along a line."""
    hessian, rng = full_hessian(loss), np.random.default_rng(2)
    np.testing.assert_allclose(hessian, hessian.T, atol=1e-6)
    vector, step = rng.normal(size=len(hessian)), 0.01
    parts, own = loss.split(vector), loss.weights
    ahead, here, behind = (
        loss([w + t * step * p for w, p in zip(own, parts, strict=True)])[0] for t in (1, 0, -1)
    )
    assert (ahead - 2 * here + behind) / step**2 == pytest.approx(vector @ hessian @ vector, rel=1e-2)


def test_both_ends_and_the_trace_are_those_of_the_full_hessian(loss):
    values = np.linalg.eigvalsh(full_hessian(loss))
    found = spectrum(loss, steps=len(values), probes=3)
    assert found.smallest == pytest.approx(values[0], abs=1e-6)
    assert found.largest == pytest.approx(values[-1], abs=1e-6)
    assert found.condition == pytest.approx(abs(values[0]) / abs(values[-1]))
    few = spectrum(loss, steps=12)
    for end, error, true in (
        (few.smallest, few.errors[0], values[0]),
        (few.largest, few.errors[1], values[-1]),
    ):
        assert abs(end - values).min() <= error + 1e-6 and values[0] - 1e-6 <= end <= values[-1] + 1e-6
        assert end == pytest.approx(true, abs=0.05 * np.ptp(values))


@pytest.mark.parametrize("steps", [5, 40])
def test_the_density_has_the_moments_of_the_matrix(steps):
    """With a basis as probes, Σ share · valueᵏ is trace(Aᵏ) / n for k < 2 · steps."""
    rng = np.random.default_rng(3)
    matrix = rng.normal(size=(12, 12))
    matrix = matrix + matrix.T
    found = lanczos(lambda v: matrix @ v, np.eye(12), steps)
    np.testing.assert_allclose(found.shares.sum(1), 1)
    for k in (1, 2, 5):
        moment = (found.shares * found.values**k).sum(1).mean()
        assert moment == pytest.approx(np.trace(np.linalg.matrix_power(matrix, k)) / 12)


def test_an_eigenvector_as_start_ends_at_its_eigenvalue():
    found = lanczos(lambda v: np.diag([3.0, -1.0, 2.0]) @ v, np.eye(3)[:1], 3)
    assert (found.smallest, found.largest) == (3, 3) and found.values.shape == (1, 1)


def test_filters_of_a_direction_are_as_long_as_the_models_own(loss):
    (found,) = directions(loss, 1, seed=4)
    conv, _, gamma, beta, depthwise, _, dense, bias = zip(found, loss.weights, strict=True)
    for (drawn, own), axes in ((conv, (0, 1, 2)), (depthwise, (0, 1)), (dense, (0,))):
        lengths = [np.sqrt((x**2).sum(axes)) for x in (drawn, own)]
        np.testing.assert_allclose(*lengths)
        assert not np.allclose(drawn, own)
    assert all(not drawn.any() for drawn, _ in (gamma, beta, bias))


def test_dead_filters_stay_dead():
    model = nets.build(nets.NetSpec("ResNet-8", input_shape=(8, 8, 3)))
    kernel = model.trainable_variables[0]
    alive = np.ones(kernel.shape[-1], "float32")
    alive[::2] = 0
    kernel.assign(kernel * alive)
    data = np.zeros((4, 8, 8, 3), np.float32), np.zeros(4, np.int32)
    drawn = directions(LossAt(model, data, Task.of(model)), 1)[0]
    assert np.array_equal(np.abs(drawn[0]).sum((0, 1, 2)) > 0, alive > 0)


def test_a_plane_goes_through_the_weights_and_goes_on_where_it_was(loss):
    axes, at, seen = directions(loss, 2), (-0.5, 0, 0.5), []
    values, metrics = plane(loss, axes, at, keep=lambda points: seen.append(len(points)))
    assert values[1, 1] == loss(loss.weights)[0] and metrics.shape == (3, 3) and seen == [*range(1, 10)]
    own = [w + 0.5 * d for w, d in zip(loss.weights, axes[0], strict=True)]
    assert values[2, 1] == pytest.approx(loss(own)[0])
    again, _ = plane(loss, axes, at, known=[(7.0, 7.0)] * 4)
    assert (again.ravel()[:4] == 7).all() and np.array_equal(again.ravel()[4:], values.ravel()[4:])


def test_a_line_ends_at_both_weights(loss):
    (ahead,) = directions(loss, 1)
    end = [w + d for w, d in zip(loss.weights, ahead, strict=True)]
    values, _ = line(loss, loss.weights, end, (0, 0.25, 1))
    assert values[0] == loss(loss.weights)[0] and values[2] == pytest.approx(loss(end)[0])


def test_noise_is_the_mean_change_and_falls_with_its_radius(loss):
    here = loss(loss.weights)[0]
    moved = [
        abs(loss([w + 0.1 * p for w, p in zip(loss.weights, d, strict=True)])[0] - here)
        for d in directions(loss, 4)
    ]
    assert noise(loss, 0.1, count=4) == pytest.approx(np.mean(moved))
    assert noise(loss, 0.001, count=4) < noise(loss, 0.1, count=4)


def test_statistics_of_the_batch_in_place_of_moving_averages():
    """Of whole batches; the averages themselves stay."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4,))
    norm = keras.layers.BatchNormalization()
    model = keras.Model(inputs, keras.layers.Dense(2)(norm(inputs)))
    rng = np.random.default_rng(0)
    data = 5 + rng.normal(size=(10, 4)).astype("float32"), rng.integers(0, 2, 10)
    found = LossAt(model, data, Task.of(model), batch_size=4, batch_statistics=True)
    loss, accuracy = found(found.weights)
    by_hand = [model(data[0][i : i + 4], training=True) for i in (0, 4)]
    expected = np.mean(
        [
            tf.keras.losses.sparse_categorical_crossentropy(data[1][4 * i : 4 * i + 4], z, from_logits=True)
            for i, z in enumerate(by_hand)
        ]
    )
    assert loss == pytest.approx(expected, rel=1e-5) and 0 <= accuracy <= 1
