"""Filters that are chosen as a set: clusters, FPGM's mix, one threshold; and the order from the back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secateur.pruning import (
    backward,
    cluster_plan,
    clustered,
    compact,
    find_groups,
    fpgm_mix,
    fpgm_plan,
    make_plan,
    plan_of_widths,
    score_groups,
    slimming_widths,
)  # fmt: skip
from secateur.pruning.choose.clustering import k_means
from secateur.pruning.score.criteria.redundancy import fpgm
from secateur.runs.errors import UsageError
from tests.helpers import toys


def planted(seed: int, clusters: int = 6, each: int = 5, weights: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Filters around centres that are far apart, shuffled, and the cluster of each."""
    rng = np.random.default_rng(seed)
    centres = 20 * np.linalg.qr(rng.normal(size=(weights, weights)))[0][:clusters]
    labels = rng.permutation(np.repeat(np.arange(clusters), each))
    return centres[labels] + rng.normal(0, 0.1, (len(labels), weights)), labels


@pytest.mark.parametrize("seed", range(5))
def test_planted_clusters_keep_the_filter_nearest_to_their_centre(seed):
    filters, labels = planted(seed)
    expected = []
    for cluster in range(6):
        own = np.flatnonzero(labels == cluster)
        expected.append(own[np.linalg.norm(filters[own] - filters[own].mean(0), axis=1).argmin()])
    assert clustered(filters, 6, seed).tolist() == sorted(expected)


def test_both_of_a_pair_are_as_near_and_the_larger_one_stays():
    filters = np.array([[3.0, 0.1], [3.1, 0.1], [0.1, -9.2], [0.1, -9.1]])
    assert clustered(filters, 2).tolist() == [1, 2]


def test_directions_are_clustered_when_norms_are_divided_out():
    """Two short and two long filters, of two directions."""
    filters = np.array([[1.0, 0.0], [0.0, 1.0], [50.0, 1.0], [1.0, 50.0]])
    assert clustered(filters, 2).tolist() != [2, 3]  # the short ones are a cluster
    assert clustered(filters, 2, normalise=True).tolist() == [2, 3]


@given(st.integers(1, 20), st.integers(1, 4), st.integers(0, 99), st.data())
@settings(deadline=None)
def test_any_number_of_any_filters_can_stay(n, kinds, seed, data):
    """Also where fewer kinds of filters are there than clusters."""
    filters = np.random.default_rng(seed).normal(size=(kinds, 3))[np.arange(n) % kinds]
    keep = data.draw(st.integers(1, n))
    kept = clustered(filters, keep, seed)
    assert len(set(kept.tolist())) == keep and list(kept) == sorted(kept)
    assert kept.tolist() == clustered(filters, keep, seed).tolist()
    if keep == n:
        assert kept.tolist() == list(range(n))


def test_lloyd_stops_where_every_filter_is_nearest_to_its_own_centroid():
    filters = np.random.default_rng(0).normal(size=(60, 9))
    labels, _ = k_means(filters, 7, seed=1)
    centroids = np.array([filters[labels == label].mean(0) for label in range(7)])
    distance = np.linalg.norm(filters[:, None] - centroids, axis=2)
    assert labels.tolist() == distance.argmin(1).tolist()


def test_a_plan_of_clusters_has_the_widths_and_drops_copies():
    model = toys.resnet20("A", side=8)
    layer = model.get_layer("BasicBlock1.1_conv1")
    kernel = layer.kernel.numpy()
    kernel[..., 16:] = kernel[..., :16]
    layer.kernel.assign(kernel)
    plan = cluster_plan(model, {"BasicBlock1.1_conv1": 16, "conv": 40}, seed=3)
    assert sorted(i % 16 for i in plan.keep["BasicBlock1.1_conv1"]) == list(range(16))
    assert plan.widths()["conv"] == 40 and plan.widths()["BasicBlock1.0_conv1"] == 32
    assert compact(model, plan).output_shape == model.output_shape


def naive_mix(filters: np.ndarray, small: int, similar: int) -> list[int]:
    """One after the other, in plain loops."""
    left = sorted(range(len(filters)), key=lambda i: np.linalg.norm(filters[i]))[small:]
    sums = {i: sum(np.linalg.norm(filters[i] - filters[j]) for j in left) for i in left}
    return sorted(sorted(left, key=sums.get)[similar:])


