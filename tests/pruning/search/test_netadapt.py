"""NetAdapt: what a step costs, who pays, how it ends and goes on."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from secateur.pruning import Plan, complexity
from secateur.pruning.choose.ranking import Limits
from secateur.pruning.groups.analysis import analyse
from secateur.pruning.score.scores import score_groups
from secateur.pruning.search.netadapt import Adapted, AdaptedWidths, NetAdapt
from secateur.runs.errors import TrainingError, UsageError
from tests.helpers import spaces, toys

SIZES = {"useful": 100, "useless": 100, "other": 100}


def linear(widths):
    return float(sum(widths.values()))


def planted(plan):
    """Each channel counts, but not those of one group."""
    return 1 - sum(plan.sizes[n] - len(kept) for n, kept in plan.keep.items() if n != "useless") / 200


def test_the_useless_group_pays_until_it_has_nothing_left():
    history = list(NetAdapt(spaces.space_of(SIZES, linear, 0.5), planted).run())
    # 5 % of 300 channels are 15; of 100 channels at most 95 go: 6 · 15 = 90.
    assert [(one.group, one.width) for one in history[1:7]] == [
        ("useless", 100 - 15 * i) for i in range(1, 7)
    ]
    assert [one.candidates for one in history[1:8]] == [3, 3, 3, 3, 3, 3, 2]
    assert all(one.group != "useless" for one in history[7:])
    assert [one.cost for one in history] == [*range(300, 149, -15)]
    assert [one.accuracy for one in history[:7]] == [1.0] * 7 and history[-1].accuracy < 1


@pytest.mark.parametrize("part", range(4))
def test_costs_fall_step_by_step_to_the_target_in_40_random_nets(part):
    for seed in range(10 * part, 10 * part + 10):
        rng = np.random.default_rng(seed)
        sizes, cost = spaces.chain(rng)
        space = spaces.space_of(sizes, cost, float(rng.uniform(0.3, 0.9)))
        target, whole = space.budget.target, cost(sizes)
        history = list(NetAdapt(space, lambda plan, rng=rng: float(rng.uniform()), 0.1).run())
        assert history[-1].cost <= target < history[-2].cost
        for before, after in zip(history, history[1:], strict=False):
            assert set(before.plan.diff(after.plan)) == {after.group}
            bound = max(target, before.cost - after.step * whole)
            assert after.cost == cost(after.plan.widths()) <= bound < before.cost
            # One channel more of the group that paid, and it would not have paid enough.
            assert cost({**after.plan.widths(), after.group: after.width + 1}) > bound


def test_the_step_is_halved_for_good_where_no_group_can_pay_it():
    sizes = {f"g{i}": 4 for i in range(30)}  # 5 % of 120 are 6, and a group has 3 to give
    history = list(NetAdapt(spaces.space_of(sizes, linear, 0.3), lambda plan: 0.5).run())
    assert [one.step for one in history] == [0.05, *[0.025] * 28]
    assert [one.cost for one in history] == [*range(120, 35, -3)]
    assert [one.group for one in history[1:4]] == ["g0", "g1", "g2"]  # equal ones: the first


def test_the_last_step_takes_what_is_missing_and_no_more():
    history = list(NetAdapt(spaces.space_of(SIZES, linear, 0.92), planted).run())
    assert [one.cost for one in history] == [300, 285, 276]


def test_widths_are_multiples():
    limits = Limits(round_to=8, max_drop=0.95)
    history = list(NetAdapt(spaces.space_of({"a": 64, "b": 32}, linear, 0.4, limits), lambda plan: 0.5).run())
    assert all(width % 8 == 0 for one in history for width in one.plan.widths().values())
    assert history[-1].cost == 32


def test_a_search_goes_on_from_its_history():
    space = spaces.space_of(SIZES, linear, 0.3)
    history = list(NetAdapt(space, planted).run())
    for done in range(1, len(history) + 1):
        saved = [Adapted.from_json(json.loads(json.dumps(one.to_json()))) for one in history[:done]]
        assert [*saved, *NetAdapt(space, planted).run(saved)] == history


def test_a_network_ends_at_the_target_as_the_counter_counts_it():
    model = toys.small_resnet("B")
    analysis = analyse(model)
    space = spaces.space_in(analysis, score_groups(model, "l1", analysis=analysis), "keep_macs", 0.6)
    history = list(NetAdapt(space, lambda plan: sum(plan.widths().values()), 0.1).run())
    found = [complexity(model, plan=one.plan).macs for one in history]
    assert found == [one.cost for one in history]
    for name, freed in space.weights.items():
        least = Plan.full(analysis.groups).replace(name, range(space.ranking.lowest[name]))
        assert freed == complexity(model).params - complexity(model, plan=least).params
    assert found == sorted(found, reverse=True) and found[-1] <= 0.6 * found[0] < found[-2]


def test_budgets_in_turn_end_where_each_does_alone_and_search_less():
    for seed in range(10):
        rng = np.random.default_rng(seed)
        sizes, cost = spaces.chain(rng)
        likes, tried = {name: rng.uniform() for name in sizes}, []

        def accuracy(plan, likes=likes, tried=tried):
            tried.append(plan)
            return 1 - sum(likes[n] * (1 - len(kept) / plan.sizes[n]) ** 2 for n, kept in plan.keep.items())

        parts = [spaces.space_of(sizes, cost, keep) for keep in (0.7, 0.5, 0.8)]
        choose = AdaptedWidths(parts[0].ranking, accuracy, 0.1)
        in_turn = [choose(cost, space.budget.target) for space in parts]
        count, tried[:] = len(tried), []
        alone = [list(NetAdapt(space, accuracy, 0.1).run())[-1].plan.widths() for space in parts]
        assert in_turn == alone and count < len(tried)


def test_a_history_is_gone_on_with_at_the_costs_of_today():
    sizes, cost = spaces.chain(np.random.default_rng(3))
    space, histories = spaces.space_of(sizes, cost, 0.5), []

    def accuracy(plan):
        return -sum(len(kept) ** 2 for kept in plan.keep.values())

    choose = AdaptedWidths(space.ranking, accuracy, 0.1, each=lambda done, most: histories.append(list(done)))
    wanted = choose(cost, space.budget.target)
    for history in histories:
        stale = [replace(one, cost=one.cost / 10) for one in history]
        again = AdaptedWidths(space.ranking, accuracy, 0.1, stale)
        assert again(cost, space.budget.target) == wanted


def test_a_cost_that_no_group_lowers_alone_is_refused():
    stairs = spaces.space_of({"a": 8, "b": 8}, lambda widths: float(max(widths.values())), 0.5)
    with pytest.raises(UsageError, match="No group by itself lowers the cost"):
        list(NetAdapt(stairs, lambda plan: 0.5).run())


def test_bad_values_are_refused():
    space = spaces.space_of(SIZES, linear, 0.5)
    with pytest.raises(UsageError, match="step must lie"):
        NetAdapt(space, planted, 0)
    with pytest.raises(TrainingError, match="not finite"):
        list(NetAdapt(space, lambda plan: math.inf).run())
    with pytest.raises(UsageError, match="start anew"):
        Adapted.from_json({"cost": 3})
