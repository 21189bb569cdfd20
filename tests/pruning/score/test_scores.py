"""From a model to scores: what is looked at is what an independent program finds in the same network."""

import tracemalloc

import keras
import numpy as np
import pytest
import tensorflow as tf

from secateur.pruning.groups.analysis import analyse
from secateur.pruning.score import batches
from secateur.pruning.score.batches import fitting
from secateur.pruning.score.registry import CRITERIA, criterion, get_criterion, list_criteria
from secateur.pruning.score.scores import normalised, reduced, score_groups
from secateur.pruning.shrink.weights import weights_of
from secateur.runs.errors import UsageError
from tests.helpers import toys

CLASSES = 4


@pytest.fixture(scope="module")
def model():
    return toys.plain_net()


@pytest.fixture(scope="module")
def data():
    return toys.images(12), np.arange(12) % CLASSES


def loss_of(model, data):
    losses = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return losses(data[1], model(data[0], training=False))


def raw(model, name, data=None, **options):
    return score_groups(model, name, data=data, normalise="none", **options)


def test_taylor_and_nggm_see_the_gradient_of_the_mean_loss(model, data):
    kernel = model.get_layer("inner").kernel.value
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        loss = loss_of(model, data)
    gradient = tape.gradient(loss, kernel).numpy()
    expected = ((kernel.numpy() * gradient) ** 2).sum((0, 1, 2))
    np.testing.assert_allclose(raw(model, "taylor", data)["inner"], expected, rtol=1e-3)
    norm = np.abs(gradient).sum((0, 1, 2))
    with_gradient, without = (raw(model, name, data)["inner"] for name in ("g_gm_2", "fpgm_squared"))
    np.testing.assert_allclose(with_gradient - without, norm, rtol=1e-3)
    halves = raw(model, "g_gm_2", data, batch_size=5)["inner"]
    np.testing.assert_allclose(halves, with_gradient, rtol=1e-5)


def test_gate_taylor_is_the_slope_of_the_loss_when_a_channel_is_turned_down(model, data):
    kernel = model.get_layer("outer").kernel.value  # reads nothing but "inner": turned down as the channel is
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        loss = loss_of(model, data)
    slopes = (kernel * tape.gradient(loss, kernel)).numpy().sum((0, 1, 3))
    np.testing.assert_allclose(raw(model, "gate_taylor", data)["inner"], np.abs(slopes), rtol=1e-3, atol=1e-5)


def test_activations_are_those_behind_the_non_linearity(model, data):
    maps = keras.Model(model.inputs, model.get_layer("inner").output)(data[0]).numpy()
    np.testing.assert_allclose(
        raw(model, "mean_activation", data[0])["inner"], maps.mean((0, 1, 2)), rtol=1e-4
    )
    for batch_size in (3, 128):
        found = raw(model, "apoz", data[0], batch_size=batch_size)["inner"]
        np.testing.assert_allclose(found, (maps > 0).mean((0, 1, 2)), rtol=1e-6)


def test_a_group_is_scored_over_all_that_it_consists_of(model):
    weights = weights_of(model)
    made = [np.abs(weights[name]["kernel"]).sum((0, 1, 2)) for name in ("stem", "outer")]
    read = np.abs(weights["inner"]["kernel"]).sum((0, 1, 3))
    gamma = np.abs(weights["stem_bn"]["gamma"])
    dense = np.abs(weights["hidden"]["kernel"]).sum(1).reshape(-1, 6).sum(0)  # of all positions that it reads
    rows = {"sum": np.sum, "mean": np.mean, "max": np.max, "first": lambda parts, axis: parts[0]}
    for name, reduction in rows.items():
        found = raw(model, "l1", reduce=name)["stem"]
        np.testing.assert_allclose(found, reduction(made, axis=0), rtol=1e-5)
    np.testing.assert_allclose(
        raw(model, "group_l1")["stem"], np.mean([*made, read, gamma, dense], axis=0), rtol=1e-5
    )


def test_bn_scale_leaves_out_what_has_no_normalisation(model):
    found = raw(model, "bn_scale")
    assert found.keys() == {"stem"}
    np.testing.assert_allclose(found["stem"], np.abs(model.get_layer("stem_bn").gamma.numpy()))


@pytest.mark.parametrize(
    "name", [n for n in list_criteria() if get_criterion(n).needs_data and get_criterion(n).batches != "sum"]
)
def test_what_is_no_sum_over_batches_does_not_depend_on_their_size(model, data, name):
    whole = raw(model, name, data)
    for batch_size in (1, 5, 12):
        for group, scores in raw(model, name, data, batch_size=batch_size).items():
            np.testing.assert_allclose(scores, whole[group], rtol=1e-4, atol=1e-6)


def test_the_images_that_fit_into_memory_by_hand(model):
    analysis, images = analyse(model), toys.images(1)
    numbers = 64 * (3 + 6 + 6 + 6 + 5 + 6 + 6 + 6) + 16 * (6 + 6) + 7 + 4  # from the images to the logits
    assert fitting(analysis, images, memory=10 * 8 * numbers) == 10  # 4 bytes, and as many for the gradient
    assert fitting(analysis, images, memory=10 * 8 * numbers - 1) == 9
    assert (fitting(analysis, images, memory=1), fitting(analysis, images)) == (1, 128)


