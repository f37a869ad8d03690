"""The number of clusters that two rules suggest, and what a seed changes."""

import numpy as np
import pytest
from sklearn.datasets import make_blobs
from sklearn.metrics import adjusted_rand_score, silhouette_score

from foundling.categories.choose import stability, suggest_clusters
from foundling.categories.cluster import cluster_objects
from foundling.errors import ParameterError


def blobs(std=1.0, groups=5) -> np.ndarray:
    return make_blobs(120, 10, centers=groups, cluster_std=std, random_state=1)[0].astype(np.float32)


def test_both_rules_find_groups_that_lie_apart():
    found = suggest_clusters(blobs(), 9, neighbours=8)
    assert found.by_eigengap == found.by_silhouette == found.suggested == 5
    assert found.ks.tolist() == list(range(2, 10)) and len(found.eigenvalues) == 10
    assert found.gaps[3] == found.eigenvalues[5] - found.eigenvalues[4]


def test_the_rule_that_is_asked_for_decides():
    x = blobs(8.0)
    one, other = (suggest_clusters(x, 9, rule, neighbours=8) for rule in ("silhouette", "eigengap"))
    assert one.suggested == one.ks[np.argmax(one.silhouettes)] and other.suggested == other.ks[np.argmax(other.gaps)]


def test_silhouettes_are_those_of_clusterings_made_one_by_one():
    x = blobs(4.0)
    found = suggest_clusters(x, 6, neighbours=12)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    for k, value in zip(found.ks, found.silhouettes, strict=True):
        labels = cluster_objects(x, int(k), neighbours=12).labels
        assert value == pytest.approx(silhouette_score(unit, labels), abs=0.02)


def test_silhouettes_of_a_part_are_near_those_of_all():
    x = blobs(2.0)
    part, whole = (suggest_clusters(x, 7, neighbours=8, sample=count) for count in (70, 500))
    assert (part.objects, whole.objects) == (70, 120)
    np.testing.assert_allclose(part.silhouettes, whole.silhouettes, atol=0.1)


def test_the_order_of_the_objects_does_not_matter():
    x = blobs(4.0)
    one, other = suggest_clusters(x, 6, neighbours=8), suggest_clusters(x[::-1].copy(), 6, neighbours=8)
    np.testing.assert_allclose(one.eigenvalues, other.eigenvalues, atol=1e-9)
    np.testing.assert_allclose(one.silhouettes, other.silhouettes, atol=1e-6)


def test_most_is_lowered_to_what_there_is():
    assert suggest_clusters(blobs()[:8], 40, neighbours=3).ks.tolist() == list(range(2, 8))


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        (np.ones((20, 4), np.float32), {}, "1 different descriptors among 20"),
        (np.full((20, 4), np.nan, np.float32), {}, "0 objects with finite descriptors"),
        (np.eye(20, dtype=np.float32), {"rule": "elbow"}, "rule is 'elbow': choose one of silhouette, eigengap"),
        (np.eye(20, dtype=np.float32), {"most": 1}, "most=1"),
    ],
)
def test_what_has_no_number_is_refused(x, options, message):
    with pytest.raises(ParameterError, match=message):
        suggest_clusters(x, neighbours=5, **options)


def test_stability_compares_every_pair_of_seeds():
    x = blobs(9.0)
    found = stability(x, 6, "kmeans_lost", seeds=(0, 1, 2), score=lambda clusters: float(clusters.sizes.max()))
    labels = [cluster_objects(x, 6, "kmeans_lost", seed=seed).labels for seed in (0, 1, 2)]
    pairs = [adjusted_rand_score(labels[i], labels[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
    assert found.ari[0, 1] == pytest.approx(pairs[0]) and (np.diag(found.ari) == 1).all()
    assert found.mean_ari == pytest.approx(np.mean(pairs)) and found.mean_ari < 1
    largest = [np.bincount(each).max() for each in labels]
    assert found.scores is not None and found.scores.tolist() == largest
    assert found.mean == pytest.approx(np.mean(largest)) and found.std == pytest.approx(np.std(largest, ddof=1))


def test_groups_that_lie_apart_are_stable():
    found = stability(blobs(), 5, neighbours=8)
    assert found.mean_ari == 1 and found.scores is None and found.std is None


def test_seeds_must_differ():
    with pytest.raises(ParameterError, match=r"seeds=\[1, 1\]: give two or more, each once"):
        stability(blobs(), 5, seeds=(1, 1))
