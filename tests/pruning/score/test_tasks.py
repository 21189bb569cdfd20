"""Gradients of the loss that a model was compiled with: of classes, labels, numbers and maps."""

import keras
import numpy as np
import pytest

from secateur.pruning import compact, make_plan
from secateur.pruning.choose.sensitivity import measure_sensitivity
from secateur.pruning.score.scores import score_groups
from secateur.pruning.search.trial import PlanScorer
from secateur.runs.errors import UsageError
from tests.helpers import toys

L = keras.layers
RNG = np.random.default_rng(0)
N = 24
IMAGES = toys.images(N)
INTEGERS, TAGS = np.arange(N) % 3, (RNG.random((N, 6)) < 0.4).astype(np.float32)
PLACES, AGES = RNG.normal(size=(N, 3)).astype(np.float32), RNG.uniform(18, 90, N).astype(np.float32)
PIXELS = RNG.integers(3, size=(N, 8, 8))


def net(units, activation=None):
    images = keras.Input((8, 8, 3))
    x = L.Conv2D(10, 3, activation="relu", name="conv")(images)
    x = L.Dense(units, activation=activation, name="out")(L.GlobalAveragePooling2D()(x))
    return toys.randomised(keras.Model(images, x))


def segmenter(activation=None):
    images = keras.Input((8, 8, 3))
    x = L.Conv2D(10, 3, padding="same", activation="relu", name="conv")(images)
    return toys.randomised(keras.Model(images, L.Conv2D(3, 1, activation=activation, name="out")(x)))


def squares(labels, outputs):
    labels = keras.ops.reshape(keras.ops.cast(labels, "float32"), keras.ops.shape(outputs))
    return keras.ops.mean(keras.ops.square(labels - outputs), -1)


def binary_of_logits(labels, outputs):
    return keras.ops.mean(keras.ops.binary_crossentropy(labels, outputs, from_logits=True), -1)


def sparse_of_logits(labels, outputs):
    losses = keras.ops.sparse_categorical_crossentropy(labels, outputs, from_logits=True)
    return keras.ops.mean(losses, tuple(range(1, len(losses.shape))) or None)


def taylor(model, labels, **options):
    return score_groups(model, "taylor", data=(IMAGES, labels), **options)["conv"]


