"""The chain computes, with weights of any width, what the narrower network computes in training."""

import keras
import numpy as np
import pytest
from hypothesis import assume, currently_in_test_context, given, strategies
from keras import ops

import secateur
from secateur.nets.graph import trace
from secateur.pruning import make_plan, narrow
from secateur.pruning.groups.analysis import analyse
from secateur.pruning.plan import Plan
from secateur.pruning.search.chain import Chain
from secateur.pruning.search.open_shapes import sizes_of
from secateur.pruning.shrink.weights import apply, weights_of
from secateur.runs.errors import UsageError
from tests.helpers import random_nets, toys, user_models
from tests.helpers.batch_statistics import outputs_in_training
from tests.pruning.groups.test_random_graphs import assert_close, hold

L = keras.layers
IMAGES = keras.Input((8, 8, 3))


def outputs(model: keras.Model, batch: list, plan: Plan | None = None, dtype: str = "float32") -> list:
    """Of the chain, with the weights that a plan leaves."""
    analysis = analyse(model)
    chain, masks = Chain(model, analysis, dtype), (plan or Plan.full(analysis.groups)).masks()
    weights = apply(weights_of(model), analysis.groups, masks) | sizes_of(analysis, masks)
    made = chain.forward(chain.tensors(weights), chain.inputs(batch))
    return [y.numpy() for y in keras.tree.flatten(made)]


def check(model: keras.Model, seed: int = 0, examples: int = 29) -> None:
    rng = np.random.default_rng(seed)
    random_nets.randomise(model, rng)
    batch = [x[:examples] for x in random_nets.batch_of(model, rng)]
    plan = toys.random_plan(analyse(model).groups, rng)
    expected = outputs_in_training(narrow(model, plan), batch)
    if currently_in_test_context():
        assume(all(np.isfinite(y).all() for y in expected))
    assert_close(expected, outputs(model, batch, plan))


def check_random(net: tuple, seed: int) -> None:
    check(random_nets.build(*net, seed), seed)


@hold(20)
@given(random_nets.nets(), strategies.integers(0, 999))
def test_any_network_under_any_plan(net, seed):
    check_random(net, seed)


@pytest.mark.slow
@hold(500)
@given(random_nets.nets(), strategies.integers(0, 999))
def test_many_more(net, seed):
    check_random(net, seed)


@pytest.mark.parametrize("name", ["u_net", "siamese", "detector", "inverted_residual", "recurrent"])
def test_networks_as_users_write_them(name):
    check(getattr(user_models, name)())


def application(name: str, side: int = 32, **options) -> keras.Model:
    sizes = {"input_shape": (side, side, 3), "classes": 10, "classifier_activation": None}
    return getattr(keras.applications, name)(weights=None, **sizes, **options)


def test_mobilenet_v2_with_its_linear_bottlenecks():
    check(application("MobileNetV2", alpha=0.35), examples=64)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["EfficientNetB0", "DenseNet121", "MobileNetV3Small", "ConvNeXtTiny", "ResNet50V2", "Xception"]
)
def test_networks_of_keras_applications(name):
    check(application(name, 71 if name == "Xception" else 32), examples=32)


def net_of(*layers) -> keras.Model:
    """These between two convolutions."""
    x = L.Conv2D(8, 3, name="first")(IMAGES)
    for layer in layers:
        x = layer(x)
    return keras.Model(IMAGES, L.Dense(3)(L.GlobalMaxPooling2D()(L.Conv2D(4, 1, name="last")(x))))


def test_bn_that_is_frozen_keeps_its_averages():
    model = net_of(L.BatchNormalization(name="bn"), L.ReLU())
    moving = outputs(model, [toys.images(29)])
    model.get_layer("bn").trainable = False
    check(model)
    assert np.max(np.abs(outputs(model, [toys.images(29)])[0] - moving[0])) > 1e-3


