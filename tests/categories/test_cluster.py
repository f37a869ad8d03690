"""Clusterings against the published steps and scikit-learn, their invariances, and degenerate input."""

import warnings

import numpy as np
import pytest
from scipy.cluster import vq
from scipy.spatial.distance import cosine
from sklearn.cluster import KMeans, SpectralClustering
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score as ari

from foundling.categories.cluster import METHODS, Clusters, cluster_objects, core, lost_scaled
from foundling.errors import ParameterError


def blobs(std=2.0, count=160, groups=4, channels=8) -> tuple[np.ndarray, np.ndarray]:
    x, y = make_blobs(count, channels, centers=groups, cluster_std=std, random_state=3)
    return x.astype(np.float32), y


def test_two_groups_on_a_line_by_hand():
    x = np.array([[0.0], [0.1], [0.2], [5.0], [5.1]], np.float32)
    found = cluster_objects(x, 2, "kmeans")
    assert found.labels.tolist() == [0, 0, 0, 1, 1]  # the largest cluster is 0
    np.testing.assert_allclose(found.centres, [[0.1], [5.05]], atol=1e-6)
    assert found.sizes.tolist() == [3, 2] and found.flags == () and found.eigenvalues is None
    assert cluster_objects(x, 2, "spectral", neighbours=2).labels.tolist() == [0, 0, 0, 1, 1]


@pytest.mark.filterwarnings("ignore:Graph is not fully connected")  # scikit-learn's
@pytest.mark.parametrize("std", [2.0, 4.0])
def test_spectral_clusters_are_those_of_scikit_learn(std):
    x, y = blobs(std)
    theirs = SpectralClustering(4, affinity="nearest_neighbors", n_neighbors=12, random_state=0).fit_predict(x)
    ours = cluster_objects(x, 4, neighbours=12)
    assert ari(ours.labels, theirs) > 0.95 and ari(ours.labels, y) > 0.9


def rings() -> tuple[np.ndarray, np.ndarray]:
    angle = np.linspace(0, 2 * np.pi, 80, endpoint=False)
    circle = np.stack([np.cos(angle), np.sin(angle)], 1)
    return np.concatenate([circle, 5 * circle]).astype(np.float32), np.repeat([0, 1], 80)


def test_spectral_clustering_parts_what_k_means_cannot():
    x, y = rings()
    assert ari(cluster_objects(x, 2, neighbours=6).labels, y) == 1
    assert ari(cluster_objects(x, 2, "kmeans").labels, y) < 0.5


def test_k_means_are_as_tight_as_scikit_learns():
    x, _ = blobs(8.0)
    theirs = KMeans(4, n_init=10, random_state=1).fit(x)
    ours = cluster_objects(x, 4, "kmeans")
    inertia = ((x - ours.centres[ours.labels]) ** 2).sum()
    assert inertia == pytest.approx(theirs.inertia_, rel=0.02)


def test_k_means_of_lost_are_those_of_the_published_steps():
    """scipy's whiten, rows of length 1, kmeans2 after np.random.seed: the same draws, up to the names of clusters."""
    x, _ = blobs(6.0)
    white = vq.whiten(x)
    white = white / np.linalg.norm(white, axis=1, keepdims=True)
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(123)  # noqa: NPY002
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of an empty cluster
        _, theirs = vq.kmeans2(white, 4)
    np.random.set_state(state)  # noqa: NPY002
    ours = cluster_objects(x, 4, "kmeans_lost", seed=123)
    assert ari(ours.labels, theirs) == 1
    np.testing.assert_allclose(ours.embedding, white, rtol=1e-5)