@pytest.mark.parametrize("seed", range(5))
def test_fpgms_mix_drops_the_small_then_the_similar(seed):
    filters = np.random.default_rng(seed).normal(size=(16, 10))
    assert fpgm_mix(filters, 0.7, 0.1).tolist() == naive_mix(filters, 4, 1)
    only = np.argsort(-fpgm(filters))[: 16 - 6]
    assert fpgm_mix(filters, 1.0, 0.4).tolist() == sorted(only.tolist())


def test_fpgms_plans_have_their_widths_and_leave_what_is_ignored():
    model = toys.small_resnet()
    for ratios in ((1.0, 0.4), (0.7, 0.1)):
        plan = fpgm_plan(model, *ratios, ignore="BasicBlock0.0_conv1")
        assert plan.widths()["BasicBlock0.0_conv1"] == 16
        assert plan.widths()["BasicBlock1.0_conv1"] == {1.0: 32 - 12, 0.7: 32 - 9 - 3}[ratios[0]]
    assert fpgm_plan(model, 1.0, 0.4).keep == plan_of_widths(model, fpgm_plan(model).widths(), "fpgm").keep


@given(st.integers(0, 999), st.floats(0, 0.99), st.floats(0.5, 1))
def test_slimming_cuts_at_one_threshold(seed, percent, max_drop):
    rng = np.random.default_rng(seed)
    scores = {name: rng.random(n) * rng.random() for name, n in (("a", 7), ("b", 100), ("c", 33))}
    row = sorted(np.concatenate(list(scores.values())))
    threshold = row[int(percent * 140)]
    for name, width in slimming_widths(scores, percent, max_drop).items():
        score = scores[name]
        least = max(1, len(score) - int(max_drop * len(score) + 1e-9))
        assert width == max(least, sum(s > threshold for s in score))


def test_slimming_of_equal_scales_leaves_what_the_cap_leaves():
    assert slimming_widths({"a": np.ones(64), "b": np.ones(512)}, 0.5) == {"a": 1, "b": 6}


def test_slimming_is_global_ranking_without_making_up_for_what_a_group_may_not_lose():
    model = toys.small_resnet(seed=4)
    gammas = score_groups(model, "bn_scale")
    widths = slimming_widths(gammas, 0.4)
    slim = plan_of_widths(model, widths, gammas)
    share = sum(widths.values()) / sum(slim.sizes.values())
    ranked = make_plan(model, gammas, keep=share, allocation="global", max_drop=0.99)
    assert slim.widths() == ranked.widths()


def test_backward_meets_each_group_at_its_last_producer():
    names = [group.name for group in backward(toys.small_resnet("A"))]
    assert names == ["conv", "BasicBlock2.0_conv1", "BasicBlock1.0_conv1", "BasicBlock0.0_conv1"]
    model = toys.small_resnet("B", depth=14)
    names = [group.name for group in backward(model)]
    assert sorted(names) == sorted(group.name for group in find_groups(model))
    inner = [name for name in names if name.endswith("conv1")]
    assert inner == [f"BasicBlock{stage}.{block}_conv1" for stage in (2, 1, 0) for block in (1, 0)]
    assert names.index("conv") == names.index("BasicBlock0.1_conv1") - 1  # stage 1 ends with its conv2


def test_what_cannot_be_chosen_is_refused():
    with pytest.raises(UsageError, match=r"keep must lie in \[1, 3\].*Received: keep=4"):
        clustered(np.ones((3, 2)), 4)
    with pytest.raises(UsageError, match="Received: keep_norm=0.3, drop_distance=0.4"):
        fpgm_mix(np.ones((3, 2)), 0.3, 0.4)
    with pytest.raises(UsageError, match="Received: percent=1"):
        slimming_widths({"a": np.ones(3)}, 1)
    with pytest.raises(UsageError, match="scores of no group"):
        slimming_widths({}, 0.5)
    with pytest.raises(UsageError, match="No such group"):
        cluster_plan(toys.small_resnet(), {"stem": 3})