def test_dropout_and_augmentation_do_nothing():
    noisy = net_of(L.RandomFlip(seed=1), L.Dropout(0.9, seed=1), L.GaussianNoise(0.9, seed=1))
    plain = net_of()
    plain.set_weights([w.numpy() for w in noisy.weights if w.name in ("kernel", "bias")])
    batch = [toys.images(29)]
    np.testing.assert_array_equal(outputs(noisy, batch)[0], outputs(plain, batch)[0])


def test_convolutions_in_groups_and_behind_their_past():
    """Conv1D, causal, also with a group for each channel."""
    sound = keras.Input((12, 2))
    x = L.Conv1D(6, 3, padding="causal", dilation_rate=2, activation="relu")(sound)
    x = L.Conv1D(12, 2, padding="causal", groups=6, activation="relu")(x)
    x = L.Conv1D(8, 2, padding="causal", groups=2, activation="relu")(x)
    check(keras.Model(sound, L.Dense(3)(L.GlobalMaxPooling1D()(x))))


def test_a_mask_goes_along_with_its_tokens():
    tokens = keras.Input((6,), dtype="int32")
    x = L.Embedding(7, 8, mask_zero=True, name="words")(tokens)
    x = L.GRU(5)(L.BatchNormalization()(L.Dense(6, activation="relu", name="hidden")(x)))
    check(keras.Model(tokens, L.Dense(3)(L.Dense(7, activation="relu")(x))))


class Own(L.Layer):
    """A convolution of a user's that asks its variables for their sizes."""

    def __init__(self, width, **kwargs):
        super().__init__(**kwargs)
        self.width = width

    def build(self, shape):
        self.kernel = self.add_weight(shape=(3, 3, shape[-1], self.width), name="kernel")
        self.shift = self.add_weight(shape=(self.width,), name="shift")

    def call(self, x):
        return ops.conv(x, self.kernel) + ops.reshape(self.shift, (1, 1, 1, -1)) / len(self.kernel.shape)

    def get_config(self):
        return super().get_config() | {"width": self.width}


class Fixed(L.Layer):
    """A layer whose `call` wants a width that is known beforehand."""

    def call(self, x):
        return x * (1 / x.shape[-1])


secateur.register_layer(Own, reads={"kernel": -2}, makes={"kernel": -1, "shift": 0}, size="width")
secateur.register_layer(Fixed)


def test_a_convolution_of_a_users_own():
    check(net_of(L.ReLU(), Own(8), L.ReLU()))


def test_what_cannot_be_run_is_named():
    model = net_of(Fixed(name="odd"))
    with pytest.raises(
        UsageError, match=r"cannot run layer 'odd' of class .*Fixed.*Received: unsupported operand"
    ):
        outputs(model, [toys.images(4)])


def test_bfloat16_runs_what_float32_runs():
    model = toys.randomised(user_models.inverted_residual())
    batch, plan = [toys.images(29)], make_plan(model, keep=0.5)
    wide, half = (outputs(model, batch, plan, dtype)[0] for dtype in ("float32", "bfloat16"))
    assert 0 < np.max(np.abs(wide - half)) < 0.1 * np.max(np.abs(wide))


def test_functions_are_traced_once_for_all_widths():
    model = user_models.siamese()
    analysis, rng = analyse(model), np.random.default_rng(0)
    chain, batch = Chain(model, analysis), random_nets.batch_of(model, rng)
    for _ in range(3):
        masks = toys.random_plan(analysis.groups, rng).masks()
        weights = apply(weights_of(model), analysis.groups, masks) | sizes_of(analysis, masks)
        chain.forward(chain.tensors(weights), chain.inputs(batch))
    assert {f.experimental_get_tracing_count() for f in chain._run} == {1}


def test_only_what_a_plan_can_cut_is_open():
    model = user_models.recurrent()
    analysis = analyse(model)
    chain, name = Chain(model, analysis), {c.outputs[0]: c.name for c in trace(model).calls}
    opened = {name[t] for t, shape in chain._shapes.items() if None in shape[1:]}
    assert opened == {"words", "lstm", "gru", "hidden"}
