"""Named features: the tensors of the network itself."""

import keras
import numpy as np
import pytest

from secateur import nets
from secateur.runs.errors import UsageError


@pytest.fixture(scope="module")
def model():
    return nets.build("ResNet-20", input_shape=(8, 8, 3))


@pytest.fixture(scope="module")
def batch():
    return np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32)


def test_stem_blocks_and_pooling_have_names(model, batch):
    seen = nets.features(model)(batch)
    blocks = [f"BasicBlock{s}.{b}_relu2" for s in range(3) for b in range(3)]
    assert set(seen) == {"logits", "relu", *blocks, "pool"}
    assert seen["BasicBlock1.2_relu2"].shape == (2, 4, 4, 32)
    np.testing.assert_array_equal(seen["logits"], model(batch))
    np.testing.assert_allclose(seen["pool"], np.mean(seen["BasicBlock2.2_relu2"], (1, 2)), atol=1e-6)


def test_a_feature_is_the_output_of_the_layers_before_it(model, batch):
    seen = nets.features(model, ["conv", "relu"])(batch)
    assert set(seen) == {"logits", "conv", "relu"}
    normalised = model.get_layer("bn")(seen["conv"])
    np.testing.assert_allclose(seen["relu"], keras.ops.relu(normalised), atol=1e-6)


def test_features_share_the_weights(model, batch):
    view, kernel = nets.features(model, ["conv"]), model.get_layer("conv").kernel
    before = view(batch)["conv"].numpy()
    kernel.assign(2 * kernel)
    np.testing.assert_allclose(view(batch)["conv"], 2 * before, rtol=1e-6)
    kernel.assign(kernel / 2)


def test_an_unknown_layer_is_named(model):
    with pytest.raises(UsageError, match="Received: layer='relu9'"):
        nets.features(model, ["relu9"])
