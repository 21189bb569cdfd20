"""Second derivatives: exact where they can be written down, near it where they are estimated."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from secateur.pruning.planning import make_plan
from secateur.pruning.score.registry import get_criterion
from secateur.pruning.score.scores import score_groups
from tests.helpers import toys

L = keras.layers
N, INPUTS, HIDDEN, OUT = 40, 6, 5, 3
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(N, INPUTS)).astype(np.float32)
NUMBERS = RNG.normal(size=(N, OUT)).astype(np.float32)


@pytest.fixture(scope="module")
def linear():
    """f(x) = V W x, with channels between W and V; the mean squared error is a quadratic function of W."""
    x = keras.Input((INPUTS,))
    y = L.Dense(HIDDEN, use_bias=False, name="hidden")(x)
    return toys.randomised(keras.Model(x, L.Dense(OUT, use_bias=False, name="out")(y)))


def raw(model, name, data, **options):
    return score_groups(model, name, data=data, normalise="none", **options)


def kernels(model):
    return [model.get_layer(name).kernel.numpy().astype(np.float64) for name in ("hidden", "out")]


def obd_of_squares(model, images):
    """∂²L/∂W_ij² = 2/OUT · E[x_i²] · Σ_c V_jc² for L = E[mean_c (f_c − y_c)²]."""
    w, v = kernels(model)
    diagonal = 2 / OUT * np.outer((images.astype(np.float64) ** 2).mean(0), (v**2).sum(1))
    return (w**2 * diagonal).sum(0) / 2


def test_the_hessian_of_a_quadratic_loss_is_exact_where_it_is_diagonal(linear):
    """With one input at a time and a V of orthogonal rows no two weights have a mixed derivative."""
    images = np.eye(INPUTS, dtype=np.float32)[np.arange(N) % INPUTS] * RNG.uniform(1, 2, (N, 1)).astype("f")
    model = keras.models.clone_model(linear)
    model.get_layer("hidden").kernel.assign(linear.get_layer("hidden").kernel)
    model.get_layer("out").kernel.assign(3 * np.eye(HIDDEN, OUT))
    found = raw(model, "obd", (images, NUMBERS), loss="mse")["hidden"]
    np.testing.assert_allclose(found, obd_of_squares(model, images), rtol=1e-5)
    assert (found[:OUT] > 0).all() and (found[OUT:] == 0).all()  # nobody reads those


def test_elsewhere_its_estimate_is_near_the_hessian(linear):
    images = np.concatenate([IMAGES] * 20)  # more blocks, more random vectors
    found = [
        raw(linear, "obd", (images, np.concatenate([NUMBERS] * 20)), loss="mse", seed=seed)["hidden"]
        for seed in range(12)
    ]
    exact = obd_of_squares(linear, IMAGES)
    assert not np.allclose(found[0], found[1], rtol=1e-3)  # estimates
    np.testing.assert_allclose(np.mean(found, 0), exact, rtol=0.2)


def test_a_seed_is_an_estimate(linear):
    for name, labels in (("obd", NUMBERS), ("lfh", None)):
        one, same = (raw(linear, name, (IMAGES, labels), loss="mse", seed=3)["hidden"] for _ in range(2))
        np.testing.assert_array_equal(one, same)


def test_obd_in_a_convolutional_network_is_the_diagonal_of_the_whole_hessian():
    """That of two tapes, one in the other; a softplus, as ReLU has a kink."""
    x = keras.Input((6, 6, 2))
    y = L.Conv2D(2, 3, activation="softplus", name="conv")(x)
    model = toys.randomised(keras.Model(x, L.Dense(3, name="logits")(L.GlobalAveragePooling2D()(y))))
    images, labels = RNG.normal(size=(8, 6, 6, 2)).astype(np.float32), np.arange(8) % 3
    found = np.mean([raw(model, "obd", (images, labels), seed=s)["conv"] for s in range(40)], 0)
    kernel = model.get_layer("conv").kernel
    with tf.GradientTape(persistent=True) as outer:
        with tf.GradientTape() as inner:
            losses = keras.losses.sparse_categorical_crossentropy(labels, model(images), from_logits=True)
            loss = tf.reduce_mean(losses)
        gradient = inner.gradient(loss, kernel.value)
    hessian = outer.jacobian(gradient, kernel.value).numpy().reshape(36, 36)
    expected = (kernel.numpy() ** 2 * np.diag(hessian).reshape(kernel.shape)).sum((0, 1, 2)) / 2
    np.testing.assert_allclose(found, expected, rtol=0.25)


def test_fisher_of_squares_by_hand(linear):
    """∂ℓ/∂W_ij = 2/OUT · x_i · (V(f − y))_j of every image by itself; squares of sums would be others."""
    w, v = kernels(linear)
    x = IMAGES.astype(np.float64)
    errors = 2 / OUT * (x @ w @ v - NUMBERS) @ v.T
    fisher = np.einsum("bi,bj->ij", x**2, errors**2) / N
    found = raw(linear, "obd_c", (IMAGES, NUMBERS), loss="mse")["hidden"]
    np.testing.assert_allclose(found, (w**2 * fisher).sum(0) / 2, rtol=1e-4)


def test_lfh_of_one_output_is_exact():
    """With one output v² = 1: Tr = Σ_i E[x_i²] · V_j²."""
    x = keras.Input((INPUTS,))
    y = L.Dense(HIDDEN, use_bias=False, name="hidden")(x)
    model = toys.randomised(keras.Model(x, L.Dense(1, use_bias=False, name="out")(y)))
    w, v = kernels(model)
    trace = (IMAGES.astype(np.float64) ** 2).mean(0).sum() * v[:, 0] ** 2
    found = raw(model, "lfh", IMAGES)["hidden"]
    np.testing.assert_allclose(found, (w**2).sum(0) * trace / INPUTS, rtol=1e-4)


def test_lfh_of_many_outputs_is_near_its_closed_form(linear):
    w, v = kernels(linear)
    trace = (IMAGES.astype(np.float64) ** 2).mean(0).sum() * (v**2).sum(1)
    found = np.mean([raw(linear, "lfh", IMAGES, seed=s)["hidden"] for s in range(10)], 0)
    np.testing.assert_allclose(found, (w**2).sum(0) * trace / INPUTS, rtol=0.15)


def test_lfh_looks_at_no_label(linear):
    assert not get_criterion("lfh").needs_labels
    with_labels, without = (raw(linear, "lfh", data)["hidden"] for data in ((IMAGES, NUMBERS), IMAGES))
    np.testing.assert_array_equal(with_labels, without)


def test_every_output_counts(linear):
    """Two outputs that are the same have twice the trace, not that of their sum: four times."""
    x = linear.inputs[0]
    y = linear.output[:, :1]
    twice = keras.Model(x, [y, y * 1.0])
    once = keras.Model(x, y)
    found = np.mean([raw(twice, "lfh", IMAGES, seed=s)["hidden"] for s in range(10)], 0)
    np.testing.assert_allclose(found, 2 * raw(once, "lfh", IMAGES)["hidden"], rtol=0.2)


@pytest.mark.parametrize("name", ["obd", "obd_c"])
def test_a_loss_of_twice_the_size(linear, name):
    """The Hessian doubles, the Fisher matrix is of squares."""

    def doubled(labels, outputs):
        return 2 * keras.ops.mean(keras.ops.square(labels - outputs), -1)

    single, double = (raw(linear, name, (IMAGES, NUMBERS), loss=o)["hidden"] for o in ("mse", doubled))
    np.testing.assert_allclose(double, (2 if name == "obd" else 4) * single, rtol=1e-4)


@pytest.mark.parametrize("name", ["obd_c", "movement", "chip"])
def test_the_order_of_images_means_nothing(name):
    model, images, labels = toys.plain_net(), toys.images(12), np.arange(12) % 4
    order = np.random.default_rng(2).permutation(12)
    one, other = (raw(model, name, d) for d in ((images, labels), (images[order], labels[order])))
    for group in one:
        np.testing.assert_allclose(other[group], one[group], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["obd", "obd_c", "lfh", "movement", "chip"])
def test_a_plan_by_each(name):
    data = toys.images(12), np.arange(12) % 4
    plan = make_plan(toys.small_resnet(), name, keep_macs=0.6, data=data)
    assert 0 < sum(map(len, plan.keep.values())) < sum(plan.sizes.values())
