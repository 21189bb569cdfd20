"""Learning rates as lists."""

import numpy as np
import pytest

from secateur.recipes.training.schedules import (
    SCHEDULES,
    cosine,
    cycled_momentum,
    one_cycle,
    step_decay,
)
from secateur.runs.errors import UsageError


def test_the_published_fine_tuning():
    """100 epochs of 391 steps, ×0.2 at 30, 60 and 80 %: what EKG's launcher asks for."""
    rates = step_decay(0.01, 39100, (0.3, 0.6, 0.8), 0.2)
    assert rates.shape == (39100,) and rates.dtype == np.float32
    changes = np.flatnonzero(np.diff(rates)) + 1
    assert changes.tolist() == [11730, 23460, 31280]
    np.testing.assert_allclose(rates[[0, *changes]], [0.01, 0.002, 0.0004, 0.00008], rtol=1e-6)


@pytest.mark.parametrize("points", [(), (1.0,)])
def test_without_a_point_inside_the_rate_stays(points):
    assert set(step_decay(0.5, 7, points, 0.1).tolist()) == {0.5}


def test_points_may_come_in_any_order_and_begin_at_once():
    assert step_decay(1.0, 4, (0.5, 0.0), 0.5).tolist() == [0.5, 0.5, 0.25, 0.25]


def test_no_steps_have_no_rates():
    assert step_decay(1.0, 0, (0.3,), 0.1).shape == (0,)


# --- published curves --------------------------------------------------------------------------------------

KESI = 40 * 391


@pytest.mark.parametrize("step, rate, momentum", [(0, 0.01, 0.95), (1563, 0.1, 0.85), (KESI - 1, 1e-4, 0.95)])
def test_kesis_one_cycle_at_its_ends_and_its_peak(step, rate, momentum):
    rates, momenta = one_cycle(0.1, KESI), cycled_momentum(KESI)
    assert rates.shape == momenta.shape == (KESI,) and rates.dtype == momenta.dtype == np.float32
    assert rates[step] == pytest.approx(rate, rel=1e-6) and momenta[step] == pytest.approx(momentum, rel=1e-6)


def test_kesis_one_cycle_between_its_ends():
    """value(s) = end + (start − end)/2·(1 + cos π s/len), up in 1563 steps, down in 14,076; a single peak."""
    rates, momenta = one_cycle(0.1, KESI), cycled_momentum(KESI)
    assert rates.argmax() == momenta.argmin() == 1563
    assert (np.diff(rates[:1564]) >= 0).all() and (np.diff(rates[1563:]) <= 0).all()
    assert rates[521] == pytest.approx(0.1 + (0.01 - 0.1) / 2 * (1 + np.cos(np.pi / 3)), rel=1e-5)
    assert rates[1563 + 7038] == pytest.approx((0.1 + 1e-4) / 2, rel=1e-5)  # half of the way down
    assert momenta[1563 + 7038] == pytest.approx(0.9, rel=1e-5)


def test_the_cycle_of_kesis_distillation():
    """Adam: 1e-4, 1e-3, 1e-6."""
    rates = one_cycle(1e-3, KESI)
    np.testing.assert_allclose(rates[[0, 1563, -1]], [1e-4, 1e-3, 1e-6], rtol=1e-5)


@pytest.mark.parametrize("steps", [1, 2, 5, 9, 10, 11, 25])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_short_cycles_stay_between_their_ends(steps, share):
    rates, momenta = one_cycle(0.1, steps, share), cycled_momentum(steps, share)
    assert rates.shape == momenta.shape == (steps,)
    assert (rates >= 1e-4 * 0.999).all() and (rates <= 0.1 * 1.001).all()
    assert (momenta >= 0.8499).all() and (momenta <= 0.9501).all()


def test_haps_vanilla_training():
    """200 epochs of 391 steps: 0.01 for one epoch, 0.1, and a fifth of it at 60, 120 and 160."""
    rates = step_decay(0.01, 200 * 391, (0.005, 0.3, 0.6, 0.8), (10, 0.2, 0.2, 0.2))
    changes = np.flatnonzero(np.diff(rates)) + 1
    assert (changes / 391).tolist() == [1, 60, 120, 160]
    np.testing.assert_allclose(rates[[0, *changes]], [0.01, 0.1, 0.02, 0.004, 0.0008], rtol=1e-6)


def test_kesis_baseline():
    """300 epochs of 782 steps, a tenth of the rate after 150 and after 225."""
    baseline = step_decay(0.1, 300 * 782, (0.5, 0.75), 0.1)
    np.testing.assert_allclose(baseline[[0, 150 * 782 - 1]], 0.1, rtol=1e-6)
    np.testing.assert_allclose(baseline[[150 * 782, 225 * 782]], [0.01, 0.001], rtol=1e-6)


def test_the_cosine_is_half_way_in_the_middle():
    rates = cosine(0.01, 100)
    assert rates[0] == np.float32(0.01) and rates[50] == pytest.approx(0.005, rel=1e-6)
    assert 0 < rates[-1] < 0.00001 and (np.diff(rates) < 0).all()
    assert cosine(0.01, 100, final=0.001)[50] == pytest.approx(0.0055, rel=1e-6)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_gives_one_positive_rate_a_step(name):
    more = {"step_decay": ((0.5,), 0.1)}.get(name, ())
    for steps in (0, 1, 12):
        rates = SCHEDULES.find(name)(0.1, steps, *more)
        assert rates.shape == (steps,) and rates.dtype == np.float32 and (rates > 0).all()


def test_an_unknown_schedule_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match="schedule='cosin'. Did you mean 'cosine'"):
        SCHEDULES.find("cosin")
