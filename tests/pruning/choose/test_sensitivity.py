"""Sensitivity: what the gated network computes, what its curves say, and what they are good for."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur import dataloader
from secateur.nets.task import Task
from secateur.pruning import compact, complexity, make_plan, mask
from secateur.pruning.choose.ranking import Limits, Ranking
from secateur.pruning.choose.sensitivity import FREE, Sensitivity, by_sensitivity, measure_sensitivity
from secateur.pruning.groups.analysis import analyse
from secateur.pruning.score.gated import Gated
from secateur.pruning.score.scores import score_groups
from secateur.runs.errors import UsageError
from tests.helpers import toys

LAYERS = keras.layers


@pytest.fixture(scope="module")
def digits():
    """Images (n, 16, 16, 3) in [0, 1] and labels: to train on, and others."""
    splits = dataloader.load("DIGITS")
    return [
        (part.images[:, ::2, ::2] / np.float32(255), part.labels) for part in (splits.train, splits.holdout)
    ]


@pytest.fixture(scope="module")
def trained(digits):
    """A residual network that reads nine of ten digits after a few seconds."""
    keras.utils.set_random_seed(1)
    images = keras.Input((16, 16, 3))
    x = LAYERS.Conv2D(12, 3, strides=2, padding="same", activation="relu", name="stem")(images)
    y = LAYERS.Conv2D(16, 3, padding="same", activation="relu", name="inner")(x)
    y = LAYERS.Conv2D(12, 3, padding="same", name="outer")(y)
    x = LAYERS.MaxPooling2D()(LAYERS.ReLU(name="after")(LAYERS.Add()([x, y])))
    x = LAYERS.Dense(24, activation="relu", name="hidden")(LAYERS.Flatten()(x))
    model = keras.Model(images, LAYERS.Dense(10, name="logits")(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.005), loss)
    model.fit(*digits[0], batch_size=64, epochs=6, verbose=0)
    return model


@pytest.fixture(scope="module")
def curves(trained, digits):
    return measure_sensitivity(trained, "l1", data=digits[1])


@pytest.mark.parametrize("net", ["A", "B", "plain"])
def test_the_gated_network_is_the_masked_one(net):
    model = toys.plain_net() if net == "plain" else toys.small_resnet(net)
    analysis, images = analyse(model), toys.images(7)
    gated = Gated(analysis, batch_size=3)

    @settings(max_examples=8, deadline=None, derandomize=True)
    @given(st.integers(0, 999))
    def check(seed):
        plan = toys.random_plan(analysis.groups, np.random.default_rng(seed))
        expected = mask(model, plan)(images, training=False)
        np.testing.assert_allclose(gated(images, plan.masks()), expected, rtol=1e-4, atol=1e-5)

    check()
    assert gated._forward.experimental_get_tracing_count() == 1


def test_curves_are_the_accuracies_of_the_smaller_networks(trained, digits, curves):
    assert curves.whole > 0.9 and curves.images == len(digits[1][1])
    assert list(curves.curves) == ["stem", "inner", "hidden"]
    ranking = Ranking.of(analyse(trained), score_groups(trained, "l1"), Limits())
    for name, at, width in (("inner", 0, 2), ("stem", 2, 6), ("hidden", 4, 22)):  # of 16, 12 and 24
        small = compact(trained, ranking.plan({**ranking.sizes, name: width}))
        found = Task.of(small).score(digits[1][1], small.predict(digits[1][0], verbose=0))
        assert curves.curves[name][at] == pytest.approx(found, abs=1.5 / curves.images)


def test_no_other_widths_of_that_cost_lose_less_in_their_worst_group(trained, curves):
    def worst(plan):
        falls = (curves.drops(name) for name in plan.keep)
        shares = (len(kept) / plan.sizes[name] for name, kept in plan.keep.items())
        return max(
            np.interp(share, points[::-1], fall[::-1])
            for share, (fall, points) in zip(shares, falls, strict=True)
        )

    dense, groups = complexity(trained).macs, analyse(trained).groups
    rng = np.random.default_rng(0)
    others = [toys.random_plan(groups, rng) for _ in range(150)]
    for keep in (0.3, 0.5, 0.7):
        plan = make_plan(trained, keep_macs=keep, allocation=curves)
        fitting = [worst(p) for p in [plan, *others] if complexity(trained, plan=p).macs <= keep * dense]
        assert len(fitting) > 20 and fitting[0] == worst(plan)
        assert min(fitting) >= worst(plan) - 0.02  # widths are whole numbers


def test_by_name_it_is_measured_on_the_data(trained, digits, curves):
    images = digits[1][0][:100], digits[1][1][:100]
    found = make_plan(trained, keep_params=0.5, allocation="sensitivity", data=images)
    assert found == make_plan(
        trained, keep_params=0.5, allocation=measure_sensitivity(trained, "l1", data=images)
    )


def test_widths_by_hand():
    """Group "a" may lose three quarters for nothing; "b" loses a tenth of the accuracy with a quarter."""
    curves = Sensitivity((0.25, 0.75), 0.8, {"a": (0.8, 0.9), "b": (0.4, 0.7)}, 100)
    falls, shares = curves.drops("b")
    assert shares.tolist() == [1, 0.75, 0.25, 0]
    np.testing.assert_allclose(falls, [0, 0.1 + FREE / 4, 0.4 + 0.75 * FREE, 0.8 + FREE])
    orders = {"a": np.arange(100), "b": np.arange(100)}
    ranking = Ranking(orders, orders, {"a": 1, "b": 1}, {"a": 100, "b": 100}, Limits())
    rule = by_sensitivity(ranking, curves)
    dial = 1 - 0.1 / 0.8  # a tenth of the accuracy may go
    assert rule.widths(1.0) == {"a": 100, "b": 100} and rule.widths(0.0) == {"a": 1, "b": 1}
    assert rule.widths(dial)["b"] == 75 and rule.widths(dial)["a"] == pytest.approx(100 * 0.25 * 7 / 8, abs=1)
    assert rule.widths(1 - FREE / 0.8)["a"] == pytest.approx(25, abs=2)


def test_json_round_trip(curves):
    assert Sensitivity.from_json(curves.to_json()) == curves


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ratios": None}, "Sensitivity is .*Received: TypeError"),
        ({"curves": {"a": [0.1]}}, "A curve needs 2 values. Received: 1 for 'a'"),
        ({"whole": "much"}, "Received: ValueError"),
    ],
)
def test_what_is_no_sensitivity(change, message):
    with pytest.raises(UsageError, match=message):
        Sensitivity.from_json({"ratios": [0.1, 0.5], "whole": 0.9, "curves": {}, "images": 5} | change)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratios": ()}, "must lie in \\(0, 1\\). Received: ratios=\\(\\)"),
        ({"ratios": (0.5, 1)}, "Received: ratios=\\(0.5, 1.0\\)"),
        ({"data": np.zeros((2, 16, 16, 3))}, "Received: no labels"),
        ({"data": ([np.zeros((2, 16, 16, 3))] * 2, [0, 1])}, "1 inputs.*Received: 2"),
        ({"data": (np.zeros((2, 16, 16, 3)), [0, 10])}, "integers 0…9. Received: 10"),
        ({"loss": "mse"}, r"numbers by loss 'mean_squared_error' have the shape \(n, 10\). Received"),
    ],
)
def test_errors(trained, digits, options, message):
    with pytest.raises(UsageError, match=message):
        measure_sensitivity(trained, "l1", **{"data": digits[1]} | options)


def test_curves_of_another_network_are_refused():
    with pytest.raises(UsageError, match="another network.*Received: no group 'stem'"):
        make_plan(toys.plain_net(), keep=0.5, allocation=Sensitivity((0.5,), 0.9, {"x": (0.8,)}, 1))
