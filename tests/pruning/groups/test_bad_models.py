"""Models and plans that cannot be used: the error names layer and value, and nothing has changed."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from secateur.pruning import Plan, compact, complexity, find_groups, make_plan, mask, narrow
from secateur.pruning.groups.analysis import analyse
from secateur.pruning.shrink.weights import weights_of
from secateur.runs.errors import SecateurError, UsageError
from tests.helpers import toys

L = keras.layers
BATCH = toys.images(3)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="mine")
        self.head = L.Dense(3)

    def call(self, inputs):
        return self.head(inputs)


class Applied(keras.layers.Layer):
    """A layer that Keras cannot copy: its argument is no number."""

    def __init__(self, function, **kwargs):
        super().__init__(**kwargs)
        self.function = function

    def call(self, inputs):
        return self.function(inputs)


class Forgetful(Applied):
    def get_config(self):
        return keras.layers.Layer.get_config(self)


def test_models_without_a_graph():
    unbuilt = keras.Sequential([L.Dense(3)], name="unbuilt")
    for model, name in ((Subclassed(), "mine"), (unbuilt, "unbuilt"), (L.Dense(3, name="alone"), "alone")):
        for use in (find_groups, compact, complexity, lambda m: make_plan(m, keep=0.5)):
            with pytest.raises(UsageError, match=f"'{name}' has no graph.*Received: {type(model).__name__}"):
                use(model)


def test_a_layer_that_cannot_be_unfolded_is_left_whole_and_named():
    images = keras.Input((8, 8, 3))
    x = Applied(tf.square, name="foreign")(L.Conv2D(4, 1, name="before")(images))
    model = keras.Model(images, L.Dense(2, name="after")(L.Conv2D(6, 1, name="between")(x)))
    assert [group.name for group in find_groups(model)] == ["between"]
    reason = next(row.reason for row in analyse(model).untouched if row.layers == ("before",))
    assert "Applied is not understood: its call does not run on symbolic tensors (" in reason


def test_a_model_with_nothing_to_prune_says_why():
    images = keras.Input((8, 8, 3))
    x = L.Softmax(name="norm")(L.Conv2D(4, 1, name="conv")(images))
    model = keras.Model(images, L.Flatten()(x), name="small")
    with pytest.raises(UsageError, match="'small': conv must stay: norm: its softmax mixes channels"):
        make_plan(model, keep=0.5)
    np.testing.assert_allclose(compact(model)(BATCH), model(BATCH), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "mixed_float16", "mixed_bfloat16"])
def test_every_float_type_is_cut(dtype):
    keras.config.set_dtype_policy(dtype)
    try:
        model = toys.plain_net()
    finally:
        keras.config.set_dtype_policy("float32")
    plan = make_plan(model, keep=0.5)
    small = compact(model, plan)
    assert [v.dtype for v in small.variables] == [v.dtype for v in model.variables]
    both = (np.asarray(how(BATCH), np.float64) for how in (mask(model, plan), small))
    np.testing.assert_allclose(*both, atol=1e-12 if dtype == "float64" else 0.05)


@pytest.mark.parametrize("mode", ["int8", "float8"])
def test_quantised_weights_stay_and_are_named(mode):
    images = keras.Input((8,))
    x = L.Dense(6, name="first")(images)
    x = L.Dense(6, activation="relu", name="quantised")(x)
    model = keras.Model(images, L.Dense(2, name="last")(L.Dense(6, name="third")(x)))
    model.get_layer("quantised").quantize(mode)
    reasons = {row.layers: row.reason for row in analyse(model).untouched}
    assert reasons["first",] == reasons["quantised",] == "quantised: it is quantised or has LoRA weights"
    batch, plan = np.ones((2, 8), np.float32), make_plan(model, keep=0.5)
    assert plan.widths() == {"third": 3}
    np.testing.assert_allclose(compact(model, plan)(batch), mask(model, plan)(batch), rtol=1e-5)


def test_plans_that_do_not_fit():
    model = toys.plain_net()
    full = Plan.full(find_groups(model))
    with pytest.raises(
        UsageError, match="Group 'stem' needs between 1 and 6 different channels.*keep=\\[\\]"
    ):
        full.replace("stem", ())
    with pytest.raises(UsageError, match="Group 'stem'.*below 6. Received: keep=\\[0, 6\\]"):
        full.replace("stem", (0, 6))
    short = Plan({"stem": (0,)}, {"stem": 6})
    wide = Plan({**full.keep, "inner": (8,)}, {**full.sizes, "inner": 9})
    for plan, received in (
        (short, "no channels in group 'inner', where the model has 5"),
        (wide, "9 channels in group 'inner', where the model has 5"),
    ):
        for how in (mask, narrow, compact):
            with pytest.raises(UsageError, match=f"another network.*Received: {received}"):
                how(model, plan)
    for ratio in (0, -1, 1.5):
        with pytest.raises(UsageError, match=f"Received: keep={ratio}"):
            make_plan(model, keep=ratio)


@pytest.mark.parametrize("kind", [Applied, Forgetful])
def test_a_layer_that_cannot_be_copied_is_named(kind):
    images = keras.Input((8, 8, 3))
    x = kind(tf.square, name="foreign")(L.Conv2D(4, 1, name="conv")(images))
    model = keras.Model(images, L.Conv2D(2, 1, name="last")(L.Conv2D(3, 1, name="free")(x)))
    with pytest.raises(
        UsageError, match=f"'foreign' cannot be copied.*get_config.*Received: {kind.__name__}"
    ):
        compact(model, make_plan(model, keep=0.5))


def test_an_error_leaves_the_model_as_it_was():
    images = keras.Input((8, 8, 3))
    x = L.BatchNormalization(name="bn")(L.Conv2D(4, 1, name="conv")(images))
    x = Applied(tf.square, name="foreign")(L.Conv2D(4, 1, name="free")(x))
    model = toys.randomised(keras.Model(images, L.Conv2D(2, 1, name="last")(x)))
    weights, nodes, before = (
        weights_of(model),
        [len(o._inbound_nodes) for o in model.operations],
        model(BATCH),
    )
    good = make_plan(model, keep=0.5)
    for how in (mask, narrow, compact):
        for plan in (good, Plan({"conv": (0,)}, {"conv": 4})):
            with pytest.raises(SecateurError):
                how(model, plan)
    assert [len(o._inbound_nodes) for o in model.operations] == nodes
    after = weights_of(model)
    assert all(np.array_equal(after[n][k], w) for n, arrays in weights.items() for k, w in arrays.items())
    assert np.array_equal(model(BATCH), before)
