"""Learning rates as lists."""

import numpy as np
import pytest

from recipes.schedules import step_decay


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