def test_scaling_of_lost_leaves_constants_and_zeros():
    x = np.array([[0.0, 2.0, 0.0], [4.0, 2.0, 0.0]])
    np.testing.assert_allclose(lost_scaled(x), [[0, 1, 0], [1 / 2**0.5, 1 / 2**0.5, 0]])
    assert lost_scaled(np.zeros((2, 3))).tolist() == [[0] * 3] * 2


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_the_objects_does_not_matter(method):
    x, _ = blobs(6.0)
    mixed = np.random.default_rng(0).permutation(len(x))
    one, other = cluster_objects(x, 5, method, neighbours=10), cluster_objects(x[mixed], 5, method, neighbours=10)
    assert other.labels.tolist() == one.labels[mixed].tolist()
    np.testing.assert_allclose(other.distances, one.distances[mixed], atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_distances_are_cosines_in_the_space_that_was_clustered(method):
    x, _ = blobs(6.0)
    found = cluster_objects(x, 4, method, neighbours=10)
    assert found.embedding.shape == (160, 4 if method == "spectral" else 8)
    assert (found.eigenvalues is not None) == (method == "spectral")
    for i in range(0, 160, 7):
        own = found.embedding[found.labels == found.labels[i]].mean(axis=0)
        assert found.distances[i] == pytest.approx(cosine(found.embedding[i], own), abs=1e-6)


def test_more_clusters_than_classes_part_these():
    x, y = blobs()
    found = cluster_objects(x, 12, neighbours=12)
    assert (found.sizes > 0).sum() == 12
    assert all(len(np.unique(y[found.labels == k])) == 1 for k in range(12))


def test_many_objects_are_clustered_approximately():
    x, y = blobs(2.0, 400, 4, 80)
    for method in ("spectral", "kmeans"):
        found = cluster_objects(x, 4, method, neighbours=20, exact_up_to=100)
        assert "approximate" in found.flags and ari(found.labels, y) == 1
    assert "approximate" not in cluster_objects(x, 4, "kmeans").flags


def test_objects_without_a_finite_descriptor_get_no_cluster():
    x, _ = blobs()
    gaps = x.copy()
    gaps[3], gaps[90, 2] = np.nan, np.inf
    rest = np.delete(np.arange(160), [3, 90])
    found, whole = cluster_objects(gaps, 4, neighbours=10), cluster_objects(x[rest], 4, neighbours=10)
    assert found.labels[[3, 90]].tolist() == [-1, -1] and found.sizes.sum() == 158
    assert np.isnan(found.distances[[3, 90]]).all() and np.isnan(found.embedding[3]).all()
    assert found.labels[rest].tolist() == whole.labels.tolist()
    assert not core(found)[[3, 90]].any()


@pytest.mark.parametrize("method", METHODS)
def test_no_more_values_than_clusters_are_a_cluster_each(method):
    x = np.repeat([[1.0, 2.0], [3.0, 1.0]], [12, 8], axis=0).astype(np.float32)
    found = cluster_objects(x, 3, method, neighbours=5)
    assert found.labels.tolist() == [0] * 12 + [1] * 8
    assert {"identical", "empty"} <= set(found.flags) and np.isnan(found.centres[2]).all()
    same = cluster_objects(x[:12], 3, method, neighbours=5)
    assert same.labels.tolist() == [0] * 12 and core(same).all()


def test_as_many_clusters_as_objects_are_one_each():
    found = cluster_objects(blobs()[0][:9], 9, "kmeans")
    assert sorted(found.labels.tolist()) == list(range(9)) and found.flags == ()
    np.testing.assert_allclose(found.distances, 0, atol=1e-6)


def test_a_graph_in_more_parts_than_clusters_has_a_result():
    x, _ = blobs(0.1, 160, 8)
    found = cluster_objects(x, 3, neighbours=5)
    assert {"disconnected", "crowded"} <= set(found.flags) and found.components >= 8
    assert (found.labels >= 0).all() and (found.sizes > 0).all()


@pytest.mark.parametrize(
    ("clusters", "options", "message"),
    [
        (11, {"method": "kmeans"}, "11 clusters .* of 10 objects with finite descriptors: choose at most 10"),
        (0, {"method": "kmeans"}, "is 0: choose at least 1"),
        (2, {}, "neighbours=30 of 10 objects: choose from 2 to 9"),
        (2, {"method": "medoids"}, "method is 'medoids': choose one of spectral, kmeans, kmeans_lost"),
        (12, {"dimensions": 3, "neighbours": 4}, "clusters=12 of 10 objects"),
    ],
)
def test_parameters_are_checked(clusters, options, message):
    with pytest.raises(ParameterError, match=message):
        cluster_objects(blobs()[0][:10], clusters, **options)


def test_without_a_finite_descriptor_there_are_no_clusters():
    with pytest.raises(ParameterError, match=r"2 clusters .* of 0 objects with finite descriptors"):
        cluster_objects(np.full((5, 3), np.nan, np.float32), 2)


def clusters_of(labels, distances) -> Clusters:
    labels, distances = np.array(labels), np.array(distances, dtype=np.float64)
    count = int(labels.max()) + 1
    return Clusters("kmeans", count, labels, distances, np.zeros((len(labels), 1)), np.zeros((count, 1)), None, 1, ())


def test_the_core_is_strictly_below_the_percentile_of_each_cluster():
    """Distances 0, 0.1, …, 1.0 have their 80th percentile at 0.8, which is not kept; -1 is in no cluster."""
    found = clusters_of([0] * 11 + [1] * 3 + [-1], [*(np.arange(11) / 10), 0.5, 0.7, 0.6, 0.0])
    kept = core(found, 0.8)
    assert kept[:11].tolist() == [True] * 8 + [False] * 3
    assert kept[11:].tolist() == [True, False, True, False]
    assert core(found, 1.0).tolist() == [True] * 14 + [False]
    assert found.kept(kept)[8:].tolist() == [-1, -1, -1, 1, -1, 1, -1]


def test_a_cluster_of_one_or_at_one_distance_stays():
    found = clusters_of([0, 1, 1, 1, 3], [0.3, 0.2, 0.2, 0.2, 0.0])
    assert core(found, 0.5).all()


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1])
def test_shares_are_checked(share):
    with pytest.raises(ParameterError, match=f"share={share}"):
        core(clusters_of([0], [0.1]), share)
