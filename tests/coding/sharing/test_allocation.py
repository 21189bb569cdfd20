"""Bits for each kernel: against all allocations of small instances, and measured on a network."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.coding.sharing.allocation import Choice, allocate, lower_hull, measure, total_of
from secateur.coding.sharing.share import share, share_array, stored_bytes
from secateur.runs import UsageError
from tests.helpers.toys import images, plain_net

CHOICES = st.lists(st.tuples(st.integers(1, 60), st.integers(-3, 60)), min_size=1, max_size=5)
CURVES = st.lists(CHOICES, min_size=1, max_size=4)


def planted(lists):
    return {
        f"conv{i}": [Choice(bits, float(size), float(loss)) for bits, (size, loss) in enumerate(pairs, 1)]
        for i, pairs in enumerate(lists)
    }


def all_allocations(curves):
    """(bytes, loss) of every combination of choices."""
    every = itertools.product(*curves.values())
    return [(total_of(one, "bytes"), total_of(one, "loss")) for one in every]


def sums(found):
    return total_of(found.values(), "bytes"), total_of(found.values(), "loss")


@settings(max_examples=150, deadline=None)
@given(CURVES, st.integers(4, 240))
def test_no_allocation_is_better_by_more_than_one_step(lists, limit):
    curves = planted(lists)
    for budget, spent, gained in (("max_bytes", 0, 1), ("max_loss", 1, 0)):
        within = [one[gained] for one in all_allocations(curves) if one[spent] <= limit]
        if not within:
            with pytest.raises(UsageError, match=f"Received: {budget}={limit}"):
                allocate(curves, **{budget: limit})
            continue
        result = sums(allocate(curves, **{budget: limit}))
        hulls = [lower_hull(choices) for choices in curves.values()]
        pairs = [pair for line in hulls for pair in itertools.pairwise(line)]
        name = ("bytes", "loss")[gained]
        step = max((abs(getattr(a, name) - getattr(b, name)) for a, b in pairs), default=0)
        assert result[spent] <= limit
        assert min(within) <= result[gained] <= min(within) + step


@settings(max_examples=80, deadline=None)
@given(CURVES, st.floats(0.02, 20))
def test_where_a_price_of_bytes_decides_it_is_the_best_allocation(lists, price):
    """The budget that some price of a byte leads to: least loss + price · bytes, kernel by kernel."""
    curves = planted(lists)
    best = [min(choices, key=lambda c: (c.loss + price * c.bytes, c.bytes)) for choices in curves.values()]
    limit = total_of(best, "bytes")
    least = min(loss for size, loss in all_allocations(curves) if size <= limit)
    assert sums(allocate(curves, max_bytes=limit)) == (limit, least)


def test_the_hull_of_a_curve():
    curve = [Choice(i, *pair) for i, pair in enumerate([(5, 9), (1, 10), (2, 4), (3, 3.9), (4, 1), (6, 1)])]
    assert [(c.bytes, c.loss) for c in lower_hull(curve)] == [(1, 10), (2, 4), (4, 1)]


def test_a_kernel_that_matters_gets_the_bits():
    sizes, sensitive, deaf = (10, 20, 30), (8.0, 1.0, 0.0), (0.2, 0.1, 0.0)
    curves = {
        "first": [Choice(bits, s, loss) for bits, s, loss in zip((2, 4, 8), sizes, sensitive, strict=True)],
        "second": [Choice(bits, s, loss) for bits, s, loss in zip((2, 4, 8), sizes, deaf, strict=True)],
    }
    assert {name: c.bits for name, c in allocate(curves, max_bytes=40).items()} == {"first": 8, "second": 2}
    assert {name: c.bits for name, c in allocate(curves, max_loss=0.3).items()} == {"first": 8, "second": 2}


def test_bytes_are_the_entropy_of_the_labels_and_the_codebook():
    labels = np.repeat([-1, 0, 1], [16, 8, 8])  # 1, 2 and 2 bits
    assert stored_bytes(np.zeros(2, np.float32), labels) == (16 + 16 + 16) / 8 + 8


def test_a_network_is_measured_and_left_as_it_was():
    model, inputs = plain_net(), images(32)
    whole = model(inputs).numpy()
    before = [v.numpy() for v in model.variables]

    def loss():
        return float(((model(inputs).numpy() - whole) ** 2).mean())

    curves = measure(model, loss, bits=(1, 2, 4, 9))
    for old, variable in zip(before, model.variables, strict=True):
        np.testing.assert_array_equal(old, variable.numpy())
    assert set(curves) == {"stem/kernel", "inner/kernel", "outer/kernel"}
    for choices in curves.values():
        assert [choice.bits for choice in choices] == [1, 2, 4, 9]
        assert choices[0].loss > choices[2].loss > choices[3].loss == 0  # 9 bits: every weight its own
    kernel = model.get_layer("stem").kernel
    codebook, labels, _ = share_array(kernel.numpy(), 4)
    assert curves["stem/kernel"][1].bytes == stored_bytes(codebook, labels)
    kernel.assign(codebook[labels])
    assert curves["stem/kernel"][1].loss == pytest.approx(loss(), rel=1e-5)
    kernel.assign(before[0])
    chosen = allocate(curves, max_loss=0.05 * sum(choices[0].loss for choices in curves.values()))
    shared = share(model, {name: choice.bits for name, choice in chosen.items()})
    assert [k.bits for k in shared.kernels] == [choice.bits for choice in chosen.values()]


@pytest.mark.parametrize("budgets", [{}, {"max_bytes": 3, "max_loss": 3}])
def test_one_budget_is_given(budgets):
    with pytest.raises(UsageError, match="Give max_bytes or max_loss"):
        allocate({}, **budgets)
