"""The arithmetic of EKG's search: thresholds, slices, widths."""

import numpy as np
import pytest

from secateur import nets
from secateur.pruning import find_groups
from secateur.pruning.search.ekg_rules import kept_width, slice_ratio, trimmed_otsu
from secateur.pruning.search.settings import SearchSettings
from secateur.runs.errors import UsageError


def walk(size, step, count, round_to=1):
    return [kept_width(size, max(1 - k * step, 0), round_to) for k in range(count)]


def test_otsu_splits_a_bimodal_list_between_the_modes():
    low, high = np.linspace(1, 2, 10), np.linspace(8, 9, 10)
    assert trimmed_otsu(np.concatenate([high, low])) == pytest.approx(5.0)


def test_trimming_ignores_outliers():
    values = np.array([1.0] * 5 + [2.0] * 5)
    assert trimmed_otsu(values) == trimmed_otsu(np.array([-1e9, *values[1:-1], 1e9])) == 1.5


def test_otsu_by_hand():
    # 10 values, 2 dropped at each end: 1 2 9 9 10 10; t = 2 gives 2·4·(1.5 − 9.5)² = 512, the most.
    assert trimmed_otsu(np.array([0, 0, 1, 2, 9, 9, 10, 10, 11, 11])) == 5.5


def test_ties_and_short_lists_mark_everything():
    assert trimmed_otsu(np.ones(10)) == 1.0
    assert trimmed_otsu(np.array([3.0])) == 3.0
    assert trimmed_otsu(np.array([3.0, 5.0])) == 5.0
    assert trimmed_otsu(np.array([1.0, 2.0, 3.0, 4.0])) == 4.0  # one dropped at each end leaves two


def test_widths_of_the_published_steps():
    assert walk(16, 0.2, 6) == [16, 13, 10, 7, 4, 1]
    assert walk(64, 0.02, 5) == [64, 63, 62, 61, 59]
    assert walk(16, 0.0625, 17) == [*range(16, 0, -1), 1]


@pytest.mark.parametrize("size", [3, 10, 48, 64, 100, 192, 1000])
def test_a_step_of_one_channel_removes_one_channel(size):
    rate, widths = 1.0, []
    for _ in range(size - 1):
        rate -= 1 / size
        widths.append(kept_width(size, rate))
    assert widths == list(range(size - 1, 0, -1))


@pytest.mark.parametrize(("size", "widths"), [(16, [16, 8, 8]), (20, [20, 16, 8]), (6, [6, 6, 6])])
def test_rounded_widths_are_multiples_where_the_group_is_large_enough(size, widths):
    assert walk(size, 8 / size, 3, round_to=8) == widths


def test_slices_of_resnet56_and_resnet20():
    def ratios(arch):
        groups = [(g.size, len(g.layers("producer"))) for g in find_groups(nets.build(arch))]
        return {(producers > 1, round(slice_ratio(size, producers, 0.2), 9)) for size, producers in groups}

    assert ratios("ResNet-56") == {(False, 0.2), (True, 0.0625), (True, 0.03125), (True, 0.02)}
    assert ratios("ResNet-20") == {(False, 0.2), (True, 0.0625), (True, 0.05)}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": 0.0}, "target_rate=0"),
        ({"target": 1.0}, "target_rate=1"),
        ({"target": float("nan")}, "target_rate=nan"),
        ({"step": 0.0}, "search_step=0"),
        ({"step": 1.5}, "search_step=1.5"),
        ({"batch_size": 1}, "search_batch_size=1"),
        ({"round_to": 0}, "round_to=0"),
        ({"dtype": "int8"}, "search_dtype='int8'"),
    ],
)
def test_settings_out_of_range(options, message):
    with pytest.raises(UsageError, match=f"Received: .*{message}"):
        SearchSettings(**options)
