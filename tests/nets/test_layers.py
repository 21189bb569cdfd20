"""Masked layers against Keras' own: same outputs, same statistics, same files."""

import keras
import numpy as np
import pytest

from secateur import nets
from secateur.nets.layers import FusedBatchNorm, MaskedConv2D, MaskedDense

RNG = np.random.default_rng(0)


def twin(ours, stock, x):
    """Builds both on `x` with equal random weights."""
    ours.build(x.shape)
    stock.build(x.shape)
    mine = {v.name: v for v in ours.variables}
    for variable in stock.variables:
        value = RNG.uniform(0.2, 1.2, variable.shape)
        variable.assign(value)
        mine[variable.name].assign(value)
    return ours, stock


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("use_bias", [False, True])
def test_masked_convolution_equals_the_stock_layer(strides, padding, use_bias):
    x = RNG.normal(size=(2, 7, 8, 3)).astype(np.float32)
    options = {"strides": strides, "padding": padding, "use_bias": use_bias}
    ours, stock = twin(MaskedConv2D(5, 3, **options), keras.layers.Conv2D(5, 3, **options), x)
    np.testing.assert_allclose(ours(x), stock(x), atol=1e-5)
    assert ours.compute_output_shape(x.shape) == tuple(stock(x).shape)


def test_masked_dense_equals_the_stock_layer():
    x = RNG.normal(size=(4, 6)).astype(np.float32)
    ours, stock = twin(MaskedDense(3), keras.layers.Dense(3), x)
    np.testing.assert_allclose(ours(x), stock(x), atol=1e-6)


def test_fresh_biases_are_zero_as_in_keras():
    for layer in (MaskedConv2D(5, use_bias=True), MaskedDense(5)):
        layer.build((1, 8, 8, 3) if isinstance(layer, MaskedConv2D) else (1, 3))
        assert not np.any(layer.bias.numpy())


@pytest.mark.parametrize("layer", [MaskedConv2D(4, 3, use_bias=True), FusedBatchNorm()], ids=["conv", "bn"])
@pytest.mark.parametrize("training", [False, True])
def test_a_masked_channel_is_exactly_zero_and_the_others_do_not_change(layer, training):
    x = RNG.normal(1, 1, size=(3, 5, 5, 4)).astype(np.float32)
    options = {"training": training} if isinstance(layer, FusedBatchNorm) else {}
    layer(x)
    for variable in layer.variables:
        variable.assign(RNG.uniform(0.2, 1.2, variable.shape) if variable.name != "mask" else [1, 1, 1, 1])
    before = layer(x, **options).numpy()
    layer.mask.assign([1, 0, 1, 0])
    after = layer(x, **options).numpy()
    assert not after[..., [1, 3]].any()
    np.testing.assert_array_equal(after[..., [0, 2]], before[..., [0, 2]])


def batch_norms(x, momentum=0.9, epsilon=1e-5):
    options = {"momentum": momentum, "epsilon": epsilon}
    return twin(FusedBatchNorm(**options), keras.layers.BatchNormalization(**options), x)


@pytest.mark.parametrize("training", [False, True])
def test_fused_batch_norm_equals_kerass(training):
    x = RNG.normal(2, 3, size=(4, 6, 5, 3)).astype(np.float32)
    ours, stock = batch_norms(x)
    np.testing.assert_allclose(ours(x, training=training), stock(x, training=training), atol=1e-5)


def test_epsilon_is_the_declared_one_where_the_variance_is_tiny():
    # A channel that training has switched off. Older TensorFlows silently raised 1e-5 to 1.001e-5.
    x = np.full((1, 4, 4, 3), 0.01, np.float32)
    ours, stock = batch_norms(x)
    for layer in (ours, stock):
        layer.moving_variance.assign(np.zeros(3))
        layer.moving_mean.assign(np.zeros(3))
    np.testing.assert_allclose(ours(x), stock(x), rtol=1e-6)


def test_moving_averages_follow_the_batch_with_bessels_correction():
    # TensorFlow's fused kernel (PyTorch too) averages the variance with n/(n−1), n = b·h·w; Keras without.
    x = RNG.normal(2, 3, size=(4, 6, 5, 3)).astype(np.float32)
    n = 4 * 6 * 5
    ours, stock = batch_norms(x)
    before = ours.moving_variance.numpy()
    ours(x, training=True)
    stock(x, training=True)
    np.testing.assert_allclose(ours.moving_mean, stock.moving_mean, rtol=1e-5)
    expected = 0.9 * before + 0.1 * x.var((0, 1, 2), dtype=np.float64) * n / (n - 1)
    np.testing.assert_allclose(ours.moving_variance, expected, rtol=1e-5)
    theirs = stock.moving_variance.numpy() - 0.9 * before
    np.testing.assert_allclose(ours.moving_variance.numpy() - 0.9 * before, theirs * n / (n - 1), rtol=1e-4)


def test_inference_changes_no_statistic():
    x = RNG.normal(size=(4, 6, 5, 3)).astype(np.float32)
    ours, _ = batch_norms(x)
    before = [v.numpy() for v in ours.variables]
    ours(x, training=False)
    for old, variable in zip(before, ours.variables, strict=True):
        np.testing.assert_array_equal(old, variable.numpy())


def test_masks_and_statistics_are_not_trained():
    model = nets.build("ResNet-20", input_shape=(8, 8, 3))
    assert {v.name for v in model.trainable_variables} == {"kernel", "bias", "gamma", "beta"}
    assert {v.name for v in model.non_trainable_variables} == {"mask", "moving_mean", "moving_variance"}
