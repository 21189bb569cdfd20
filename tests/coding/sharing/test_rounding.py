"""Numbers on a grid: how far they move, and that a BatchNorm without averages computes what it did."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur import coding
from secateur.coding.sharing.rounding import on_grid, round_numbers
from secateur.coding.sharing.share import share
from secateur.runs import UsageError


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=30), st.integers(2, 24))
def test_numbers_move_by_half_a_step_and_have_so_many_bits(numbers, bits):
    value = np.array(numbers, np.float32)
    found = on_grid(value, bits)
    largest = np.abs(value).max()
    if largest < 1e-30:
        return
    step = 2.0 ** np.ceil(np.log2(np.float64(largest) / (2 ** (bits - 1) - 1)))
    multiples = found.astype(np.float64) / step
    assert (multiples == np.round(multiples)).all() and np.abs(multiples).max() < 2 ** (bits - 1)
    assert np.abs(found.astype(np.float64) - value).max() <= step / 2
    assert not np.signbit(found[found == 0]).any()


def normalised(training=None):
    """Convolutions with BatchNorms that have learnt something."""
    keras.utils.set_random_seed(0)
    x = keras.Input((8, 8, 3))
    y = keras.layers.Conv2D(12, 3, padding="same", name="first")(x)
    y = keras.layers.BatchNormalization(name="norm")(y, training=training)
    y = keras.layers.Conv2D(12, 3, padding="same", name="second")(keras.layers.ReLU()(y))
    y = keras.layers.BatchNormalization(name="shiftless", center=False)(y)
    model = keras.Model(x, keras.layers.Dense(4, name="head")(keras.layers.GlobalAveragePooling2D()(y)))
    rng = np.random.default_rng(0)
    for weight in model.weights:
        scale = 1 + rng.random(weight.shape) if "variance" in weight.name else rng.normal(size=weight.shape)
        weight.assign(0.3 * scale)
    return model


@pytest.mark.parametrize("training", [None, True])
def test_outputs_stay_and_averages_go(training):
    model, inputs = normalised(training), np.random.default_rng(1).normal(size=(16, 8, 8, 3))
    before, gamma = model(inputs).numpy(), model.get_layer("norm").gamma.numpy()
    round_numbers(model, 20)
    np.testing.assert_allclose(model(inputs).numpy(), before, rtol=1e-3, atol=1e-3)
    norm = model.get_layer("norm")
    if training is None:
        assert not norm.moving_mean.numpy().any() and (norm.moving_variance.numpy() == 1).all()
    else:  # it has no averages of its own to give away
        np.testing.assert_allclose(norm.gamma, gamma, atol=1e-4)
    assert model.get_layer("shiftless").moving_mean.numpy().any()


def test_the_file_gets_smaller_and_kernels_that_do_not_share_stay(tmp_path):
    model = normalised()
    head = model.get_layer("head").kernel.numpy()
    share(model, bits=3)
    sizes = [coding.encode(model, tmp_path / "raw.kpz").file]
    shared = model.get_layer("first").kernel.numpy()
    round_numbers(model, 8)
    sizes.append(coding.encode(model, tmp_path / "round.kpz").file)
    # 24 of γ and β, a bias, and two codebooks at most: from 4 bytes to 1; 24 averages to nothing.
    assert sizes[1] < sizes[0] - 3 * (24 + 12 + 16) - 4 * 24 + 60
    np.testing.assert_array_equal(model.get_layer("head").kernel.numpy(), head)
    moved = model.get_layer("first").kernel.numpy()
    assert len(np.unique(moved)) <= len(np.unique(shared)) and np.abs(moved - shared).max() < 0.01
    back = coding.decode(tmp_path / "round.kpz")
    for one, other in zip(back.weights, model.weights, strict=True):
        np.testing.assert_array_equal(one.numpy(), other.numpy())


@pytest.mark.parametrize("bits", [1, 25])
def test_bits_that_do_not_exist(bits):
    with pytest.raises(UsageError, match=f"2 to 24. Received: {bits}"):
        round_numbers(normalised(), bits)


def test_only_vectors_and_shared_kernels_move():
    """Not a Normalization's averages, an Embedding's table, or a pruned kernel of different weights."""
    keras.utils.set_random_seed(0)
    numbers, words = keras.Input((3,)), keras.Input((2,), dtype="int32")
    scaled = keras.layers.Normalization(mean=[0, 0, 0], variance=[4e4, 1, 0.0025])(numbers)
    table = keras.layers.Flatten()(keras.layers.Embedding(5, 4, name="table")(words))
    y = keras.layers.Dense(8, name="head")(keras.layers.Concatenate()([scaled, table]))
    model = keras.Model([numbers, words], y)
    kernel = model.get_layer("head").kernel
    kernel.assign(np.where(np.random.default_rng(0).random(kernel.shape) < 0.6, 0, kernel))
    before = [weight.numpy() for weight in model.weights]
    round_numbers(model, 4)
    for weight, old in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight, old)  # the bias is 0


def test_numbers_at_the_end_of_their_range_stay():
    for value in ([3.4e38, 1.0], [65504.0, 1.0], [np.inf, 1.0]):
        array = np.array(value, np.float16 if value[0] == 65504 else np.float32)
        assert on_grid(array, 8) is array
