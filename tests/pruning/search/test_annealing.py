"""Annealing: the target holds, the temperature's rule, acceptance, and a search that goes on."""

import json
import math

import numpy as np
import pytest

from secateur.pruning import complexity
from secateur.pruning.choose.ranking import Limits
from secateur.pruning.groups.analysis import analyse
from secateur.pruning.score.scores import score_groups
from secateur.pruning.search.annealing import Annealer, acceptance, rescaled
from secateur.pruning.search.annealing_state import AnnealingSettings, AnnealingState
from secateur.runs.errors import TrainingError, UsageError
from tests.helpers import spaces, toys

SIZES = {"small": 60, "middle": 200, "large": 400}


def linear(widths):
    """Parameters of three layers that share no channel."""
    return sum(9 * width for width in widths.values())


def kept_share(plan):
    """An accuracy that every removed channel of the small group costs."""
    return len(plan.keep["small"]) / plan.sizes["small"]


def fits_to_a_channel(space, plan):
    widths, target = plan.widths(), space.budget.target
    wider = [{**widths, name: n + 1} for name, n in widths.items() if n < plan.sizes[name]]
    return space.cost(plan) <= target and all(space.budget.cost(other) > target for other in wider)


@pytest.mark.parametrize("part", range(4))
def test_every_try_meets_the_target_to_a_channel_in_200_random_nets(part):
    for seed in range(50 * part, 50 * part + 50):
        rng = np.random.default_rng(seed)
        sizes, cost = spaces.chain(rng)
        keep = float(rng.uniform(0.3, 0.95))
        space = spaces.space_of(sizes, cost, keep)
        annealer = Annealer(space, lambda plan, rng=rng: float(rng.uniform()))
        state = annealer.start(rng)
        for _ in range(3):
            state = annealer.step(state)
            assert fits_to_a_channel(space, state.last.plan), seed
            assert state.last.cost == cost(state.last.plan.widths())
            assert all(n >= 0.05 * sizes[name] for name, n in state.last.plan.widths().items())


@pytest.mark.parametrize("cost", ["params", "macs"])
def test_the_target_is_that_of_the_network_as_the_counter_counts_it(cost):
    model = toys.small_resnet("A")
    analysis = analyse(model)
    space = spaces.space_in(analysis, score_groups(model, "l1", analysis=analysis), f"keep_{cost}", 0.4)
    plan = Annealer(space, lambda plan: 0.5).start(np.random.default_rng(3)).best.plan
    found, dense = (getattr(complexity(model, plan=p), cost) for p in (plan, None))
    assert found == space.cost(plan) <= 0.4 * dense
    assert fits_to_a_channel(space, plan)


def test_a_group_with_more_weights_loses_a_larger_share():
    space = spaces.space_of(SIZES, linear, 0.5)
    for seed in range(30):
        widths = Annealer(space, kept_share).start(np.random.default_rng(seed)).last.plan.widths()
        removed = [1 - widths[name] / size for name, size in SIZES.items()]
        assert removed == pytest.approx(sorted(removed), abs=0.01), seed


def test_ratios_keep_their_proportion_where_no_cap_is_in_the_way():
    space = spaces.space_of(SIZES, linear, 0.5)
    widths = rescaled(space, {"small": 0.1, "middle": 0.2, "large": 0.3})
    # f · (0.1 · 60 + 0.2 · 200 + 0.3 · 400) = 330 channels: f = 330 / 166
    expected = {
        n: size * (1 - r * 330 / 166) for (n, size), r in zip(SIZES.items(), (0.1, 0.2, 0.3), strict=True)
    }
    assert widths == pytest.approx(expected, abs=1)
    assert rescaled(space, dict.fromkeys(SIZES, 1e-3)) == {"small": 30, "middle": 100, "large": 200}


def test_what_a_capped_group_cannot_lose_the_others_do():
    space = spaces.space_of(SIZES, linear, 0.3)
    widths = rescaled(space, {"small": 0.01, "middle": 0.01, "large": 1.0})
    assert widths["large"] == 20 and sum(widths.values()) == 198


def test_published_numbers_take_16_networks():
    assert AnnealingSettings().moves == math.ceil(math.log(0.2) / math.log(0.9)) == 16
    space = spaces.space_of(SIZES, linear, 0.5)
    annealer = Annealer(space, lambda plan: 0.5)  # Δ = 0: every one is taken
    states = list(annealer.run(annealer.start(np.random.default_rng(0))))
    assert len(states) == 16 and states[-1].temperature == pytest.approx(100 * 0.9**16)


