"""Costs of widths are those of the networks: of the counter, and of the weights that `compact` leaves."""

import keras
import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from secateur.pruning import compact, complexity
from secateur.pruning.choose.ranking import Limits, Ranking
from secateur.pruning.conventions import CONVENTIONS
from secateur.pruning.count.costs import bytes_of, of_last_channels, operations, parameters, stored_bytes
from secateur.pruning.count.counting import Counter
from secateur.pruning.count.polynomial import Polynomial
from secateur.pruning.groups.analysis import analyse
from tests.helpers import random_nets


def random_ranking(analysis, rng) -> Ranking:
    return Ranking.of(analysis, {g.name: rng.random(g.size) for g in analysis.groups}, Limits())


def random_widths(ranking: Ranking, rng) -> dict[str, int]:
    return {n: int(rng.integers(low, ranking.sizes[n] + 1)) for n, low in ranking.lowest.items()}


def weight_bytes(model: keras.Model) -> int:
    return sum(v.numpy().nbytes for v in model.variables)


@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(random_nets.nets(), st.integers(0, 999))
def test_polynomials_cost_what_plans_cost(net, seed):
    model, rng = random_nets.build(*net, seed), np.random.default_rng(seed)
    analysis = analyse(model)
    assume(analysis.groups)
    full = {g.name: np.ones(g.size, bool) for g in analysis.groups}
    less = {name: full | {name: np.arange(len(mask)) < len(mask) - 1} for name, mask in full.items()}
    ranking = random_ranking(analysis, rng)
    widths = random_widths(ranking, rng)
    plan = ranking.plan(widths)
    for name, rule in CONVENTIONS.items():
        count = complexity(model, name, plan)
        assert Polynomial(operations(analysis, rule), ranking.orders)(widths) == count.macs
        assert Polynomial(parameters(analysis, rule), ranking.orders)(widths) == count.params
        counter = Counter(model, name, analysis)
        ones = {group: counter.macs(full) - counter.macs(masks) for group, masks in less.items()}
        assert of_last_channels(analysis, operations(analysis, rule)) == ones
    small = compact(model, plan)
    assert Polynomial(stored_bytes(analysis), ranking.orders)(widths) == weight_bytes(small)
    assert bytes_of(small) == weight_bytes(small)


def test_a_polynomial_by_hand():
    """One kernel of 3 × 5: a channel of "a" stands for two rows of it, two columns are nobody's."""
    rows = (3, [("a", np.array([1, 0, 1]))])
    columns = (5, [("b", np.array([-1, 0, 1, 2, -1]))])
    cost = Polynomial([(4.0, (rows, columns)), (10.0, ())], {"a": np.array([1, 0]), "b": np.array([2, 0, 1])})
    assert cost({"a": 2, "b": 3}) == 4 * 3 * 5 + 10
    assert cost({"a": 1, "b": 3}) == 4 * 2 * 5 + 10  # channel 1 stays: both of its rows
    assert cost({"a": 1, "b": 1}) == 4 * 2 * 3 + 10
