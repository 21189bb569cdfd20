"""What the layers of a residual stream agree on: what one of them keeps, or the sum of what they say."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.pruning import compact, coupled_plan, find_groups, score_groups
from secateur.pruning.choose.coupling import summed, union
from secateur.pruning.score.scores import scores_by_place
from secateur.runs.errors import UsageError
from tests.helpers import toys


@pytest.fixture(scope="module")
def model():
    return toys.resnet20("B", side=8)


@st.composite
def votes(draw):
    """Layers that make all channels of a group, or some of them, in any order."""
    size, rng = draw(st.integers(2, 24)), np.random.default_rng(draw(st.integers(0, 999)))
    found = []
    for layer in range(draw(st.integers(1, 5))):
        n = size if layer == 0 else draw(st.integers(1, size))
        index = np.append(rng.permutation(size)[:n], [-1] * draw(st.integers(0, 3))).astype(int)
        found.append((rng.random(len(index)), index, draw(st.integers(1, 10)) / 10))
    return size, found


def alone(scores, index, keep):
    """The channels that a layer would keep by itself, floor(n · (1 − keep)) of them gone."""
    own = [(score, channel) for score, channel in zip(scores, index, strict=True) if channel >= 0]
    gone = min(len(own) * (10 - round(10 * keep)) // 10, len(own) - 1)
    return {channel for _, channel in sorted(own)[gone:]}


@given(votes())
def test_a_union_keeps_what_any_layer_keeps_and_no_more(drawn):
    size, layers = drawn
    assert set(np.flatnonzero(union(layers, size))) == set().union(*(alone(*vote) for vote in layers))


@given(votes())
def test_a_sum_keeps_the_largest_ratio_of_the_best_sums(drawn):
    size, layers = drawn
    mask, sums = summed(layers, size), np.zeros(size)
    for scores, index, _ in layers:
        np.add.at(sums, index[index >= 0], scores[index >= 0])
    tenths = 10 - round(10 * max(keep for *_, keep in layers))
    assert mask.sum() == size - min(size * tenths // 10, size - 1)
    assert sums[mask].min() >= max(sums[~mask], default=0)


def test_what_no_layer_ranks_stays():
    vote = (np.array([3.0, 2, 1]), np.array([0, 1, -1]), 0.5)
    assert union([vote], 4).tolist() == [True, False, True, True]
    assert summed([vote], 4).tolist() == [False, False, True, True]


def test_a_single_layer_knows_no_difference(model):
    one, other = (coupled_plan(model, keep=0.5, coupling=how) for how in ("union", "sum"))
    single = [group.name for group in find_groups(model) if len(group.layers("producer")) == 1]
    assert len(single) == 9
    assert all(one.keep[name] == other.keep[name] for name in single)
    assert all(len(one.keep[name]) == one.sizes[name] // 2 for name in single)


def test_streams_keep_more_by_union_than_by_sum(model):
    """NNI's two modes on ResNet-20, where each stream has four producers."""
    one, other = (coupled_plan(model, keep=0.5, coupling=how) for how in ("union", "sum"))
    for group in find_groups(model):
        if len(producers := group.layers("producer")) > 1:
            kernels = [np.abs(model.get_layer(name).kernel).sum((0, 1, 2)) for name in producers]
            best = [set(np.argsort(-kernel)[: group.size // 2].tolist()) for kernel in kernels]
            assert set(one.keep[group.name]) == set().union(*best)
            assert set(other.keep[group.name]) == set(np.argsort(-sum(kernels))[: group.size // 2].tolist())
    assert compact(model, one).output_shape == compact(model, other).output_shape == (None, 10)


def test_the_most_careful_layer_decides(model):
    keep = {"conv": 0.25, "BasicBlock0.0_conv2": 0.5, "BasicBlock0.1_conv2": 0.75, "BasicBlock0.2_conv2": 0.5}
    plan = coupled_plan(model, keep=keep, coupling="sum")
    assert plan.widths()["conv"] == 12
    assert sum(plan.widths().values()) == sum(plan.sizes.values()) - 4
    whole = coupled_plan(model, keep={"conv": 0.25})  # the blocks that are not named keep all
    assert whole.widths() == whole.sizes


def test_layers_behind_zero_padding_keep_at_least_one_channel():
    model = toys.resnet20("A'", side=8)
    for how in ("union", "sum"):
        plan = coupled_plan(model, "fpgm", keep=0.05, coupling=how, rounding="floor_kept")
        assert compact(model, plan).output_shape == (None, 10)


def test_places_add_up_to_the_scores_of_groups(model):
    found = scores_by_place(model, "l2")
    summed_up = {name: sum(scores for _, scores, _ in rows) for name, rows in found.items()}
    for name, scores in score_groups(model, "l2", reduce="sum", normalise="none").items():
        np.testing.assert_allclose(summed_up[name], scores)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"keep": 0.5, "coupling": "or"}, "Received: coupling='or'"),
        ({"keep": 0.0}, r"keep must lie in \(0, 1\]. Received: keep=0.0"),
        ({"keep": {"conv": 2}}, "Received: keep=2 for 'conv'"),
        ({"keep": {"cnov": 0.5}}, "Received: keep='cnov'. Did you mean 'conv'"),
        ({"keep": 0.5, "rounding": "ceil"}, "Received: rule='ceil'"),
        ({"keep": 0.5, "ignore": "stem"}, "Received: ignore='stem'"),
    ],
)
def test_unknown_names_and_ratios_are_refused(model, options, message):
    with pytest.raises(UsageError, match=message):
        coupled_plan(model, **options)
