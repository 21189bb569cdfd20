"""The masked depthwise convolution against Keras' own, and in EKG's search."""

import keras
import numpy as np
import pytest

from secateur import nets
from secateur.nets.layers import MaskedDepthwiseConv2D
from secateur.pruning.groups.analysis import analyse
from secateur.pruning.search.chain import Chain
from secateur.pruning.shrink.weights import apply, weights_of

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_it_equals_the_stock_layer_and_a_masked_channel_is_zero(strides, padding):
    x = RNG.normal(size=(2, 7, 8, 3)).astype(np.float32)
    ours = MaskedDepthwiseConv2D(3, strides, padding)
    stock = keras.layers.DepthwiseConv2D(3, strides, padding, use_bias=False)
    expected = stock(x)
    ours.build(x.shape)
    ours.kernel.assign(stock.kernel)
    np.testing.assert_allclose(ours(x), expected, atol=1e-6)
    assert ours.compute_output_shape(x.shape) == tuple(expected.shape)
    ours.mask.assign([1, 0, 1])
    np.testing.assert_allclose(ours(x), expected * np.array([1, 0, 1], np.float32), atol=1e-6)
    folded = ours.folded({"kernel": ours.kernel.numpy(), "mask": ours.mask.numpy()})["kernel"]
    np.testing.assert_array_equal(folded, ours.kernel.numpy() * np.array([[1], [0], [1]], np.float32))


def test_the_search_runs_a_narrower_mobilenet_with_the_batchs_statistics():
    model = nets.build("MobileNet-v2", num_classes=4, input_shape=(16, 16, 3))
    analysis, batch = analyse(model), RNG.normal(size=(8, 16, 16, 3)).astype(np.float32)
    chain, weights = Chain(model, analysis), weights_of(model)
    expected = np.asarray(model(batch, training=True))
    np.testing.assert_allclose(
        chain.forward(chain.tensors(weights), chain.inputs(batch)), expected, atol=1e-4
    )
    inner = next(g for g in analysis.groups if g.name == "Inverted1.0_conv1")
    masks = {g.name: np.ones(g.size, bool) for g in analysis.groups}
    masks[inner.name][::2] = False
    cut = apply(weights, analysis.groups, masks)
    assert cut["Inverted1.0_depthwise"]["kernel"].shape == (3, 3, 48, 1)
    assert chain.forward(chain.tensors(cut), chain.inputs(batch)).shape == (8, 4)
