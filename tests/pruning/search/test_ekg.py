"""EKG's search: against a literal reference, and what must hold of any search."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from secateur.pruning.search.ekg import Searcher, SearchState
from secateur.pruning.search.settings import SearchSettings
from secateur.runs.errors import TrainingError, UsageError
from tests.helpers import toys
from tests.helpers.ekg_reference import Reference

pytestmark = pytest.mark.runs
IMAGES, LABELS = toys.images(40, 16), np.random.default_rng(1).integers(0, 10, 40)
SETTINGS = SearchSettings(target=0.6, batch_size=16)  # batches of 16, 16 and 8


@pytest.fixture(scope="module")
def model():
    return toys.small_resnet("B", depth=14, side=16)


@pytest.fixture(scope="module")
def small():
    return toys.small_resnet("B")


def search(model, settings, images=None):
    """All states, the first included, and the searcher."""
    side = model.input_shape[1]
    images = toys.images(24, side) if images is None else images
    searcher = Searcher(model, images, LABELS[: len(images)], settings)
    start = searcher.start()
    return [start, *searcher.run(start)], searcher


def traces(chain) -> list[int]:
    return [f.experimental_get_tracing_count() for f in (*chain._run, chain._score)]


def test_the_first_steps_equal_the_literal_reference(model):
    steps = 7
    reference = Reference(model, 14, IMAGES, LABELS, SETTINGS.batch_size, SETTINGS.step, SETTINGS.target)
    reference.run(steps)
    searcher = Searcher(model, IMAGES, LABELS, SETTINGS)
    assert searcher.dense_macs == reference.flops
    state = searcher.start()
    for name, kept, loss, score in reference.history:
        state = searcher.step(state)
        last = state.history[-1]
        assert (last.group, list(last.plan.keep[name])) == (name, kept)
        np.testing.assert_allclose([last.loss, last.score], [loss, score], rtol=1e-4)
    assert len(reference.history) == steps
    np.testing.assert_allclose(state.teacher, reference.teacher, atol=1e-4 * np.abs(reference.teacher).max())
    assert max(traces(searcher.chain)) == 1


def test_the_end_of_a_search_equals_the_reference(model):
    target = 0.93  # a few steps, the last of which gives channels back
    reference = Reference(model, 14, IMAGES, LABELS, 16, 0.2, target)
    reference.run(100)
    states, searcher = search(model, dataclasses.replace(SETTINGS, target=target), IMAGES)
    ours = [(i.group, list(i.plan.keep[i.group])) for i in states[-1].history[1:]]
    assert ours == [(name, kept) for name, kept, _, _ in reference.history]
    assert states[-1].history[-1].macs == reference.count()


@pytest.mark.parametrize("shortcut", ["A", "A'", "B"])
@pytest.mark.parametrize("target", [0.3, 0.62, 0.9])
def test_a_search_ends_below_the_target_by_less_than_a_channel(shortcut, target):
    states, searcher = search(toys.small_resnet(shortcut), SearchSettings(target, batch_size=12))
    last = states[-1].history[-1]
    assert last.macs <= target * searcher.dense_macs < states[-2].history[-1].macs
    kept, before = set(last.plan.keep[last.group]), set(states[-2].plan.keep[last.group])
    cheapest = min(
        searcher.counter.macs(last.plan.replace(last.group, kept | {channel}).masks())
        for channel in before - kept
    )
    if shortcut == "B":  # elsewhere a channel of the stream costs more or less by the stages that have it
        assert cheapest > target * searcher.dense_macs
    assert [i.macs for i in states[-1].history] == sorted((i.macs for i in states[-1].history), reverse=True)
    for one, other in zip(states, states[1:], strict=False):
        changed = one.plan.diff(other.plan)
        assert set(changed) == {other.history[-1].group}
        assert all(set(other.plan.keep[n]) <= set(one.plan.keep[n]) for n in one.plan.keep)
    assert max(traces(searcher.chain)) == 1


def test_the_teacher_is_the_plain_mean_of_all_interim_logits(small):
    images = toys.images(24)
    states, searcher = search(small, SearchSettings(0.5, batch_size=12), images)
    logits = [searcher.logits_of(i.plan, images, tf.constant, 12) for i in states[-1].history]
    scale = np.abs(states[-1].teacher).max()
    np.testing.assert_allclose(states[-1].teacher, np.mean(logits, 0), atol=1e-5 * scale)
    on_labels = tf.nn.sparse_softmax_cross_entropy_with_logits(LABELS[:24], logits[-1])
    assert states[-1].history[-1].loss == pytest.approx(float(tf.reduce_mean(on_labels)), rel=1e-4)


def test_a_resumed_search_continues_in_the_same_bits(small):
    settings = SearchSettings(0.5, batch_size=12)
    states, _ = search(small, settings)
    middle = states[len(states) // 2]
    rates = json.loads(json.dumps(dict(middle.rates)))
    saved = SearchState(rates, middle.teacher.copy(), middle.history)
    again = list(Searcher(small, toys.images(24), LABELS[:24], settings).run(saved))
    assert again[-1].history == states[-1].history
    assert np.array_equal(again[-1].teacher, states[-1].teacher)
    assert list(Searcher(small, toys.images(24), LABELS[:24], settings).run(again[-1])) == []


def test_round_to_8_ends_on_multiples_of_8(small):
    states, _ = search(small, SearchSettings(0.4, batch_size=12, round_to=8))
    assert all(width % 8 == 0 for state in states for width in state.plan.widths().values())


def test_bfloat16_starts_from_nearly_the_same_numbers_and_ends(small):
    wide, _ = search(small, SearchSettings(0.7, batch_size=12))
    half, searcher = search(small, SearchSettings(0.7, batch_size=12, dtype="bfloat16"))
    assert half[0].history[0].loss == pytest.approx(wide[0].history[0].loss, rel=0.05)
    assert half[0].history[0].loss != wide[0].history[0].loss
    assert half[-1].history[-1].macs <= searcher.target_macs


def test_one_group_of_48_channels_goes_channel_by_channel():
    # EKG's rounding of rates to 5 decimals would stand still: ⌈48 · 0.97917⌉ = 48.
    images = keras.Input((4, 4, 3))
    x = keras.layers.ReLU()(keras.layers.Conv2D(48, 1, name="only")(images))
    logits = keras.layers.Dense(10, name="logits")(keras.layers.GlobalAveragePooling2D()(x))
    states, _ = search(
        toys.randomised(keras.Model(images, logits)), SearchSettings(0.5, step=0.001, batch_size=12)
    )
    assert [i.width for i in states[-1].history[1:]] == list(range(47, 23, -1))


def test_a_net_of_plain_layers_is_searched_as_keras_evaluates_it():
    model, images = toys.plain_net(), toys.images(24)
    searcher = Searcher(model, images, LABELS[:24] % 4, SearchSettings(0.5, batch_size=24))
    state = searcher.start()
    expected = model(images, training=True).numpy()
    np.testing.assert_allclose(state.teacher, expected, atol=1e-5 * np.abs(expected).max())
    assert list(searcher.run(state))[-1].history[-1].macs <= searcher.target_macs


def test_layers_with_unusual_options_are_searched_as_keras_evaluates_them():
    layers = keras.layers
    images = keras.Input((8, 8, 3))
    x = layers.BatchNormalization(scale=False)(layers.Conv2D(6, 3, name="a")(images))
    x = layers.ReLU(negative_slope=0.1)(x)
    x = layers.ReLU(threshold=0.2)(layers.BatchNormalization(center=False)(layers.Conv2D(6, 3, name="b")(x)))
    x = layers.GlobalAveragePooling2D(keepdims=True)(x)
    x = layers.Flatten()(layers.Conv2D(8, 1, activation="relu", name="c")(x))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Dense(9, name="d")(x)))
    model = toys.randomised(keras.Model(images, layers.Dense(10, name="logits")(x)))
    searcher = Searcher(model, toys.images(24), LABELS[:24], SearchSettings(0.6, batch_size=24))
    state = searcher.start()
    expected = model(toys.images(24), training=True).numpy()
    np.testing.assert_allclose(state.teacher, expected, atol=1e-5 * np.abs(expected).max())


def test_two_layers_that_feed_disjoint_channels_of_a_group_end_the_search():
    """Behind front and back padding every width below two would leave a layer without channels."""
    layers = keras.layers
    images = keras.Input((4, 4, 3))
    front, back = (layers.ReLU()(layers.Conv2D(2, 1, name=name)(images)) for name in ("one", "other"))
    front = layers.ZeroPadding2D(((0, 0), (2, 0)), data_format="channels_first")(front)
    back = layers.ZeroPadding2D(((0, 0), (0, 2)), data_format="channels_first")(back)
    x = layers.GlobalAveragePooling2D()(layers.ReLU()(layers.Add()([front, back])))
    model = toys.randomised(keras.Model(images, layers.Dense(10, name="logits")(x)))
    states, searcher = search(model, SearchSettings(0.55, step=1.0, batch_size=12))
    assert states[-1].plan.widths() == {"one": 2}
    assert len(states) <= 4


def test_logits_that_are_not_finite_end_the_search():
    broken = toys.small_resnet("B")
    broken.get_layer("fc").bias.assign([np.nan] * 10)
    searcher = Searcher(broken, toys.images(24), LABELS[:24], SearchSettings(0.5, batch_size=12))
    with pytest.raises(TrainingError, match="not finite"):
        searcher.step(searcher.start())


def test_unreachable_targets_are_refused(small):
    with pytest.raises(UsageError, match="smallest sub-network keeps 0.0.*Received: target_rate=0.001"):
        Searcher(small, toys.images(4), LABELS[:4], SearchSettings(0.001))
