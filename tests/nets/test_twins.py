"""The network that trains in place of somebody's own: equal at inference, thawed, on the fused kernel."""

import keras
import numpy as np
import pytest

from secateur.nets.layers import FusedBatchNorm
from secateur.nets.twins import flags_of, frozen, hand_over, training_twin
from secateur.pruning import compact

layers = keras.layers


def backbone(side: int = 16) -> keras.Model:
    x = inputs = keras.Input((side, side, 3))
    for i in range(2):
        x = layers.Conv2D(8, 3, use_bias=False, name=f"conv{i}")(x)
        x = layers.ReLU()(layers.BatchNormalization(name=f"bn{i}")(x))
    return keras.Model(inputs, x, name="backbone")


def frozen_backbone() -> keras.Model:
    """The common file of transfer learning: a frozen model inside, called with training=False."""
    base = backbone()
    base.trainable = False
    inputs = keras.Input((16, 16, 3))
    x = base(layers.Rescaling(1 / 127.5, -1)(inputs), training=False)
    x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(x))
    return keras.Model(inputs, layers.Dense(4, name="head")(x), name="transfer")


def shaken(model: keras.Model) -> keras.Model:
    """Every weight is random: averages of BN that are 0 and 1 would hide a mix-up."""
    rng = np.random.default_rng(0)
    model.set_weights([rng.uniform(0.5, 1.5, w.shape) for w in model.get_weights()])
    return model


def images(count: int = 5) -> np.ndarray:
    return np.random.default_rng(1).uniform(0, 255, (count, 16, 16, 3)).astype("float32")


@pytest.mark.parametrize("make", [backbone, frozen_backbone])
def test_a_twin_computes_the_same_at_inference(make):
    model, x = shaken(make()), images()
    found, wanted = training_twin(model)(x, training=False), model(x, training=False)
    np.testing.assert_allclose(found, wanted, rtol=2e-5)


def test_a_twin_is_flat_thawed_and_on_the_fused_kernel():
    model = frozen_backbone()
    assert len(model.trainable_variables) == 2
    twin = training_twin(model)
    assert len(twin.trainable_variables) == 2 + 2 * 3, (
        "the head's; of each convolution kernel, gamma and beta"
    )
    assert sum(isinstance(layer, FusedBatchNorm) for layer in twin.layers) == 2
    assert {layer.momentum for layer in twin.layers if hasattr(layer, "momentum")} == {0.9}, "Keras' is 0.99"


def test_thawed_averages_move_and_frozen_ones_do_not():
    for thaw in (True, False):
        twin = training_twin(frozen_backbone(), thaw)
        before = twin.get_layer("bn0").moving_mean.numpy()
        twin(images(), training=True)
        moved = not np.array_equal(before, twin.get_layer("bn0").moving_mean.numpy())
        assert moved is thaw
        assert len(twin.trainable_variables) == (8 if thaw else 2)


def test_what_is_frozen_is_named_by_its_flat_name():
    assert frozen(frozen_backbone()) == ["conv0", "bn0", "conv1", "bn1"]
    assert frozen(backbone()) == []
    called = keras.Input((16, 16, 3))  # nothing is frozen, but BN is told not to train
    assert frozen(keras.Model(called, backbone()(called, training=False))) == ["bn0", "bn1"]


def test_flags_are_those_that_its_owner_set():
    flags = flags_of(frozen_backbone())
    assert flags["bn1"] == {"trainable": False, "momentum": 0.99}
    assert flags["head"] == {"trainable": True}


def test_dropout_that_samples_at_inference_goes_on_to():
    inputs = keras.Input((64,))
    model = keras.Model(inputs, layers.Dropout(0.5)(inputs, training=True))
    for net in (model, training_twin(model)):
        assert np.any(net(np.ones((1, 64))) == 0)


def test_a_plain_copy_of_a_twin_calls_its_layers_as_the_original_did():
    """A default of `training` that a call records would freeze BatchNorm in files for whoever reads them."""
    images = keras.Input((8, 8, 3))
    x = keras.layers.BatchNormalization(name="bn")(keras.layers.Conv2D(4, 3)(images))
    model = keras.Model(images, keras.layers.Dense(2)(keras.layers.GlobalAveragePooling2D()(x)))
    plain = compact(training_twin(model))
    (node,) = plain.get_layer("bn")._inbound_nodes
    assert node.arguments.kwargs.get("training") is None
    assert frozen(plain) == []


def test_averages_are_handed_over_within_layers_of_layers_and_nothing_else():
    """The second of a layer's own is called moving_mean#1."""

    class Twice(layers.Layer):
        def __init__(self, **options):
            super().__init__(**options)
            self.norms = [layers.BatchNormalization() for _ in range(2)]

        def build(self, shape):
            for norm in self.norms:
                norm.build(shape)

        def call(self, x, training=None):
            for norm in self.norms:
                x = norm(x, training=training)
            return x

    def model() -> keras.Model:
        x = keras.Input((4,))
        return keras.Model(x, layers.Dense(2, name="head")(Twice(name="twice")(x)))

    source, target = shaken(model()), model()
    before = target.get_layer("head").kernel.numpy()
    hand_over(source, target, ("moving_mean", "moving_variance"))
    for given, got in zip(source.get_layer("twice").norms, target.get_layer("twice").norms, strict=True):
        np.testing.assert_array_equal(got.moving_mean, given.moving_mean)
        np.testing.assert_array_equal(got.moving_variance, given.moving_variance)
        assert set(got.gamma.numpy()) == {1.0}
    np.testing.assert_array_equal(target.get_layer("head").kernel, before)
