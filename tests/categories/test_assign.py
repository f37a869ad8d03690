"""New objects under the clusters of others: by hand, against the definition, and what cannot be assigned."""

import numpy as np
import pytest
from sklearn.datasets import make_blobs

from foundling.categories.assign import assign_objects
from foundling.categories.cluster import METHODS, cluster_objects
from foundling.errors import ParameterError

LINE = np.array([[0.0], [0.1], [0.2], [5.0], [5.1]], np.float32)


def blobs(seed=0, count=120):
    x, _ = make_blobs(count, 6, centers=4, cluster_std=1.0, random_state=3)
    more, _ = make_blobs(count, 6, centers=4, cluster_std=1.0, random_state=np.random.RandomState(3))
    return x.astype(np.float32), (more + np.random.default_rng(seed).normal(0, 0.2, more.shape)).astype(np.float32)


def test_on_a_line_by_hand():
    new = np.array([[0.3], [2.4], [2.7], [9.0], [np.nan]], np.float32)
    assert assign_objects(new, LINE, cluster_objects(LINE, 2, "kmeans")).tolist() == [0, 0, 1, 1, -1]
    spectral = cluster_objects(LINE, 2, "spectral", neighbours=2)
    assert assign_objects(new, LINE, spectral, 3).tolist() == [0, 0, 1, 1, -1]
    assert assign_objects(new, LINE, spectral, 99).tolist() == [0, 0, 0, 0, -1]  # all five vote


@pytest.mark.parametrize("method", METHODS)
def test_objects_that_were_clustered_get_their_own_cluster(method):
    x, _ = blobs()
    found = cluster_objects(x, 4, method, 1, 12)
    assert np.mean(assign_objects(x, x, found, 12) == found.labels) > 0.98  # LOST's ten iterations may not have ended


@pytest.mark.parametrize("method", ["kmeans", "kmeans_lost"])
def test_the_nearest_centre_against_a_loop(method):
    x, new = blobs()
    found = cluster_objects(x, 7, method, 2)
    deviation = x.astype(np.float64).std(axis=0) if method == "kmeans_lost" else 1.0
    for row, label in zip(new.astype(np.float64), assign_objects(new, x, found), strict=True):
        scaled = row / deviation
        scaled = scaled / np.linalg.norm(scaled) if method == "kmeans_lost" else scaled
        distances = [np.linalg.norm(scaled - centre) for centre in found.centres]
        assert label == np.nanargmin(distances)


def test_a_vote_against_a_loop_and_the_order_of_rows():
    x, new = blobs()
    found = cluster_objects(x, 5, "spectral", 0, 10)
    labels = assign_objects(new, x, found, 9)
    for row, label in zip(new, labels, strict=True):
        votes = found.labels[np.argsort(np.linalg.norm(x - row, axis=1), kind="stable")[:9]]
        assert label == np.bincount(votes).argmax()
    turned = np.random.default_rng(0).permutation(len(new))
    assert (assign_objects(new[turned], x, found, 9) == labels[turned]).all()


def test_empty_clusters_get_nothing_and_objects_without_one_do_not_vote():
    same = np.zeros((6, 2), np.float32)
    found = cluster_objects(same, 3, "kmeans")
    assert "empty" in found.flags
    assert assign_objects(np.ones((2, 2), np.float32), same, found).tolist() == [0, 0]
    known = np.concatenate([LINE, np.full((1, 1), np.nan, np.float32)])
    spectral = cluster_objects(known, 2, "spectral", neighbours=2)
    assert assign_objects(LINE, known, spectral, 2).tolist() == [0, 0, 0, 1, 1]
    assert assign_objects(np.full((2, 1), np.nan, np.float32), known, spectral).tolist() == [-1, -1]


def test_what_does_not_belong_together_is_refused():
    found = cluster_objects(LINE, 2, "kmeans")
    with pytest.raises(ParameterError, match="5 labels of 4 descriptors with 1 channels, and new ones with 1: "):
        assign_objects(LINE, LINE[1:], found)
    with pytest.raises(ParameterError, match="with 2: give the descriptors that were clustered"):
        assign_objects(np.zeros((1, 2), np.float32), LINE, found)
