"""Plans survive JSON, change one group at a time, and refuse what no network could be."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.pruning import compact, find_groups
from secateur.pruning.plan import Plan
from secateur.runs.errors import UsageError
from tests.helpers import toys

PLAN = Plan({"a": (0, 2), "b": (1,)}, {"a": 4, "b": 3})


@st.composite
def plans(draw):
    sizes = draw(st.dictionaries(st.text(max_size=4), st.integers(1, 12), max_size=4))
    kept = {n: draw(st.sets(st.integers(0, size - 1), min_size=1)) for n, size in sizes.items()}
    return Plan({name: tuple(sorted(channels)) for name, channels in kept.items()}, sizes)


@given(plans())
def test_json_and_masks_give_the_plan_back(plan):
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    assert Plan.from_masks(plan.masks()) == plan
    assert plan.widths() == {name: int(mask.sum()) for name, mask in plan.masks().items()}


def test_replace_changes_one_group_and_diff_shows_it():
    other = PLAN.replace("a", np.array([3, 1, 0]))
    assert other.keep == {"a": (0, 1, 3), "b": (1,)}
    assert (PLAN.diff(other), PLAN.diff(PLAN), PLAN.keep["a"]) == ({"a": (2, 3)}, {}, (0, 2))


def test_diff_sees_equal_widths_of_different_channels():
    assert PLAN.diff(PLAN.replace("b", [2])) == {"b": (1, 1)}


@given(plans(), st.integers(1, 8))
def test_padding_takes_as_few_channels_back_as_a_multiple_needs(plan, multiple):
    outer = plan.padded(multiple)
    for name, kept in plan.keep.items():
        width, size = len(outer.keep[name]), plan.sizes[name]
        assert set(kept) <= set(outer.keep[name])
        assert width == min(-(-len(kept) // multiple) * multiple, size)
    inner = plan.within(outer)
    assert inner.sizes == outer.widths()
    assert {n: tuple(outer.keep[n][i] for i in kept) for n, kept in inner.keep.items()} == plan.keep


@pytest.mark.parametrize("shortcut", ["A", "A'", "B"])
def test_two_plans_in_a_row_are_one(shortcut):
    """compact(compact(model, p), q) and compact(model, p.then(q)) have equal weights."""
    model, rng = toys.small_resnet(shortcut), np.random.default_rng(5)
    for _ in range(2):
        plan = toys.random_plan(find_groups(model), rng)
        small = compact(model, plan)
        inner = toys.random_plan(find_groups(small), rng)
        twice, once = compact(small, inner), compact(model, plan.then(inner))
        assert twice.spec == once.spec
        for ours, theirs in zip(twice.get_weights(), once.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@given(plans(), st.integers(1, 8))
def test_what_within_takes_apart_then_puts_together(plan, multiple):
    outer = plan.padded(multiple)
    assert outer.then(plan.within(outer)) == plan


def test_a_second_plan_must_be_for_what_the_first_one_leaves():
    with pytest.raises(UsageError, match="another network than the first.*4 channels in group 'a'.*leaves 2"):
        PLAN.then(PLAN)
    with pytest.raises(UsageError, match="1 channels in group 'c', of which it leaves none"):
        PLAN.then(Plan({"c": (0,)}, {"c": 1}))
    assert PLAN.then(Plan({"a": (1,)}, {"a": 2})) == PLAN.replace("a", [2])


def test_a_plan_knows_nested_layers_by_both_of_their_names():
    nested = Plan({"one/a": (0, 2), "two/a": (1,), "b": (0,)}, {"one/a": 3, "two/a": 2, "b": 1})
    inner = Plan({"one_a": (1,), "two_a": (0,), "b": (0,)}, {"one_a": 2, "two_a": 1, "b": 1})
    assert nested.then(inner) == nested.replace("one/a", [2])
    with pytest.raises(UsageError, match="'a', of which it leaves none"):
        nested.then(Plan({"a": (0,)}, {"a": 1}))  # of which of the two?
    with pytest.raises(UsageError, match="which it leaves none"):  # nor can two be one
        Plan({"a": (0, 1)}, {"a": 2}).then(Plan({"one/a": (0,), "two/a": (1,)}, {"one/a": 2, "two/a": 2}))


@pytest.mark.parametrize("kept", [(), (2, 0), (1, 1), (-1, 2), (0, 4)])
def test_impossible_channels_are_refused(kept):
    with pytest.raises(
        UsageError, match="Group 'a' needs between 1 and 4 different channels.*Received: keep="
    ):
        Plan({"a": kept}, {"a": 4})


@pytest.mark.parametrize(
    "data",
    [
        {},
        [],
        {"keep": {"a": [0]}},
        {"keep": {"a": [0]}, "sizes": {}},
        {"keep": {}, "sizes": {"a": 4}},
        {"keep": {"a": ["x"]}, "sizes": {"a": 4}},
        {"keep": {"a": [0.5]}, "sizes": {"a": 4}},
        {"keep": {"a": 3}, "sizes": {"a": 4}},
    ],
)
def test_an_edited_file_that_is_no_plan_is_an_error_of_the_user(data):
    with pytest.raises(UsageError, match="Received: "):
        Plan.from_json(data)


def test_unknown_groups_are_refused():
    with pytest.raises(UsageError, match="'c' in only one"):
        PLAN.replace("c", [0])
    with pytest.raises(UsageError, match="different networks"):
        PLAN.diff(Plan({"a": (0,)}, {"a": 4}))


def test_a_plan_prints_its_widths():
    assert str(Plan({"a": (0, 2), "b": (1,)}, {"a": 4, "b": 2})) == "a: 4 → 2\nb: 2 → 1"
