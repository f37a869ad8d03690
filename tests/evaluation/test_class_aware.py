"""AP of clusters judged by classes: by hand, against loops and all matchings, fewer and more clusters, errors."""

from itertools import permutations

import numpy as np
import pytest
from detected import devkit_ap, drawn_copies, found_of, random_case, sample_of

from foundling.errors import ParameterError
from foundling.evaluation import class_aware, precision_difference

BOX, OTHER, FAR = (0, 0, 40, 40), (60, 0, 100, 40), (200, 200, 240, 240)


def values_of(scores) -> dict[str, float | None]:
    return {name: interval.value for name, interval in scores.values.items()}


def test_by_hand():
    # class 0 is found by cluster 2 with IoU .8, class 1 by cluster 0 in one of two images; cluster 1 finds nothing
    samples = [sample_of(1, [BOX, OTHER], [0, 1]), sample_of(2, [OTHER], [1])]
    detected = {1: found_of([(0, 0, 32, 40), OTHER, FAR], labels=[2, 0, 1]), 2: found_of([FAR], labels=[1])}
    scores = class_aware(detected, samples, 2, resamples=0)
    assert scores.assignment.tolist() == [1, -1, 0]
    assert values_of(scores)["AP50"] == pytest.approx(75)
    assert values_of(scores)["AP75"] == pytest.approx(75)
    assert values_of(scores)["AP"] == pytest.approx(100 * (0.6 + 0.5) / 2)  # an IoU of .8 is above .5, .55, … .75
    assert [one.value for one in scores.classes] == [pytest.approx(100), pytest.approx(50)]
    assert scores.matrix.shape == (10, 3, 2)
    np.testing.assert_allclose(scores.matrix[0], [[0, 50], [0, 0], [100, 0]])
    np.testing.assert_allclose(scores.curves[1].recall, [0.5])
    assert scores.objects.tolist() == [1, 2]


def by_loops(samples, detected, classes, clusters):
    """The matrix at each IoU by the devkit's loop, and the best mean over all ways to give classes clusters."""
    matrix = np.array([
        [[devkit_ap(samples, detected, k, c, t / 100) for c in range(classes)] for k in range(clusters)]
        for t in range(50, 100, 5)
    ])  # fmt: skip
    here = [c for c in range(classes) if not np.isnan(matrix[0, :, c]).any()]
    ways = permutations([*range(clusters), *[None] * classes], len(here))
    best = max(ways, key=lambda way: sum(matrix[0, k, c] for k, c in zip(way, here, strict=True) if k is not None))
    means = [np.mean([0.0 if k is None else table[k, c] for k, c in zip(best, here, strict=True)]) for table in matrix]
    return matrix, {"AP": 100 * np.mean(means), "AP50": 100 * means[0], "AP75": 100 * means[5]}


@pytest.mark.parametrize("clusters", [2, 3, 5])
def test_loops_and_all_matchings_agree(rng, clusters):
    for _ in range(3):
        samples, detected = random_case(rng, images=8, clusters=clusters)
        scores = class_aware(detected, samples, 3, clusters, resamples=0)
        matrix, values = by_loops(samples, detected, 3, clusters)
        np.testing.assert_allclose(scores.matrix, 100 * matrix, atol=1e-9)
        assert values_of(scores)["AP50"] == pytest.approx(values["AP50"], abs=1e-9)
        mean = np.nanmean([[0.0 if k is None else m[k, c] for c, k in _pairs(scores)] for m in matrix], axis=1)
        assert values_of(scores)["AP"] == pytest.approx(100 * mean.mean(), abs=1e-9)  # the same matching at every IoU


def _pairs(scores):
    named = {int(c): k for k, c in enumerate(scores.assignment) if c >= 0}
    return [(c, named.get(c)) for c in range(len(scores.classes)) if scores.objects[c]]


def test_renaming_the_clusters_changes_nothing(rng):
    samples, detected = random_case(rng, clusters=5)
    new = rng.permutation(5)
    renamed = {i: found_of(d.boxes, d.scores, new[d.labels]) for i, d in detected.items()}
    a, b = (class_aware(found, samples, 3, 5, resamples=20) for found in (detected, renamed))
    assert values_of(a) == pytest.approx(values_of(b))
    np.testing.assert_array_equal(a.assignment, b.assignment[new])


def test_fewer_clusters_than_classes_leave_classes_at_zero():
    samples = [sample_of(1, [BOX, OTHER], [0, 1])]
    scores = class_aware({1: found_of([BOX, OTHER], labels=[0, 0])}, samples, 2, resamples=0)
    assert scores.assignment.tolist() == [0]  # half right for either: the first
    assert [one.value for one in scores.classes] == [pytest.approx(100), 0]
    assert scores.curves[1] is None
    assert values_of(class_aware({}, samples, 2)) == {"AP": 0, "AP50": 0, "AP75": 0}


