"""Values by the rate of their code: against every cut of small arrays, and within budgets of a network."""

import itertools

import keras
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from secateur.coding.sharing.by_rate import Values, share_by_rate, weighed
from secateur.coding.sharing.share import VALUE_BYTES, ZERO, join, share_array, stored_bytes, tied
from secateur.runs import UsageError
from tests.helpers.toys import images, plain_net

SMALL = st.lists(
    st.sampled_from([-0.9, -0.4, -0.1, -0.05, 0.0, 0.02, 0.1, 0.3, 0.35, 1.0]), min_size=1, max_size=40
)


def cost(value, codebook, labels, price):
    error = np.sum((value.astype(np.float64) - join(codebook, labels)) ** 2)
    return error + price * 8 * stored_bytes(codebook, labels)


def every_sharing(value):
    """All cuts of the distinct values into runs, each with its mean; and with 0 in place of one of them."""
    distinct, members = np.unique(value, return_inverse=True)
    for cuts in itertools.product([0, 1], repeat=len(distinct) - 1):
        own = np.concatenate([[0], np.cumsum(cuts)]).astype(int)[members]
        means = np.array([value[own == i].mean(dtype=np.float64) for i in range(own.max() + 1)], np.float32)
        for zero in (None, *range(len(means))):
            if 0 in distinct and (zero is None or 0 not in value[own == zero]):
                continue  # what is 0 stays it
            kept = [i for i in range(len(means)) if i != zero and means[i] != 0]
            places = np.full(len(means), ZERO, np.int32)
            places[kept] = np.arange(len(kept))
            yield means[kept], places[own]


@settings(max_examples=60, deadline=None)
@given(SMALL, st.floats(1e-5, 0.3))
@example([-0.1] * 30 + [0.3], 0.005)  # what becomes 0 is not the run nearest to it
def test_no_cut_is_cheaper(numbers, price):
    value = np.array(numbers, np.float32)
    codebook, labels, error = Values(value).shared(price)
    assert error == pytest.approx(np.sum((value - join(codebook, labels)) ** 2), abs=1e-6)
    assert (labels[value == 0] == ZERO).all()
    least = min(cost(value, *other, price) for other in every_sharing(value))
    assert cost(value, codebook, labels, price) <= least + 1e-6


def test_it_takes_a_fifth_of_the_error_of_k_means_for_as_many_bits():
    """Laplacian weights, half of them pruned: rare values are dear, and most of the small ones may be 0."""
    rng = np.random.default_rng(0)
    value = np.where(rng.random((3, 3, 40, 40)) < 0.5, 0, 0.05 * rng.laplace(size=(3, 3, 40, 40)))
    value = value.astype(np.float32)
    codebook, labels, error = share_array(value, 8)
    values = Values(value)
    own = values.shared(0.02 * values.variance)
    assert stored_bytes(*own[:2]) < 1.01 * stored_bytes(codebook, labels)
    assert own[2] < 0.2 * error


def test_a_higher_price_never_takes_more_bytes():
    values = Values(np.random.default_rng(1).normal(size=(3, 3, 8, 30)).astype(np.float32))
    found = [values.shared(price) for price in np.logspace(-4, 2, 13)]
    sizes = [stored_bytes(codebook, labels) for codebook, labels, _ in found]
    errors = [error for *_, error in found]
    assert sizes == sorted(sizes, reverse=True) and errors == sorted(errors)
    assert sizes[-1] == 0 and (found[-1][1] == ZERO).all()


def test_kernels_that_become_empty_are_named():
    model, inputs = plain_net(), images(8)
    shared = share_by_rate(model, lambda: [model(inputs).numpy()], keep_bytes=1e-4)
    assert set(shared.emptied) >= {"stem/kernel", "inner/kernel", "outer/kernel"} - {
        kernel.name for kernel in shared.kernels if len(kernel.codebook)
    }
    assert shared.emptied and not tied(plain_net()).emptied


def test_a_network_within_a_ratio_of_its_bytes():
    model, inputs = plain_net(), images(32)
    size = sum(4 * kernel.values.array.size for kernel in weighed(model, lambda: [model(inputs).numpy()]))
    spent = []
    for ratio in (0.05, 0.1, 0.2):
        model = plain_net()
        whole = model(inputs).numpy()
        shared = share_by_rate(model, lambda model=model: [model(inputs).numpy()], keep_bytes=ratio)
        assert 0.8 * ratio * size < sum(kernel.bytes for kernel in shared.kernels) <= ratio * size
        spent.append(float(((model(inputs).numpy() - whole) ** 2).mean()))
        for kernel in shared.kernels:
            np.testing.assert_array_equal(kernel.variable.numpy(), kernel.values)
        again = tied(model)  # as a training reads it off the weights
        for one, other in zip(shared.kernels, again.kernels, strict=True):
            np.testing.assert_array_equal(one.values, other.values)
    assert spent == sorted(spent, reverse=True)


def test_a_network_within_a_loss():
    model, inputs = plain_net(), images(32)
    whole = model(inputs).numpy()

    def loss():
        return float(((model(inputs).numpy() - whole) ** 2).mean())

    far = 0.1 * float(whole.var())
    shared = share_by_rate(model, lambda: [model(inputs).numpy()], max_loss=far, loss=loss)
    assert 0.3 * far < loss() <= far
    assert any(kernel.bits is None and len(kernel.codebook) < kernel.distinct for kernel in shared.kernels)


