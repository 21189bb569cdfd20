"""Searches of networks that are no ResNet: several inputs and outputs, other losses, other layers."""

import keras
import numpy as np
import pytest

import secateur
from secateur.pruning import compact, complexity
from secateur.pruning.groups.analysis import analyse
from secateur.pruning.score.scores import score_groups
from secateur.pruning.search.annealing import Annealer
from secateur.pruning.search.annealing_state import AnnealingSettings
from secateur.pruning.search.ekg import Searcher
from secateur.pruning.search.netadapt import NetAdapt
from secateur.pruning.search.rewards import Reward
from secateur.pruning.search.settings import SearchSettings
from secateur.pruning.search.trial import PlanScorer
from secateur.runs.errors import UsageError
from tests.helpers import random_nets, spaces, toys
from tests.helpers.batch_statistics import outputs_in_training

pytestmark = pytest.mark.runs
L = keras.layers
RNG = np.random.default_rng(0)
IMAGES, LABELS = toys.images(24), RNG.integers(0, 3, 24)
SETTINGS = SearchSettings(0.7, batch_size=12)


def two_inputs() -> keras.Model:
    """A U-Net over images, and numbers that are read at its end."""
    images, numbers = keras.Input((8, 8, 3), name="images"), keras.Input((4,), name="numbers")
    skip = L.ReLU()(L.BatchNormalization()(L.Conv2D(8, 3, padding="same", name="down1")(images)))
    x = L.ReLU()(
        L.BatchNormalization()(L.Conv2D(12, 3, padding="same", name="down2")(L.MaxPooling2D()(skip)))
    )
    x = L.Conv2DTranspose(6, 2, strides=2, name="up")(x)
    x = L.ReLU()(L.SeparableConv2D(10, 3, padding="same", name="join")(L.Concatenate()([x, skip])))
    x = L.Concatenate()(
        [L.GlobalAveragePooling2D()(x), L.Dense(5, activation="tanh", name="beside")(numbers)]
    )
    return keras.Model([images, numbers], L.Dense(3, name="classes")(x))


def two_outputs() -> keras.Model:
    images = keras.Input((8, 8, 3))
    x = L.ReLU()(L.BatchNormalization()(L.Conv2D(8, 3, name="trunk")(images)))
    y = L.GlobalAveragePooling2D()(L.ReLU()(L.Conv2D(6, 3, name="branch")(x)))
    x = L.Dense(7, activation="relu", name="hidden")(L.Flatten()(L.MaxPooling2D()(x)))
    return keras.Model(images, {"kind": L.Dense(3)(x), "size": L.Dense(2)(y)})


def vgg() -> keras.Model:
    block = [L.Conv2D(8, 3, activation="relu"), L.BatchNormalization(), L.MaxPooling2D(), L.Dropout(0.5)]
    more = [L.Conv2D(12, 3, groups=2, use_bias=False), L.BatchNormalization(), L.PReLU(), L.Flatten()]
    return keras.Sequential(
        [keras.Input((8, 8, 3)), *block, *more, L.Dense(9, activation="gelu"), L.Dense(3)]
    )


def made(build) -> keras.Model:
    model = build()
    random_nets.randomise(model, np.random.default_rng(0))
    return model


def search(model, images, labels, reward=None, settings=SETTINGS):
    """All states of a search that was found to go as it must."""
    searcher = Searcher(model, images, labels, settings, reward)
    states = [(start := searcher.start()), *searcher.run(start)]
    last = states[-1].history[-1]
    assert last.macs <= settings.target * searcher.dense_macs < states[-2].history[-1].macs
    assert last.macs == complexity(compact(model, last.plan), "ekg").macs
    functions = (*searcher.chain._run, searcher.chain._score)
    assert {f.experimental_get_tracing_count() for f in functions} == {1}
    return states


NUMBERS = RNG.normal(size=(24, 4)).astype(np.float32)


def test_several_inputs_by_their_places_and_by_their_names():
    model = made(two_inputs)
    listed = search(model, [IMAGES, NUMBERS], LABELS)
    named = search(model, {"numbers": NUMBERS, "images": IMAGES}, LABELS)
    assert listed[-1].history == named[-1].history
    halves = [[x[part] for x in (IMAGES, NUMBERS)] for part in (slice(12), slice(12, None))]
    expected = [outputs_in_training(model, half)[0] for half in halves]
    np.testing.assert_allclose(listed[0].teacher, np.concatenate(expected), atol=1e-4)


def test_the_logits_of_any_images_in_batches_as_the_search_sees_them():
    searcher = Searcher(made(two_inputs), [IMAGES, NUMBERS], LABELS, SETTINGS)
    state = searcher.start()
    again = searcher.logits_of(state.plan, [IMAGES, NUMBERS], lambda x: x, 12)
    np.testing.assert_array_equal(again, state.teacher)