def test_detections_of_a_cluster_without_a_class_do_not_count():
    samples = [sample_of(1, [BOX, OTHER], [0, 1])]
    detected = {1: found_of([BOX, OTHER, *[FAR] * 9], labels=[0, 1, *[2] * 9])}
    assert values_of(class_aware(detected, samples, 2)) == pytest.approx({"AP": 100, "AP50": 100, "AP75": 100})


def test_a_class_that_does_not_occur_is_left_out_and_gets_no_cluster():
    samples = [sample_of(1, [BOX], [2], difficult=[False]), sample_of(2, [BOX, OTHER], [2, 0], difficult=[False, True])]
    detected = {i: found_of([BOX], labels=[1]) for i in (1, 2)}
    scores = class_aware(detected, samples, 4, 2, resamples=20)
    assert scores.assignment.tolist() == [-1, 2]
    assert [one.value for one in scores.classes] == [None, None, pytest.approx(100), None]
    assert values_of(scores)["AP50"] == pytest.approx(100)
    assert np.isnan(scores.matrix[:, :, [0, 1, 3]]).all()
    nothing = class_aware(detected, [sample_of(1, []), sample_of(2, [])], 4, resamples=20)
    assert values_of(nothing) == {"AP": None, "AP50": None, "AP75": None}


def test_an_empty_cluster_in_the_middle_is_no_trouble():
    samples = [sample_of(1, [BOX, OTHER], [0, 1])]
    scores = class_aware({1: found_of([BOX, OTHER], labels=[0, 7])}, samples, 2, 10, resamples=0)
    assert scores.assignment.tolist() == [0, -1, -1, -1, -1, -1, -1, 1, -1, -1]


def test_a_given_assignment_is_held():
    samples = [sample_of(1, [BOX, OTHER], [0, 1])]
    swapped = {1: found_of([BOX, OTHER], labels=[1, 0])}
    assert values_of(class_aware(swapped, samples, 2))["AP50"] == pytest.approx(100)
    assert values_of(class_aware(swapped, samples, 2, assignment=np.arange(2)))["AP50"] == 0


def test_intervals_are_those_of_images_drawn_and_measured_again(rng):
    samples, detected = random_case(rng, images=7, classes=2, clusters=3)
    scores = class_aware(detected, samples, 2, 3, resamples=25, seed=4)
    drawn = np.random.default_rng(4).integers(0, 7, (25, 7))
    cluster_of = {int(c): k for k, c in enumerate(scores.assignment) if c >= 0}
    for row, each, draw in zip(scores.draws[:4], scores.class_draws, drawn, strict=False):
        copies, found = drawn_copies(samples, detected, draw)
        aps = np.array([
            [100 * devkit_ap(copies, found, cluster_of[c], c, t / 100) for c in range(2)] for t in range(50, 100, 5)
        ])  # fmt: skip
        np.testing.assert_allclose(each, aps[0], atol=1e-9)
        np.testing.assert_allclose(row, [np.nanmean(aps), np.nanmean(aps[0]), np.nanmean(aps[5])], atol=1e-9)
    low, high = np.percentile(scores.draws[:, 1], [2.5, 97.5])
    assert scores.values["AP50"][1:] == (pytest.approx(low), pytest.approx(high))


def test_differences_are_paired(rng):
    samples, detected = random_case(rng, images=20)
    fewer = {i: found_of(d.boxes[:1], d.scores[:1], d.labels[:1]) for i, d in detected.items()}
    a, b = (class_aware(found, samples, 3, 4, resamples=30) for found in (detected, fewer))
    assert precision_difference(a, b)["AP50"].value == pytest.approx(values_of(a)["AP50"] - values_of(b)["AP50"])
    assert precision_difference(a, a)["AP"] == (0, 0, 0)


def test_a_class_of_one_image_has_no_interval():
    samples = [sample_of(1, [BOX, OTHER], [0, 1]), sample_of(2, [BOX], [0])]
    detected = {i: found_of([BOX, OTHER], labels=[0, 1]) for i in (1, 2)}
    scores = class_aware(detected, samples, 2, resamples=30)
    assert scores.classes[1] == (pytest.approx(100), None, None)
    assert scores.classes[0] == (pytest.approx(100), pytest.approx(100), pytest.approx(100))


def test_errors():
    samples = [sample_of(5, [BOX], [3])]
    detected = {5: found_of([BOX], labels=[2])}
    with pytest.raises(ParameterError, match="image_id 5 has an object of label 3: 2 classes given"):
        class_aware(detected, samples, 2)
    with pytest.raises(ParameterError, match="there is a detection of cluster 2, but 2 clusters are given"):
        class_aware(detected, samples, 4, 2)
    with pytest.raises(ParameterError, match="2 classes are assigned to 3 clusters"):
        class_aware(detected, samples, 4, 3, assignment=np.arange(2))
    for wrong in ([0, 1, 1], [0, 1, 4], [0, 1, -2]):
        with pytest.raises(ParameterError, match="give each of the 4 classes to one cluster at most"):
            class_aware(detected, samples, 4, assignment=np.array(wrong))
    with pytest.raises(ParameterError, match="confidence is 95"):
        class_aware(detected, samples, 4, confidence=95.0)