def test_what_moves_the_outputs_gets_the_bits_and_nothing_is_left_changed():
    model, inputs = plain_net(), images(32)
    model.get_layer("outer").kernel.assign(0.01 * model.get_layer("outer").kernel)  # deaf: its outputs add
    before = [v.numpy() for v in model.variables]
    kernels = weighed(model, lambda: [model(inputs).numpy()])
    for old, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, variable.numpy())
    assert {kernel.name for kernel in kernels} == {"stem/kernel", "inner/kernel", "outer/kernel"}
    shared = [kernel.shared(1e-4 * max(one.weight for one in kernels)) for kernel in kernels]
    rates = {kernel.name: kernel.bytes / kernel.labels.size for kernel in shared}
    weights = {kernel.name: kernel.weight * kernel.values.variance for kernel in kernels}
    assert sorted(rates, key=rates.get) == sorted(weights, key=weights.get)


def test_outputs_count_in_parts_of_their_variance():
    """A thousand times as large an output moves no more than the other one."""
    x = keras.Input((6, 6, 3))
    keras.utils.set_random_seed(1)
    one, other = (keras.layers.Conv2D(4, 3, name=name)(x) for name in ("one", "other"))
    model, inputs = keras.Model(x, [one, other]), images(8)[:, :6, :6]
    for factor in (1, 1000):
        kernel = model.get_layer("other").kernel
        kernel.assign(factor * model.get_layer("one").kernel)
        found = weighed(model, lambda: [y.numpy() for y in model(inputs)])
        weights = [kernel.weight * kernel.values.variance for kernel in found]
        assert weights[0] == pytest.approx(weights[1], rel=1e-3)


def test_float16_and_kernels_without_weights():
    model, inputs = plain_net(), images(8)
    half = keras.Input((6, 6, 3), dtype="float16")
    model = keras.Model(half, keras.layers.Conv2D(4, 3, dtype="float16")(half))
    model.layers[-1].kernel.assign(np.random.default_rng(3).normal(size=(3, 3, 3, 4)))
    shared = share_by_rate(model, lambda: [model(inputs[:, :6, :6]).numpy()], keep_bytes=0.1)
    assert len(np.unique(model.layers[-1].kernel)) <= len(shared.kernels[0].codebook) + 1 < 20


def test_a_kernel_of_few_values_keeps_them():
    """Nothing is known of what its error would do: no cut at the trial's price changes it."""
    value = np.where(np.random.default_rng(2).random((3, 3, 3, 4)) < 0.5, 0, 1).astype(np.float32)
    codebook, labels, error = Values(value).shared(1e-3)
    assert codebook.tolist() == [1] and error == 0 and ((labels == ZERO) == (value == 0)).all()
    assert stored_bytes(codebook, labels) <= value.size / 8 + VALUE_BYTES


@pytest.mark.parametrize(
    ("budgets", "message"),
    [
        ({}, "Give keep_bytes or max_loss"),
        ({"keep_bytes": 0.1, "max_loss": 0.1}, "Give keep_bytes or max_loss"),
        ({"keep_bytes": 0.1, "layers": "dense"}, "no such kernels .*layers='dense'"),
        ({"max_loss": 0.1}, r"Any sharing adds \d+ to the loss. Received: max_loss=0.1"),
        ({"max_loss": 0.1, "loss": None}, "needs loss=. Received: max_loss=0.1"),
    ],
)
def test_what_cannot_be_is_refused(budgets, message):
    x = keras.Input((6, 6, 3))
    model, inputs = keras.Model(x, keras.layers.Conv2D(4, 3)(x)), images(8)[:, :6, :6]
    whole, losses = model(inputs).numpy(), itertools.count()
    with pytest.raises(UsageError, match=message):
        share_by_rate(model, lambda: [model(inputs).numpy()], **{"loss": lambda: next(losses)} | budgets)
    np.testing.assert_array_equal(model(inputs).numpy(), whole)


def test_outputs_that_are_not_finite_decide_nothing():
    x = keras.Input((6, 6, 3))
    model = keras.Model(x, keras.layers.Conv2D(4, 3, name="conv")(x))
    before = model.get_layer("conv").kernel.numpy()
    with pytest.raises(UsageError, match="outputs of the model must be finite.*conv/kernel"):
        share_by_rate(model, lambda: [np.full((2, 3), -np.inf)], keep_bytes=0.1)
    np.testing.assert_array_equal(model.get_layer("conv").kernel, before)


def test_a_kernel_that_no_price_moves_is_named_by_what_it_takes():
    x = keras.Input((6, 6, 3))
    model, inputs = keras.Model(x, keras.layers.Conv2D(4, 3, name="conv")(x)), images(8)[:, :6, :6]
    signs = np.sign(np.random.default_rng(0).normal(size=(3, 3, 3, 4)))
    model.get_layer("conv").kernel.assign(signs)
    counts = np.unique(signs, return_counts=True)[1]
    least = (np.log2(108 / counts) * counts).sum()
    with pytest.raises(UsageError, match=f"at least {(least / 8 + 8) / 432:.4f} of their bytes"):
        share_by_rate(model, lambda: [model(inputs).numpy()], keep_bytes=0.01)


def test_the_model_is_whole_again_where_the_loss_fails():
    x = keras.Input((6, 6, 3))
    model, inputs = keras.Model(x, keras.layers.Conv2D(4, 3, name="conv")(x)), images(8)[:, :6, :6]
    before, calls = model.get_layer("conv").kernel.numpy(), itertools.count()

    def loss():
        if next(calls):
            raise MemoryError
        return 0.0

    with pytest.raises(MemoryError):
        share_by_rate(model, lambda: [model(inputs).numpy()], max_loss=0.1, loss=loss)
    np.testing.assert_array_equal(model.get_layer("conv").kernel, before)
