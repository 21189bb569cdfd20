"""Ladders of sparsity and the numbers of channels that they come to."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secateur.pruning.choose.ladders import LADDERS, agp, find_ladder, linear, lottery, relative
from secateur.pruning.rounding import ROUNDING, removed
from secateur.runs.errors import UsageError

sparsities, counts = st.floats(0, 0.99), st.integers(1, 12)


@pytest.mark.parametrize(("rule", "expected"), [("floor_kept", 7), ("floor", 6), ("round", 6)])
def test_papers_round_the_same_ratio_differently(rule, expected):
    """Keep 0.6 of 16, 32, 64: HAP removes 6, 13, 26; SFP and FPGM remove 6, 12, 25."""
    rest = {"floor_kept": [13, 26], "floor": [12, 25], "round": [13, 26]}[rule]
    assert [removed(n, 0.4, rule) for n in (16, 32, 64)] == [expected, *rest]


def test_halves_go_to_the_even_number():
    assert [removed(n, 0.5, "round") for n in (5, 7, 9)] == [2, 4, 4]


@given(st.integers(1, 4096), st.integers(0, 100))
def test_a_ratio_in_percent_is_exact(n, percent):
    """Against integers: 1 − 0.9 as a binary number would lose a channel of 10."""
    assert removed(n, percent / 100, "floor") == min(n - 1, n * percent // 100)
    assert removed(n, percent / 100, "floor_kept") == min(n - 1, n - n * (100 - percent) // 100)
    assert removed(n, 1 - (100 - percent) / 100, "floor") == min(n - 1, n * percent // 100)


def test_one_channel_always_stays():
    assert [removed(n, 1.0, rule) for rule in ROUNDING for n in (1, 3)] == [0, 2] * 3


@pytest.mark.parametrize(
    ("width", "widths"),
    [(64, [49, 37, 28, 22, 16]), (256, [195]), (512, [389]), (2048, [1553])],
)
def test_lottery_has_the_widths_of_nnis_log(width, widths):
    """Sparsity 0.75 in five rounds; R counts the channels that are gone."""
    left, found = width, []
    for target in lottery(0.75, 5)[: len(widths)]:
        left -= removed(left, relative(target, 1 - left / width), "floor")
        found.append(left)
    assert found == widths


@given(st.sampled_from(sorted(LADDERS)), sparsities, counts)
def test_every_ladder_climbs_to_its_target(name, sparsity, rounds):
    steps = find_ladder(name)(sparsity, rounds)
    assert len(steps) == rounds
    assert steps == sorted(steps) and steps[0] >= 0
    assert math.isclose(steps[-1], sparsity, abs_tol=1e-12)


@given(sparsities, counts)
def test_a_lottery_keeps_the_same_share_in_every_round(sparsity, rounds):
    steps = [0.0, *lottery(sparsity, rounds)]
    for before, after in zip(steps, steps[1:], strict=False):
        assert math.isclose(relative(after, before), 1 - (1 - sparsity) ** (1 / rounds), abs_tol=1e-9)


def test_ladders_by_hand():
    assert linear(0.5, 2) == [0.25, 0.5]
    assert agp(0.8, 2) == pytest.approx([0.7, 0.8])
    assert lottery(0.75, 2) == pytest.approx([0.5, 0.75])
    assert relative(0.75, 0.5) == 0.5 and relative(0.4, 0.5) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: find_ladder("lotery"), "Received: ladder='lotery'. Did you mean 'lottery'"),
        (lambda: lottery(1.0, 5), r"sparsity must lie in \[0, 1\). Received: sparsity=1.0"),
        (lambda: agp(0.5, 0), "Received: rounds=0"),
        (lambda: relative(0.5, 1), "Received: target=0.5, gone=1"),
        (lambda: removed(3, 0.5, "flor"), "Received: rule='flor'. Did you mean 'floor'"),
        (lambda: removed(3, 1.5), "Received: ratio=1.5"),
        (lambda: removed(0, 0.5), "Received: n=0"),
    ],
)
def test_values_out_of_range_are_refused(call, message):
    with pytest.raises(UsageError, match=message):
        call()