def test_several_outputs():
    labels = {"kind": LABELS, "size": RNG.normal(size=(24, 2))}
    with_own = Reward.of(
        "own", lambda y, z: Reward.of("classes").losses(y["kind"], z["kind"]) + z["size"][:, 0] ** 2
    )
    states = search(made(two_outputs), IMAGES, labels, with_own)
    assert {name: y.shape for name, y in states[-1].teacher.items()} == {"kind": (24, 3), "size": (24, 2)}
    assert states[0].history[0].accuracy == -states[0].history[0].loss


@pytest.mark.parametrize(
    ("kind", "labels"),
    [
        ("labels", (RNG.uniform(size=(24, 3)) > 0.5).astype(int)),
        ("numbers", RNG.normal(size=(24, 3))),
    ],
)
def test_other_losses(kind, labels):
    states = search(made(vgg), IMAGES, labels, Reward.of(kind))
    outputs = states[0].teacher
    assert states[0].history[0].loss == pytest.approx(
        np.mean(Reward.of(kind).losses(labels, outputs)), rel=1e-5
    )


def test_a_candidates_score_is_its_mean_reward():
    """Sequential, non-linearities in front of BN, groups of a convolution, PReLU, Flatten."""
    model = made(vgg)
    searcher = Searcher(model, IMAGES, LABELS, SETTINGS)
    start = searcher.start()
    state = searcher.step(start)
    logits = searcher.logits_of(state.plan, IMAGES, lambda x: x, 12)
    expected = np.mean(Reward.of("classes")(LABELS, start.teacher, logits))
    assert state.history[-1].score == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "MobileNetV2",
        "EfficientNetB0",
        "DenseNet121",
        "MobileNetV3Small",
        "ConvNeXtTiny",
        "ResNet50V2",
        "Xception",
    ],
)
def test_networks_of_keras_applications(name):
    side = 71 if name == "Xception" else 32
    sizes = {"input_shape": (side, side, 3), "classes": 10, "classifier_activation": None}
    model = made(lambda: getattr(keras.applications, name)(weights=None, **sizes))
    searcher = Searcher(model, toys.images(24, side), np.arange(24) % 10, SearchSettings(0.9, batch_size=12))
    first = searcher.step(searcher.start())
    assert first.history[-1].macs < searcher.dense_macs and first.plan.diff(searcher.full)


@pytest.mark.parametrize("last", ["softmax", "sigmoid"])
def test_shares_are_refused_where_logits_are_compared(last):
    images = keras.Input((8, 8, 3))
    x = L.GlobalAveragePooling2D()(L.Conv2D(8, 3)(images))
    for model in (
        keras.Model(images, L.Dense(3, activation=last)(x)),
        keras.Model(images, L.Activation(last)(L.Dense(3)(x))),
    ):
        with pytest.raises(UsageError, match=f"Received: an output behind {last}"):
            Searcher(model, IMAGES, LABELS, SETTINGS)
        Searcher(model, IMAGES, np.zeros((24, 3)), SETTINGS, Reward.of("numbers"))


class Odd(L.Layer):
    def call(self, x):
        return x


def test_what_cannot_be_counted_is_named_before_the_search():
    def cost(rule, call, n_in, n_out):
        return call.layer.no_such_size, 0

    secateur.register_layer(Odd, cost=cost)
    images = keras.Input((8, 8, 3))
    x = L.GlobalAveragePooling2D()(Odd(name="odd")(L.Conv2D(8, 3)(images)))
    with pytest.raises(
        UsageError, match=r"Layer 'odd' of class .*Odd cannot be counted: 'Odd' object has no"
    ):
        Searcher(keras.Model(images, L.Dense(3)(x)), IMAGES, LABELS, SETTINGS)


@pytest.mark.parametrize("build", [two_inputs, vgg])
def test_netadapt_and_annealing_search_them_too(build):
    model = made(build)
    data = ([IMAGES, NUMBERS] if build is two_inputs else IMAGES, LABELS)
    analysis = analyse(model)
    scores = score_groups(model, "gate_taylor", analysis=analysis, data=data)
    space = spaces.space_in(analysis, scores, "keep_macs", 0.7)
    score = PlanScorer(model, data, analysis=analysis)
    adapted = list(NetAdapt(space, score, 0.1).run())[-1]
    annealer = Annealer(space, score, AnnealingSettings(tries=4))
    tried = list(annealer.run(annealer.start(np.random.default_rng(0))))[-1].best
    for found in (adapted, tried):
        small = compact(model, found.plan)
        assert complexity(small).macs == found.cost <= 0.7 * complexity(model).macs
        assert found.accuracy == np.mean(np.argmax(small(data[0], training=False), 1) == LABELS)
