"""Channels that are held: all that mask() sets to zero, found again, and zero whatever moves the weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from secateur.pruning import Plan, compact, mask
from secateur.pruning.constrain.holding import Holder, left_of
from secateur.pruning.groups.analysis import analyse
from secateur.pruning.shrink.weights import weights_of
from secateur.runs import UsageError
from tests.helpers import user_models
from tests.helpers.toys import images, plain_net, random_plan, randomised, small_resnet

BUILDERS = {
    "plain": plain_net,
    "masked, zero-padded shortcuts": lambda: small_resnet("A"),
    "gates": lambda: randomised(user_models.inverted_residual()),
    "concatenated": lambda: randomised(user_models.dense_net()),
    "attention": lambda: mask(randomised(user_models.vision_transformer())),
}


@pytest.fixture(params=BUILDERS)
def model(request) -> keras.Model:
    return BUILDERS[request.param]()


def plan_of(model: keras.Model, seed: int = 0) -> Plan:
    return random_plan(analyse(model).groups, np.random.default_rng(seed))


def kicked(model: keras.Model, by: float = 0.1) -> None:
    """Moves everything that trains, as an optimizer with moments would."""
    rng = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign_add(rng.normal(0, by, variable.shape))


def test_it_sets_to_zero_what_mask_does(model):
    plan = plan_of(model)
    expected = weights_of(mask(model, plan))
    Holder(model, plan)
    for layer, arrays in weights_of(model).items():
        for name, array in arrays.items():
            np.testing.assert_array_equal(array, expected[layer][name], err_msg=f"{layer}/{name}")


def test_behind_every_step_the_network_computes_what_the_small_one_does(model):
    plan, x = plan_of(model), images(6)
    holder = Holder(model, plan)
    kicked(model)
    assert left_of(analyse(model)) == Plan.full(analyse(model).groups)
    holder()
    expected = compact(model, plan)(x)
    np.testing.assert_allclose(model(x), expected, atol=1e-5 * np.abs(expected).max())
    assert left_of(analyse(model)) == plan


def test_another_plan_of_the_same_weights_is_held_by_the_same_trace():
    model = plain_net()
    plans = [plan_of(model, seed) for seed in (0, 1)]
    holder = Holder(model, plans[0])
    for plan in plans:
        holder.hold_to(plan)
        kicked(model)
        holder()
        assert left_of(analyse(model)) == plan
    assert holder._run.experimental_get_tracing_count() == 1


def test_what_is_infinite_becomes_zero_too():
    model = plain_net()
    plan = Plan.full(analyse(model).groups).replace("inner", [0, 1])
    holder = Holder(model, plan)
    kernel = model.get_layer("inner").kernel
    kernel.assign(tf.where(tf.range(5) > 1, np.inf, kernel.value))
    holder()
    assert np.flatnonzero((kernel.numpy() != 0).any((0, 1, 2))).tolist() == [0, 1]


def test_a_layer_that_starts_with_zeros_is_not_taken_for_pruned():
    """A residual branch whose last convolution is zero at first, as are BN's shifts and all biases."""
    layers, x = keras.layers, keras.Input((8, 8, 3))
    y = layers.BatchNormalization()(layers.Conv2D(4, 3, name="in")(x))
    y = layers.Conv2D(5, 3, kernel_initializer="zeros", name="zero")(y)
    model = keras.Model(x, layers.Dense(2)(layers.GlobalAveragePooling2D()(y)))
    assert left_of(analyse(model)) == Plan.full(analyse(model).groups)


def test_a_plan_of_another_network_is_refused():
    with pytest.raises(UsageError, match="another network"):
        Holder(plain_net(), plan_of(small_resnet()))
