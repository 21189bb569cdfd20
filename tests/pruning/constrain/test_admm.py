"""ADMM: its projection, its update, and where it ends."""

import hypothesis.extra.numpy as arrays
import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from secateur.pruning.constrain.admm import project, update
from secateur.pruning.constrain.splitting import Splitting, admm, updating
from secateur.runs import UsageError
from tests.helpers.toys import plain_net

KERNELS = arrays.arrays(
    np.float32,
    st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4), st.integers(1, 9)),
    elements=st.floats(-4, 4, width=16, allow_subnormal=False),
)


def by_hand(kernel: np.ndarray, sparsity: float, unit: str) -> np.ndarray:
    """Rows of units in plain Python: the smallest ⌊sparsity · n⌋ sums, the earlier of equals, are zero."""
    flat = kernel.reshape(-1, kernel.shape[-1]).T if unit == "filters" else kernel.reshape(-1, 1)
    sums = [sum(abs(float(w)) for w in row) for row in flat]
    gone = sorted(range(len(sums)), key=lambda i: (sums[i], i))[: int(sparsity * len(sums))]
    flat = flat.copy()
    flat[gone] = 0
    return (flat.T if unit == "filters" else flat).reshape(kernel.shape)


@given(KERNELS, st.floats(0, 0.999), st.sampled_from(["filters", "weights"]))
def test_the_projection_zeroes_the_smallest_units(kernel, sparsity, unit):
    np.testing.assert_array_equal(project(kernel, sparsity, unit), by_hand(kernel, sparsity, unit))


@given(KERNELS, st.floats(0, 0.999), st.sampled_from(["filters", "weights"]))
def test_a_projection_stays_where_it_is(kernel, sparsity, unit):
    once = project(kernel, sparsity, unit)
    np.testing.assert_array_equal(project(once, sparsity, unit), once)


def test_no_sparse_array_is_nearer_than_the_projection():
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(2, 2, 3, 2))
    nearest = np.linalg.norm(kernel - project(kernel, 0.5, "weights"))
    for _ in range(200):
        support = rng.permutation(24).reshape(kernel.shape) < 12
        assert np.linalg.norm(kernel - kernel * support) >= nearest


def test_filters_of_a_depthwise_kernel_are_its_channels():
    kernel = np.arange(1, 9, dtype=np.float32).reshape(1, 2, 4, 1)  # L1 of the channels: 6, 8, 10, 12
    assert project(kernel, 0.5, axes=(-2, -1)).ravel().tolist() == [0, 0, 3, 4, 0, 0, 7, 8]


@given(KERNELS, st.floats(0, 0.999))
def test_the_update_splits_the_sum_of_weights_and_duals(kernel, sparsity):
    dual = np.roll(kernel, 1) / 4
    sparse, new = update(kernel, dual, sparsity)
    np.testing.assert_array_equal(sparse, by_hand(kernel + dual, sparsity, "filters"))
    np.testing.assert_allclose(sparse + new, kernel + dual, atol=1e-6)


@pytest.mark.parametrize("rho", [1.0, 3.0, 10.0])
def test_of_a_quadratic_loss_it_finds_the_projection(rho):
    """min ½‖W − A‖² over S: W = (A + ρ(Z − U)) / (1 + ρ) in closed form; the end is Π(A) for both.

    S is not convex: a ρ below the curvature 1 of the loss goes round in circles.
    """
    target = np.random.default_rng(1).normal(size=(3, 3, 2, 8))
    sparse, dual = target.copy(), np.zeros_like(target)
    for _ in range(400):
        weights = (target + rho * (sparse - dual)) / (1 + rho)
        sparse, dual = update(weights, dual, 0.5)
    np.testing.assert_allclose(weights, sparse, atol=1e-6)
    np.testing.assert_allclose(sparse, project(target, 0.5), atol=1e-6)


# --- its pull on gradients ----------------------------------------------------------------------------------


def pulled(model: keras.Model, rho: float, form: str, scale: float = 1.0) -> tuple[Splitting, list]:
    splitting, rng = Splitting.of(model), np.random.default_rng(2)
    for variable in splitting.kept:
        variable.assign(rng.normal(size=variable.shape))
    parameters = [v.value for v in model.trainable_variables]
    return splitting, admm(model, splitting, rho, form)(
        [tf.ones_like(p) for p in parameters], parameters, scale
    )


PENALTIES = {
    "textbook": lambda d, rho: rho / 2 * tf.reduce_sum(d**2),
    "nni": lambda d, rho: rho / 2 * tf.sqrt(tf.norm(d)),
}


@pytest.mark.parametrize("form", PENALTIES)
def test_the_pull_is_the_gradient_of_the_penalty(form):
    model = plain_net()
    splitting, found = pulled(model, 0.7, form, scale=0.5)
    kernels = [kernel.variable for kernel in splitting.kernels]
    with tf.GradientTape() as tape:
        values = [kernel.value + 0 for kernel in kernels]
        tape.watch(values)
        rows = zip(values, splitting.sparse, splitting.duals, strict=True)
        penalty = sum(PENALTIES[form](w - z.value + u.value, 0.7) for w, z, u in rows)
    expected = iter(tape.gradient(penalty, values))
    assert {k.path for k in kernels} == {"stem/kernel", "inner/kernel", "outer/kernel"}
    own = {id(kernel) for kernel in kernels}
    for variable, gradient in zip(model.trainable_variables, found, strict=True):
        added = 0.5 * next(expected).numpy() if id(variable) in own else 0
        np.testing.assert_allclose(gradient - 1, added + np.zeros(variable.shape), atol=1e-6)


@pytest.mark.parametrize("form", PENALTIES)
def test_it_begins_without_a_pull(form):
    """Z = W and U = 0, where the square root of NNI's form has no derivative."""
    model = plain_net()
    parameters = [v.value for v in model.trainable_variables]
    found = admm(model, Splitting.of(model), 1.0, form)(
        [tf.ones_like(p) for p in parameters], parameters, 1.0
    )
    assert all((gradient.numpy() == 1).all() for gradient in found)


def test_a_strong_pull_makes_the_weights_sparse():
    """Plain gradient steps on the pull alone, with Z and U renewed every 5: W approaches Z."""
    model = plain_net()
    splitting = Splitting.of(model)
    kernels = [kernel.variable for kernel in splitting.kernels]
    adjust, renew = admm(model, splitting, rho=0.5), updating(splitting, 0.5, every=5)
    start = [kernel.numpy() for kernel in kernels]
    for step in range(1, 61):
        parameters = [v.value for v in model.trainable_variables]
        gradients = adjust([tf.zeros_like(p) for p in parameters], parameters, 1.0)
        for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
            variable.assign_sub(gradient)
        renew(step)
    for before, kernel, sparse in zip(start, kernels, splitting.sparse, strict=True):
        dead = (sparse.numpy() == 0).all((0, 1, 2))
        assert dead.sum() == len(dead) // 2
        assert np.abs(kernel.numpy()[..., dead]).max() < 1e-3 < np.abs(before[..., dead]).max()


@pytest.mark.parametrize(
    "call",
    [
        lambda m: admm(m, Splitting.of(m), form="nnni"),
        lambda m: admm(m, Splitting.of(m), rho=0.0),
        lambda m: project(np.ones((1, 1, 1, 2)), 0.5, "filter"),
        lambda m: project(np.ones((1, 1, 1, 2)), 1.0),
    ],
)
def test_what_does_not_exist_is_named(call):
    with pytest.raises(UsageError, match="Received: (form='nnni'|rho=0.0|unit='filter'|sparsity=1.0)"):
        call(plain_net())