def test_it_cools_when_a_network_is_taken_and_only_then():
    space = spaces.space_of(SIZES, linear, 0.5)
    annealer = Annealer(space, lambda plan: 1000 * kept_share(plan))  # a scale on which many are refused
    start = annealer.start(np.random.default_rng(1))
    states = [start, *annealer.run(start)]
    assert sum(not s.last.accepted for s in states) > 3
    for before, after in zip(states, states[1:], strict=False):
        assert after.last.temperature == before.temperature
        assert after.temperature == before.temperature * (0.9 if after.last.accepted else 1)
        assert after.current == (after.last if after.last.accepted else before.current)
    assert sum(s.last.accepted for s in states[1:]) == 16
    assert states[-1].best.accuracy == max(s.last.accuracy for s in states)


def test_a_worse_network_is_taken_as_often_as_the_formula_says():
    assert acceptance(0.8, 0.9, 20) == 1
    assert acceptance(0.9, 0.8, 20) == pytest.approx(0.99501248)  # exp(−0.005)
    assert acceptance(0.9, 0.9, 20) == 1
    space = spaces.space_of(SIZES, linear, 0.5)
    answers = iter([70.0] + 400 * [40.0])
    annealer = Annealer(space, lambda plan: next(answers))
    start = annealer.start(np.random.default_rng(0))
    seeds = [np.random.default_rng(seed).bit_generator.state for seed in range(400)]
    taken = [
        annealer.step(AnnealingState(start.last, start.current, start.best, 60.0, bits)).last.accepted
        for bits in seeds
    ]
    expected = math.exp(-0.5)  # Δ = 30 at 60 degrees
    assert np.mean(taken) == pytest.approx(expected, abs=4 * math.sqrt(expected * (1 - expected) / 400))


def test_a_try_stays_as_near_as_the_temperature_allows():
    sizes = {"one": 1000, "other": 1000}
    annealer = Annealer(spaces.space_of(sizes, linear, 0.5), lambda plan: 0.5)
    start = annealer.start(np.random.default_rng(0))
    for state in annealer.run(start):
        most = 0.35 * state.last.temperature / 100
        ratios, now = (
            sorted(1 - w / 1000 for w in t.plan.widths().values()) for t in (state.last, start.current)
        )
        # r₁ + r₂ = 1 become (r₁ + e₁) / (1 + e₁ + e₂): |e₁r₂ − e₂r₁| ≤ most, over at least 1 − 2 · most.
        assert np.abs(np.subtract(ratios, now)).max() <= most / (1 - 2 * most) + 0.002
        start = state


def test_a_search_goes_on_from_any_state_to_the_same_end():
    space = spaces.space_of(SIZES, linear, 0.5)
    annealer = Annealer(space, kept_share)
    start = annealer.start(np.random.default_rng(5))
    states = [start, *annealer.run(start)]
    for at in (0, 7, len(states) - 1):
        saved = AnnealingState.from_json(json.loads(json.dumps(states[at].to_json())))
        assert [saved, *Annealer(space, kept_share).run(saved)] == states[at:]


def test_a_search_ends_where_nothing_is_taken():
    falling = iter(range(0, -(10**9), -(10**6)))
    annealer = Annealer(
        spaces.space_of(SIZES, linear, 0.5), lambda plan: next(falling), AnnealingSettings(tries=25)
    )
    states = list(annealer.run(annealer.start(np.random.default_rng(0))))
    assert len(states) == 25 and states[-1].temperature == 100


def test_a_target_out_of_reach_is_refused_with_the_smallest_cost():
    with pytest.raises(UsageError, match=r"keeps 0\.0500 of the cost.*\n.*max_drop=0\.95"):
        spaces.space_of(SIZES, linear, 0.04)
    with pytest.raises(UsageError, match="No group may become narrower"):
        Annealer(spaces.space_of({"one": 4}, linear, 1.0, Limits(min_channels=4)), kept_share)


@pytest.mark.parametrize(
    "options", [{"start": 10}, {"stop": 0}, {"cool": 1}, {"spread": 0}, {"spread": 1.5}, {"tries": 0}]
)
def test_settings_out_of_range_are_refused(options):
    with pytest.raises(UsageError, match=f"Received: .*{next(iter(options))}="):
        AnnealingSettings(**options)


def test_an_accuracy_that_compares_with_nothing_ends_the_search():
    annealer = Annealer(spaces.space_of(SIZES, linear, 0.5), lambda plan: math.nan)
    with pytest.raises(TrainingError, match="not finite"):
        annealer.start(np.random.default_rng(0))


def test_a_damaged_state_is_refused():
    with pytest.raises(UsageError, match="start anew"):
        AnnealingState.from_json({"temperature": 3})
