"""Budgets are met from below and not wasted; scores are the papers'."""

import keras
import numpy as np
import pytest

from secateur.pruning import complexity, make_plan
from secateur.pruning.choose.ranking import Limits
from secateur.pruning.score.scores import score_groups
from secateur.pruning.shrink.weights import weights_of
from secateur.runs.errors import UsageError
from tests.helpers import toys


@pytest.fixture(scope="module")
def model():
    return toys.small_resnet("B", depth=20, side=16)


def net_with(kernel) -> keras.Model:
    """One convolution 1×1 with the given kernel (in, out) in front of the logits."""
    images = keras.Input((4, 4, len(kernel)))
    x = keras.layers.Conv2D(len(kernel[0]), 1, use_bias=False, name="c")(images)
    model = keras.Model(images, keras.layers.Dense(2, name="logits")(x))
    model.get_layer("c").kernel.assign(np.array(kernel, np.float32)[None, None])
    return model


@pytest.mark.parametrize(
    ("criterion", "scores", "kept"),
    [("l1", [5.0, 6.0, 7.0], (1, 2)), ("l2", [5.0, np.sqrt(18.0), np.sqrt(25.0)], (0, 2))],
)
def test_l1_and_l2_by_hand(criterion, scores, kept):
    model = net_with([[5.0, -3.0, 4.0], [0.0, 3.0, -3.0]])
    found = score_groups(model, criterion, normalise="none")["c"]
    np.testing.assert_allclose(found, scores, rtol=1e-6)
    assert make_plan(model, criterion, keep=0.67).keep == {"c": kept}


def test_a_shared_group_is_scored_by_the_mean_of_its_producers():
    model = toys.plain_net()
    weights = weights_of(model)
    expected = [np.abs(weights[name]["kernel"]).sum((0, 1, 2)) for name in ("stem", "outer")]
    found = score_groups(model, "l1", normalise="none")["stem"]
    np.testing.assert_allclose(found, np.mean(expected, 0), rtol=1e-5)


def test_keep_gives_every_group_the_same_ratio(model):
    plan = make_plan(model, keep=0.5)
    assert {len(kept) / plan.sizes[name] for name, kept in plan.keep.items()} == {0.5}
    assert make_plan(model, keep=1.0).widths() == dict(plan.sizes)
    assert set(make_plan(model, keep=1e-6).widths().values()) == {1}


@pytest.mark.parametrize("convention", ["mac", "ekg"])
@pytest.mark.parametrize("budget", [0.1, 0.37, 0.5, 0.9])
def test_without_single_steps_the_next_ratio_exceeds_the_budget(model, budget, convention):
    plan = make_plan(model, keep_macs=budget, convention=convention, fill=False)
    limit = budget * complexity(model, convention).macs
    assert complexity(model, convention, plan).macs <= limit
    # Widths are round-half-up(ratio · size): the next larger net begins at the next half channel of a size.
    halves = sorted({(k + 0.5) / size for size in set(plan.sizes.values()) for k in range(size)})
    ladder = [make_plan(model, keep=ratio) for ratio in halves]
    larger = [p for p in ladder if sum(p.widths().values()) > sum(plan.widths().values())]
    assert complexity(model, convention, larger[0]).macs > limit
    assert all(larger[0].widths()[name] >= width for name, width in plan.widths().items())


def test_round_to_gives_multiples(model):
    for budget in (0.3, 0.6):
        widths = make_plan(model, keep_macs=budget, round_to=8).widths().values()
        assert all(width % 8 == 0 for width in widths)


@pytest.mark.parametrize(
    ("width", "size", "round_to", "expected"),
    [
        (7.5, 16, 1, 8),
        (0.1, 16, 1, 1),
        (11.9, 16, 8, 8),
        (12, 16, 8, 16),
        (1, 16, 8, 8),
        (3, 5, 8, 5),
        (64, 64, 8, 64),
    ],
)
def test_rounded_width(width, size, round_to, expected):
    assert Limits(round_to).rounded(width, size) == expected


def test_random_is_the_same_for_the_same_seed_only(model):
    first, again, other = (make_plan(model, "random", keep=0.5, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert first.diff(other)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Give one of keep, keep_macs, .*Received: none of them"),
        ({"keep": 0.5, "keep_macs": 0.5}, "Give one of .*Received: keep=0.5, keep_macs=0.5"),
        ({"keep": 0.0}, "keep must lie in .*Received: keep=0.0"),
        ({"keep": float("nan")}, "Received: keep=nan"),
        ({"keep_macs": 1.0}, "keep_macs must lie in .*Received: keep_macs=1.0"),
        ({"keep_macs": 0.001}, "out of reach: the smallest net keeps 0.00.*Received: keep_macs=0.001"),
        (
            {"keep_macs": 0.1, "round_to": 16},
            "(?s)out of reach: the smallest net keeps 0.4.*Received: keep_macs=0.1.*loosen round_to=16",
        ),
        ({"keep": 0.5, "round_to": 0}, "Received: round_to=0"),
        ({"keep": 0.5, "criterion": "l3"}, "Received: criterion='l3'"),
        ({"keep_macs": 0.5, "convention": "flops"}, "Received: convention='flops'"),
    ],
)
def test_errors_name_the_value_and_the_remedy(model, options, message):
    with pytest.raises(UsageError, match=message):
        make_plan(model, **options)
