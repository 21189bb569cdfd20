"""One-dimensional k-means against all partitions, an independent program, and scikit-learn's iteration."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from secateur.coding.sharing.kmeans import cluster
from secateur.coding.sharing.line import Line, best_edges
from secateur.runs import UsageError

FLOATS = st.floats(-100, 100, width=32, allow_subnormal=False)


def error_of(values, labels):
    """Σ (value − mean of its cluster)², in float64."""
    groups = [values[labels == label].astype(np.float64) for label in np.unique(labels)]
    return sum(((group - group.mean()) ** 2).sum() for group in groups)


def best_of_all_partitions(values, k):
    """Over all labels whatsoever, neighbours or not."""
    every = itertools.product(range(k), repeat=len(values))
    return min(error_of(values, np.array(labels)) for labels in every)


def textbook(values, k):
    """The plain recurrence, O(k·n²) and cell by cell: D[j] ← min over i of D[i] + cost(i, j)."""
    x = np.sort(values.astype(np.float64))
    cost = np.array(
        [[np.var(x[i:j]) * (j - i) if j > i else 0 for j in range(len(x) + 1)] for i in range(len(x))]
    )
    least = cost[0]
    for _ in range(k - 1):
        least = np.array(
            [min([least[j]] + [least[i] + cost[i, j] for i in range(j)]) for j in range(len(x) + 1)]
        )
    return least[-1]


def normal(n, seed=0, repeated=False):
    values = np.random.default_rng(seed).normal(0, 0.05, n).astype(np.float32)
    return np.round(values, 2) if repeated else values


@settings(max_examples=60, deadline=None)
@given(st.lists(FLOATS, min_size=1, max_size=7), st.integers(1, 3))
def test_no_partition_is_better(values, k):
    values = np.array(values, np.float32)
    found = cluster(values, k)
    scale = 1 + float((values.astype(np.float64) ** 2).sum())
    assert error_of(values, found.labels) <= best_of_all_partitions(values, k) + 1e-12 * scale


@pytest.mark.parametrize("repeated", [False, True])
@pytest.mark.parametrize("k", [1, 2, 5, 16])
def test_the_error_is_that_of_the_textbook_recurrence(k, repeated):
    values = normal(120, seed=k, repeated=repeated)
    found = error_of(values, cluster(values, k).labels)
    np.testing.assert_allclose(found, textbook(values, k), rtol=1e-9, atol=1e-15)


@settings(max_examples=100, deadline=None)
@given(st.lists(FLOATS, min_size=1, max_size=200), st.integers(1, 40), st.booleans())
def test_what_a_clustering_is(values, k, linear):
    values = np.array(values, np.float32)
    found = cluster(values, k, linear)
    assert len(found.centroids) <= min(k, len(np.unique(values)))
    assert (np.diff(found.centroids) > 0).all() and found.centroids.dtype == np.float32
    assert set(found.labels.tolist()) == set(range(len(found.centroids)))
    for i, centroid in enumerate(found.centroids):
        mean = values[found.labels == i].astype(np.float64).mean()
        assert abs(centroid - mean) <= 2e-7 * np.abs(values).max()
    squares = (values.astype(np.float64) - found.values) ** 2
    assert found.error == pytest.approx(squares.sum(), rel=1e-9, abs=1e-300)


@settings(max_examples=100, deadline=None)
@given(st.lists(FLOATS, min_size=1, max_size=200), st.integers(1, 40), st.sampled_from([0, 1 << 21]))
def test_never_worse_than_linear(values, k, work):
    values = np.array(values, np.float32)
    found = [
        error_of(values, cluster(values, k, **more).labels) for more in ({"work": work}, {"linear": True})
    ]
    assert found[0] <= found[1] + 1e-12 * float((values.astype(np.float64) ** 2).sum())


@pytest.mark.parametrize(
    ("k", "work", "gap"), [(16, 1 << 15, 1e-4), (64, 1 << 17, 1e-3), (256, 1 << 21, 1e-3)]
)
def test_cells_cost_little(k, work, gap):
    """12,000 weights in 2,048 or, as ever at 8 bits, 8,192 cells against the exact answer."""
    values = np.random.default_rng(k).standard_t(5, 12_000).astype(np.float32)
    exact = best_edges(Line(np.sort(values.astype(np.float64)), np.ones(len(values))), k)
    least = Line(np.sort(values.astype(np.float64)), np.ones(len(values))).error(exact)
    found = error_of(values, cluster(values, k, work=work).labels)
    assert least * (1 - 1e-9) <= found <= least * (1 + gap)


@pytest.mark.parametrize("linear", [False, True])
def test_as_many_clusters_as_values_change_nothing(linear):
    values = normal(500, repeated=True).reshape(5, 10, 10)
    found = cluster(values, len(np.unique(values)), linear)
    np.testing.assert_array_equal(found.values, values)
    assert found.error == 0


@pytest.mark.parametrize("linear", [False, True])
def test_order_shift_and_scale_change_nothing_else(linear):
    values, rng = normal(1000), np.random.default_rng(1)
    found, order = cluster(values, 8, linear), rng.permutation(1000)
    np.testing.assert_array_equal(cluster(values[order], 8, linear).labels, found.labels[order])
    np.testing.assert_array_equal(cluster(4 * values, 8, linear).centroids, 4 * found.centroids)
    moved = cluster((values.astype(np.float64) + 1).astype(np.float32), 8, linear)
    np.testing.assert_allclose(moved.centroids, found.centroids + 1, atol=2e-6)
    turned = cluster(-values, 8, linear)
    np.testing.assert_array_equal(turned.centroids, -found.centroids[::-1])


@pytest.mark.parametrize("gap", [False, True])
@pytest.mark.parametrize("k", [4, 16, 32])
def test_linear_is_scikit_learns_iteration(k, gap):
    """HAP's program calls it so; in a gap between weights its centroids lose all members."""
    values = normal(3000, seed=k) + np.where(np.arange(3000) < 1500, np.float32(0.8 * gap), np.float32(0))
    start = np.linspace(values.min(), values.max(), k)[:, None]
    other = KMeans(k, init=start, n_init=1, tol=0, algorithm="lloyd").fit(values[:, None].astype(np.float64))
    assert other.n_iter_ < 300
    found = cluster(values, k, linear=True)
    np.testing.assert_allclose(found.centroids, np.sort(other.cluster_centers_[:, 0]), atol=1e-6)
    np.testing.assert_allclose(found.error, other.inertia_, rtol=1e-5)


def test_nothing_to_cluster():
    found = cluster(np.zeros((0, 3), np.float32), 4)
    assert found.labels.shape == (0, 3) and found.centroids.shape == (0,) and found.error == 0


@pytest.mark.parametrize(
    ("values", "k", "words"), [([1.0], 0, "k=0"), ([1.0, np.nan, np.inf], 2, "2 that are not")]
)
def test_what_cannot_be_clustered_is_refused(values, k, words):
    with pytest.raises(UsageError, match=words):
        cluster(np.array(values, np.float32), k)