CASES = {
    "places": (net(3), "mse", squares, PLACES),
    "an age": (net(1), keras.losses.MeanSquaredError(), squares, AGES),
    "own loss": (net(3), squares, squares, PLACES),
    "tags": (net(6), "binary_crossentropy", binary_of_logits, TAGS),
    "own tags": (net(6), binary_of_logits, binary_of_logits, TAGS),
    "pixels": (segmenter(), "sparse_categorical_crossentropy", sparse_of_logits, PIXELS),
    "classes": (
        net(3), keras.losses.SparseCategoricalCrossentropy(from_logits=True), sparse_of_logits, INTEGERS,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_scores_are_those_of_the_compiled_loss(case):
    model, compiled, explicit, labels = CASES[case]
    expected = taylor(model, labels, loss=explicit)
    np.testing.assert_allclose(taylor(model, labels, loss=compiled), expected, rtol=1e-4)
    model.compile("sgd", compiled)
    np.testing.assert_allclose(taylor(model, labels), expected, rtol=1e-4)
    plan = make_plan(model, "taylor", keep=0.5, data=(IMAGES, labels))
    assert plan.keep["conv"] == tuple(np.sort(np.argsort(-expected)[:5]))
    assert compact(model, plan).output_shape == model.output_shape


def test_a_loss_that_is_said_comes_before_the_compiled_one():
    model = net(3)
    expected = taylor(model, INTEGERS)
    model.compile("sgd", "mse")
    found = taylor(model, INTEGERS, loss="sparse_categorical_crossentropy")
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    ages = taylor(model, PLACES, loss="mae")
    assert not np.allclose(ages, taylor(model, PLACES), rtol=1e-2)


def test_shares_have_the_scores_of_their_logits():
    for labels, logits, activation in (
        (INTEGERS, net(3), "softmax"),
        (TAGS[:, 0], net(1), "sigmoid"),
        (PIXELS, segmenter(), "softmax"),
    ):
        shares = segmenter(activation) if labels is PIXELS else net(logits.output_shape[-1], activation)
        shares.set_weights(logits.get_weights())
        np.testing.assert_allclose(taylor(shares, labels), taylor(logits, labels), rtol=1e-3)


def r2(labels, outputs):
    return 1 - ((labels - outputs) ** 2).sum(0) / ((labels - labels.mean(0)) ** 2).sum(0)


@pytest.mark.parametrize(
    ("case", "score"),
    [
        ("places", lambda labels, outputs: r2(labels, outputs).mean()),
        ("tags", lambda labels, outputs: np.mean((outputs > 0) == labels)),
        ("pixels", lambda labels, outputs: np.mean(outputs.argmax(-1) == labels)),
        ("own loss", lambda labels, outputs: -((labels - outputs) ** 2).mean()),
    ],
)
def test_plans_and_groups_are_measured_by_the_task(case, score):
    model, loss, _, labels = CASES[case]
    plan = make_plan(model, "l1", keep=0.5)
    expected = score(labels, compact(model, plan)(IMAGES, training=False).numpy())
    options = {"data": (IMAGES, labels), "loss": loss}
    assert PlanScorer(model, **options)(plan) == pytest.approx(expected, rel=1e-3)
    curves = measure_sensitivity(model, "l1", ratios=(0.5,), **options)
    assert curves.curves["conv"][0] == pytest.approx(expected, rel=1e-3)
    assert curves.whole == pytest.approx(score(labels, model(IMAGES).numpy()), rel=1e-3)


def test_accuracy_of_logits_is_that_of_the_sigmoid_behind_them():
    logits, shares = net(1), net(1, "sigmoid")
    bias = logits.get_layer("out").bias
    bias.assign(bias - np.median(logits(IMAGES)))
    shares.set_weights(logits.get_weights())
    labels = (RNG.random(N) > 0.5).astype(int)
    data = IMAGES, labels
    found = [measure_sensitivity(m, "l1", data=data, ratios=(0.5,)).whole for m in (logits, shares)]
    found += [PlanScorer(m, data)(make_plan(m, "l1", keep=1.0)) for m in (logits, shares)]
    outputs = [m.predict(IMAGES, verbose=0) > 0.5 for m in (logits, shares)]
    assert (outputs[0] != outputs[1]).any() and len(set(found)) == 1


@pytest.mark.parametrize(
    ("units", "labels", "options", "message"),
    [
        (3, INTEGERS + 1, {}, "integers 0…2. Received: 3"),
        (3, INTEGERS - 1, {}, "integers 0…2. Received: -1"),
        (3, PLACES, {}, "loss='mse'"),
        (1, AGES, {}, "0 or 1. Received: .*loss='mse'"),
        (6, TAGS, {}, "loss='binary_crossentropy'"),
        (3, INTEGERS, {"loss": "mse"}, r"for numbers .* shape \(n, 3\). Received: \(24,\)"),
        (3, np.eye(3)[INTEGERS], {"loss": "sparse_categorical_crossentropy"}, "reads integers"),
        (3, INTEGERS, {"loss": "categorical_crossentropy"}, "reads one-hot"),
        (3, INTEGERS, {"loss": "crossentropy"}, "Unknown loss.*Did you mean"),
    ],
)
def test_labels_that_no_loss_can_read_are_named(units, labels, options, message):
    with pytest.raises(UsageError, match=message) as error:
        make_plan(net(units), "taylor", keep=0.5, data=(IMAGES, labels), **options)
    assert len(str(error.value).splitlines()) <= 2
