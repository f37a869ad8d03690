"""Clusters against classes: by hand, against scikit-learn's definitions written out, and bad input."""

import itertools
from math import comb, log

import numpy as np
import pytest

from foundling.errors import ParameterError
from foundling.evaluation.clustering import clustering_scores


def random_labels(seed=0, objects=80):
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 4, objects)
    return np.where(rng.random(objects) < 0.6, (classes + 1) % 4, rng.integers(0, 4, objects)), classes


def test_by_hand() -> None:
    result = clustering_scores(np.array([7, 7, 7, 9, 9, 9]), np.array([3, 3, 5, 5, 5, 5]))
    assert result.accuracy.value == pytest.approx(100 * 5 / 6)


def test_accuracy_is_that_of_the_best_renaming() -> None:
    clusters, classes = random_labels()
    best = max(np.mean(np.array(p)[clusters] == classes) for p in itertools.permutations(range(4)))
    result = clustering_scores(clusters, classes)
    assert result.accuracy.value == pytest.approx(100 * best)
    assert result.accuracy.low < result.accuracy.value < result.accuracy.high


def test_nmi_and_ari_from_their_definitions() -> None:
    clusters, classes = random_labels(1)
    n = len(clusters)
    joint = np.array([[np.sum((clusters == a) & (classes == b)) for b in range(4)] for a in range(4)])
    a, b = joint.sum(1), joint.sum(0)
    shared = sum(
        joint[i, j] / n * log(n * joint[i, j] / (a[i] * b[j])) for i in range(4) for j in range(4) if joint[i, j]
    )
    entropies = [-sum(x / n * log(x / n) for x in side if x) for side in (a, b)]
    pairs = sum(comb(int(x), 2) for x in joint.ravel())
    of_a, of_b = (sum(comb(int(x), 2) for x in side) for side in (a, b))
    chance = of_a * of_b / comb(n, 2)
    result = clustering_scores(clusters, classes)
    assert result.nmi == pytest.approx(100 * 2 * shared / sum(entropies))
    assert result.ari == pytest.approx(100 * (pairs - chance) / ((of_a + of_b) / 2 - chance))


def test_more_clusters_than_classes() -> None:
    clusters, classes = np.array([0, 1, 2, 3]), np.array([0, 0, 1, 1])
    assert clustering_scores(clusters, classes).accuracy.value == pytest.approx(50)
    assert clustering_scores(clusters, classes, "majority").accuracy.value == pytest.approx(100)


def test_nothing_to_compare() -> None:
    with pytest.raises(ParameterError, match="2 clusters and 3 classes"):
        clustering_scores(np.array([0, 1]), np.array([0, 1, 1]))
    with pytest.raises(ParameterError, match="one or more"):
        clustering_scores(np.array([], dtype=np.int64), np.array([], dtype=np.int64))