@pytest.mark.parametrize("name", ["taylor", "g_a", "apoz", "mean_activation"])
def test_little_memory_changes_no_score(model, data, name, monkeypatch):
    expected = raw(model, name, data)
    monkeypatch.setattr(batches, "MEMORY", 10**5)
    assert fitting(analyse(model), data[0]) == 4
    for group, scores in raw(model, name, data).items():
        np.testing.assert_allclose(scores, expected[group], rtol=1e-4, atol=1e-6)


def test_gradients_of_many_chunks_take_the_memory_of_a_few():
    units = 256
    x = keras.Input((units,))
    y = keras.layers.Dense(units, activation="relu")(keras.layers.Dense(units, activation="relu")(x))
    net = keras.Model(x, keras.layers.Dense(2)(y))
    analysis, kernel = analyse(net), 4 * units**2

    def peak(count: int) -> int:
        data = np.ones((count, units), np.float32), np.zeros(count, int)
        tracemalloc.start()
        raw(net, "g_gm_2", data, analysis=analysis, batch_size=1)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(2)  # what is made once
    assert peak(2) > 2 * kernel and peak(12) < peak(2) + kernel


def test_reduction_and_normalisation_by_hand():
    rows = [
        (np.array([1.0, 2.0, 4.0]), np.array([0, 1, 1])),  # two positions are of channel 1: added up
        (np.array([-3.0, 5.0, 9.0]), np.array([2, 0, -1])),  # the last position is another group's
    ]
    expected = {
        "sum": [6, 6, -3, 0],
        "mean": [3, 6, -3, 0],
        "max": [5, 6, -3, 0],
        "first": [1, 6, -3, 0],
    }
    for how, scores in expected.items():
        assert reduced(rows, 4, how).tolist() == scores
    scores = np.array([1.0, -4.0, 3.0])
    assert normalised(scores, "sum").tolist() == [1 / 8, -1 / 2, 3 / 8]
    assert normalised(scores, "max").tolist() == [1 / 4, -1, 3 / 4]
    assert normalised(scores, "mean").tolist() == [3 / 8, -3 / 2, 9 / 8]
    assert normalised(np.zeros(2), "mean").tolist() == [0, 0]


def test_scoring_changes_nothing(model, data):
    before = [v.numpy() for v in model.variables]
    for name in ("nggm", "gate_taylor", "taylor", "group_l2"):
        raw(model, name, data)
    assert all(np.array_equal(a, v.numpy()) for a, v in zip(before, model.variables, strict=True))


def test_other_losses_and_several_inputs(data):
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    dense = keras.layers.Dense(5, activation="relu", name="shared")
    made = keras.layers.Dense(2, name="out")(keras.layers.Subtract()([dense(left), dense(right)]))
    siamese = toys.randomised(keras.Model([left, right], made))
    x = [np.random.default_rng(i).normal(size=(6, 4)).astype(np.float32) for i in range(2)]
    y = np.ones((6, 2), np.float32)

    def squares(labels, outputs):
        return tf.reduce_sum((labels - outputs) ** 2, -1)

    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(squares(y, siamese(x)))
    gradient = tape.gradient(loss, dense.kernel.value)
    expected = ((dense.kernel.numpy() * gradient.numpy()) ** 2).sum(0)
    np.testing.assert_allclose(raw(siamese, "taylor", (x, y), loss=squares)["shared"], expected, rtol=1e-4)


def test_a_residual_stream_has_one_score(data):
    net = toys.small_resnet("A")
    sizes = {group.name: group.size for group in analyse(net).groups}
    found = score_groups(net, "apoz", data=data[0])
    assert {name: len(s) for name, s in found.items()} == sizes


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("apoz", {}, "'apoz' looks at images: give data=images. Received: data=None"),
        ("taylor", {"data": toys.images(2)}, "'taylor' needs the gradient of a loss.*Received: no labels"),
        ("taylor", {"data": (toys.images(2), [1])}, "as many labels as images.*Received: \\[1, 2\\]"),
        ("l1", {"reduce": "median"}, "Unknown reduce. Received: reduce='median'"),
        ("l1", {"normalise": "min"}, "Unknown normalise. Received: normalise='min'"),
        ("L1", {}, "criterion='L1'. Did you mean 'l1'"),
        ("nan", {}, "'nan' gives scores that are not finite. Received: group 'stem'"),
        (
            "scalar",
            {},
            "'scalar' must give one score for each channel, shape \\(6,\\). Received: shape \\(\\)",
        ),
        ("taylor", {"data": tf.data.Dataset.range(2)}, "data needs arrays.*Received: _RangeDataset"),
    ],
)
def test_errors(model, monkeypatch, name, options, message):
    monkeypatch.setattr(CRITERIA, "_entries", dict(CRITERIA._entries))
    criterion(lambda filters: np.full(len(filters), np.nan), name="nan")
    criterion(lambda filters: filters.sum(), name="scalar")
    with pytest.raises(UsageError, match=message):
        score_groups(model, name, **options)


def test_a_criterion_gets_no_more_than_it_asks_for(model, data, monkeypatch):
    monkeypatch.setattr(CRITERIA, "_entries", dict(CRITERIA._entries))
    criterion(
        lambda activation_gradients: (activation_gradients**2).sum((0, 1)), name="slopes", batches="sum"
    )
    assert all((scores >= 0).all() for scores in raw(model, "slopes", data).values())
