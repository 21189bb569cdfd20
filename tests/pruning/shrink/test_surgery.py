"""Masked = compact = narrow, and a compact model needs nothing but Keras."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from secateur import nets
from secateur.pruning import Plan, compact, complexity, find_groups, make_plan, mask, narrow
from secateur.pruning.shrink.fill import fill
from secateur.pruning.shrink.weights import weights_of
from secateur.runs.errors import UsageError
from tests.helpers import toys

BATCH, LARGE = toys.images(2), toys.images(2, 16)
TOLERANCE = 1e-5


def distance(a, b) -> float:
    """Largest difference of two batches of logits, relative to their scale."""
    return float(np.max(np.abs(np.subtract(a, b))) / np.max(np.abs(a)))


SOME = [("A", 12), ("A'", 12), ("B", 12)]
MANY = [pytest.param("A", 66, marks=pytest.mark.slow), pytest.param("A'", 67, marks=pytest.mark.slow)]
MANY += [pytest.param("B", 67, marks=pytest.mark.slow)]


def test_what_is_not_finite_becomes_zero_too():
    model = toys.plain_net()
    layer = model.get_layer("stem")
    layer.kernel.assign(np.full(layer.kernel.shape, np.inf))
    plan = Plan.full(find_groups(model)).replace("stem", [0])
    kernel = mask(model, plan).get_layer("stem").kernel.numpy()
    assert np.isinf(kernel[..., 0]).all() and not kernel[..., 1:].any()


@pytest.mark.parametrize(("shortcut", "plans"), [*SOME, *MANY])
def test_masked_equals_compact_equals_narrow_on_random_plans(shortcut, plans):
    rng = np.random.default_rng(plans)
    for i in range(plans):
        if i % 10 == 0:
            model = toys.small_resnet(shortcut, seed=i)
            groups = find_groups(model)
        plan, preserve = toys.random_plan(groups, rng), bool(i % 2)
        masked = mask(model, plan, preserve)(BATCH, training=False)
        assert distance(masked, compact(model, plan, preserve)(BATCH, training=False)) <= TOLERANCE
        if i % 5 == 0:
            assert distance(masked, narrow(model, plan, preserve)(BATCH, training=False)) <= TOLERANCE


def test_masked_equals_narrow_on_batch_statistics():
    model = toys.small_resnet("B")
    plan = toys.random_plan(find_groups(model), np.random.default_rng(3))
    one, other = (shrink(model, plan)(BATCH, training=True) for shrink in (mask, narrow))
    assert distance(one, other) <= TOLERANCE


def test_a_net_of_plain_layers():
    model, rng = toys.plain_net(), np.random.default_rng(5)
    for i in range(10):
        plan = toys.random_plan(find_groups(model), rng)
        assert distance(mask(model, plan, i % 2)(BATCH), compact(model, plan, i % 2)(BATCH)) <= TOLERANCE


def test_a_layer_that_is_called_twice():
    images, shared = keras.Input((8, 8, 3)), keras.layers.Conv2D(6, 3, padding="same", name="twice")
    x = keras.layers.ReLU()(keras.layers.Conv2D(6, 1, name="first")(images))
    x = keras.layers.GlobalAveragePooling2D()(shared(keras.layers.ReLU()(shared(x))))
    model = toys.randomised(keras.Model(images, keras.layers.Dense(3, name="logits")(x)))
    plan = make_plan(model, keep=0.5)
    assert plan.widths() == {"first": 3}
    assert distance(mask(model, plan)(BATCH), compact(model, plan)(BATCH)) <= TOLERANCE


@pytest.mark.parametrize("how", [mask, narrow, compact])
def test_preserve_norm_keeps_the_norm_of_every_kernel(how):
    model = toys.small_resnet("A")
    plan = toys.random_plan(find_groups(model), np.random.default_rng(4))
    before, after = weights_of(model), weights_of(how(model, plan, preserve_norm=True))
    for layer, arrays in before.items():
        if "kernel" in arrays:
            np.testing.assert_allclose(
                np.linalg.norm(after[layer]["kernel"]), np.linalg.norm(arrays["kernel"]), rtol=1e-5
            )
    plain = weights_of(how(model, plan))
    assert np.linalg.norm(plain["fc"]["kernel"]) < np.linalg.norm(before["fc"]["kernel"])


def test_dead_channels_are_exactly_zero():
    model = toys.small_resnet("B")
    plan = toys.random_plan(find_groups(model), np.random.default_rng(6))
    masked = mask(model, plan)
    view = keras.Model(masked.inputs, masked.get_layer("BasicBlock1.0_bn1").output)
    alive = plan.masks()["BasicBlock1.0_conv1"]
    assert np.array_equal(np.any(np.asarray(view(BATCH)) != 0, (0, 1, 2)), alive)


def test_the_originals_weights_do_not_change():
    model = toys.small_resnet("B")
    before = weights_of(model)
    for how in (mask, narrow, compact):
        how(model, make_plan(model, keep=0.5), preserve_norm=True)
    after = weights_of(model)
    assert all(np.array_equal(before[k][n], after[k][n]) for k in before for n in before[k])


def test_a_compact_model_is_plain_keras_and_survives_its_file(tmp_path):
    model = toys.small_resnet("A")
    small = compact(model, make_plan(model, "random", keep=0.6))
    assert all(type(layer).__module__.startswith("keras.") for layer in small.layers)
    assert [layer.name for layer in small.layers] == [layer.name for layer in model.layers]
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    np.testing.assert_allclose(again(BATCH, training=False), small(BATCH, training=False), atol=1e-6)


def test_without_a_plan_compact_only_turns_layers_into_plain_ones():
    model = toys.small_resnet("B")
    plain = compact(model)
    assert plain.count_params() == sum(v.numpy().size for v in model.variables if v.name != "mask")
    assert distance(model(BATCH), plain(BATCH)) <= TOLERANCE


def test_a_compact_model_can_be_pruned_again():
    model = toys.small_resnet("B")
    once = compact(model, make_plan(model, keep=0.5))
    assert compact(once, make_plan(once, keep=0.5)).get_layer("conv").filters == 4


@pytest.mark.parametrize("shortcut", ["A", "A'"])
def test_a_layer_in_front_of_zero_padding_keeps_a_channel(shortcut):
    model = toys.small_resnet(shortcut)
    stream = find_groups(model)[0]
    lacking = np.arange(16, 64)  # channels are numbered as they appear: the stem makes the first 16
    with pytest.raises(UsageError, match="leaves 'conv' without channels. Received: 48 of the 64"):
        compact(model, Plan.full(find_groups(model)).replace("conv", lacking))
    order = np.array([*lacking, *range(16)])
    assert stream.best(order, 48).tolist() == [0, *range(16, 63)]
    assert stream.best(order, 1).tolist() == [0]
    assert compact(model, make_plan(model, keep=0.01)).get_layer("conv").filters == 1


def test_the_plan_of_another_network_is_refused():
    model = toys.small_resnet("B")
    other = Plan.full(find_groups(toys.plain_net()))
    for how in (mask, narrow, compact):
        with pytest.raises(UsageError, match="This plan is for another network"):
            how(model, other)
    with pytest.raises(UsageError, match="another network.*Received: no channels in group 'conv'.* has 16"):
        complexity(model, plan=other)


def test_what_a_layers_own_mask_switches_off_stays_off():
    model = toys.resnet20("B")
    for layer in model.layers:
        if hasattr(layer, "mask"):
            layer.mask.assign(np.arange(layer.mask.shape[0]) % 3 > 0)
    masked = model(LARGE, training=False)
    assert distance(masked, compact(model)(LARGE, training=False)) <= TOLERANCE
    again = nets.load_params(None, nets.snapshot_of(model))
    assert distance(masked, again(LARGE, training=False)) <= TOLERANCE


def test_padding_of_rows_survives_that_of_channels():
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 1, name="before")(images)
    x = keras.layers.ZeroPadding2D(((1, 2), (2, 0)), data_format="channels_first")(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3, name="after")(x))
    model = toys.randomised(keras.Model(images, keras.layers.Dense(3, name="logits")(x)))
    plan = toys.random_plan(find_groups(model), np.random.default_rng(0))
    assert distance(mask(model, plan)(BATCH), compact(model, plan)(BATCH)) <= TOLERANCE


def test_a_vocabulary_goes_along():
    words = keras.layers.TextVectorization(output_sequence_length=4, name="words")
    words.adapt(["small nets", "fast nets", "small and fast"])
    text = keras.Input((), dtype="string")
    x = keras.layers.Embedding(8, 6, name="embed")(words(text))
    x = keras.layers.Conv1D(5, 2, activation="relu", name="conv")(x)
    x = keras.layers.Dense(2, name="mood")(keras.layers.GlobalMaxPooling1D()(x))
    model, batch = toys.randomised(keras.Model(text, x)), tf.constant(["fast and small", "other nets"])
    plan = make_plan(model, keep=0.5)
    assert plan.widths() == {"embed": 3, "conv": 3}
    assert distance(mask(model, plan)(batch), compact(model, plan)(batch)) <= TOLERANCE
    assert distance(model(batch), compact(model)(batch)) == 0


def test_each_half_of_a_split_keeps_a_channel():
    images = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(6, 1, name="both")(images)
    left, right = keras.ops.split(x, 2, axis=-1)
    left, right = keras.layers.Conv2D(2, 1, name="left")(left), keras.layers.Conv2D(2, 1, name="right")(right)
    model = toys.randomised(keras.Model(images, left + right))
    (group,) = find_groups(model)
    assert group.best(np.arange(6), 1).tolist() == [0, 3]
    full = Plan.full([group])
    with pytest.raises(UsageError, match="leaves 'right' without channels. Received: 3 of the 6 channels"):
        compact(model, full.replace("both", (0, 1, 2)))
    plan = full.replace("both", (1, 3, 4))
    assert distance(mask(model, plan)(BATCH), compact(model, plan)(BATCH)) <= TOLERANCE


@pytest.mark.parametrize("preserve", [False, True])
def test_what_is_cut_off_and_what_is_switched_off_may_differ(preserve):
    model = toys.small_resnet("B")
    plan = toys.random_plan(find_groups(model), np.random.default_rng(8))
    outer = plan.padded(8)
    assert outer != plan
    one, two = narrow(model, outer, preserve, alive=plan), narrow(mask(model, plan, preserve), outer)
    assert one.spec == two.spec
    for ours, theirs in zip(one.variables, two.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())


@pytest.mark.parametrize("shortcut", ["A", "B"])
def test_what_was_narrowed_can_be_put_back(shortcut):
    """Weights of a narrow network in a padded one: the same outputs, and narrow gives them back."""
    model = nets.build("ResNet-20", shortcut=shortcut)
    plan = make_plan(model, "random", keep=0.6)
    small = narrow(model, plan)
    rng = np.random.default_rng(0)
    for variable in small.trainable_variables:
        variable.assign(rng.normal(size=variable.shape, scale=0.1))
    outer = plan.padded(8)
    padded = narrow(model, outer, alive=plan)
    fill(padded, plan.within(outer), small)
    x = rng.normal(size=(4, 32, 32, 3)).astype("float32")
    assert distance(padded(x), small(x)) < 1e-4
    again = narrow(padded, plan.within(outer))
    for ours, theirs in zip(again.variables, small.variables, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
