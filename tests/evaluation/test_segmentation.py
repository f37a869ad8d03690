"""Segmentation after matching: by hand, against loops over pixels and over all assignments, and its conventions."""

import itertools

import numpy as np
import pytest

from foundling.errors import ParameterError
from foundling.evaluation.bootstrap import image_draws, precision_difference
from foundling.evaluation.matching import match
from foundling.evaluation.repeats import mean_of_runs
from foundling.evaluation.segmentation import confusion, iou_table, segmentation_scores


def random_maps(images=6, clusters=4, classes=4, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, (images, 9, 7))
    predicted = np.where(
        rng.random(truth.shape) < 0.6, (truth * 3 + 1) % clusters, rng.integers(0, clusters, truth.shape)
    )
    truth[rng.random(truth.shape) < 0.1] = 255
    return predicted, truth


def naive_ious(predicted, truth, clusters, classes):
    """IoU of every cluster with every class over all images, from sets of pixels."""
    counted = truth != 255
    return np.array(
        [
            [
                np.sum((predicted == c) & (truth == g)) / max(1, np.sum(((predicted == c) & counted) | (truth == g)))
                for g in range(classes)
            ]
            for c in range(clusters)
        ]
    )


def tables(predicted, truth, clusters, classes):
    return np.stack([confusion(p, t, clusters, classes) for p, t in zip(predicted, truth, strict=True)])


def test_confusion_by_hand() -> None:
    predicted, truth = np.array([[0, 0, 1], [2, 2, 1]]), np.array([[0, 1, 1], [1, 255, 1]])
    assert confusion(predicted, truth, 3, 2).tolist() == [[1, 1], [0, 2], [0, 1]]


def test_ious_are_those_of_sets_of_pixels() -> None:
    predicted, truth = random_maps()
    table = tables(predicted, truth, 4, 4).sum(0).astype(np.float64)
    assert iou_table(table) == pytest.approx(naive_ious(predicted, truth, 4, 4))


def test_hungarian_is_the_best_of_all_assignments() -> None:
    predicted, truth = random_maps(seed=1)
    ious = naive_ious(predicted, truth, 4, 4)
    best = max(itertools.permutations(range(4)), key=lambda p: sum(ious[c, g] for c, g in enumerate(p)))
    result = segmentation_scores(tables(predicted, truth, 4, 4))
    assert tuple(result.assignment) == best
    assert result.miou.value == pytest.approx(100 * np.mean([ious[c, g] for c, g in enumerate(best)]))
    right = sum(np.sum((predicted == c) & (truth == g)) for c, g in enumerate(best))
    assert result.accuracy.value == pytest.approx(100 * right / np.sum(truth != 255))


def test_majority_merges_clusters_of_one_class() -> None:
    truth = np.array([[0, 0, 0, 1, 1, 1, 1, 1]])
    predicted = np.array([[0, 0, 0, 1, 1, 2, 2, 0]])  # class 1 in two pieces, one pixel of it called background
    table = tables(predicted[None], truth[None], 3, 2)
    result = segmentation_scores(table, "majority")
    assert result.assignment.tolist() == [0, 1, 1]
    assert result.classes == pytest.approx([75.0, 80.0])
    one_each = segmentation_scores(table)
    assert sorted(one_each.assignment.tolist()) == [-1, 0, 1]
    assert one_each.accuracy.value == pytest.approx(100 * 5 / 8)  # the piece that is left over is wrong


def test_numbers_of_clusters_mean_nothing() -> None:
    predicted, truth = random_maps(seed=2)
    order = np.array([2, 0, 3, 1])
    first, second = (segmentation_scores(tables(p, truth, 4, 4)) for p in (predicted, order[predicted]))
    assert first.miou == pytest.approx(second.miou)
    assert (second.assignment[order] == first.assignment).all()


def test_perfect_clusters_and_classes_that_do_not_occur() -> None:
    truth = np.array([[[0, 2], [2, 0]]] * 3)
    result = segmentation_scores(tables(truth, truth, 4, 4))
    assert result.miou == (100.0, 100.0, 100.0)
    assert np.isnan(result.classes).tolist() == [False, True, False, True]
    assert result.found == 1  # class 2; background does not count


def test_the_interval_holds_the_value_and_narrows_with_images() -> None:
    few, many = (segmentation_scores(tables(*random_maps(n, seed=3), 4, 4), seed=1) for n in (6, 60))
    for result in (few, many):
        assert result.miou.low < result.miou.value < result.miou.high
    assert many.miou.high - many.miou.low < few.miou.high - few.miou.low
    assert segmentation_scores(tables(*random_maps(1), 4, 4)).miou.low is None


@pytest.mark.parametrize("matching", ["hungarian", "majority"])
def test_intervals_are_those_of_images_drawn_one_by_one(matching: str) -> None:
    """Of every draw, from its pixels: the mean IoU of the classes in it, and the share of right pixels."""
    predicted, truth = random_maps(5, clusters=6, seed=4)
    truth[1:][truth[1:] == 3] = 0  # a class in one image alone: not in every draw
    confusions = tables(predicted, truth, 6, 4)
    result = segmentation_scores(confusions, matching, resamples=200, seed=7, confidence=0.8)
    named = np.append(result.assignment, 99)[np.where(truth == 255, 6, predicted)]
    drawn = []
    for weights in np.concatenate(list(image_draws(5, 200, 7))).astype(int):
        which = np.repeat(np.arange(5), weights)
        found, true, ious = named[which], truth[which], []
        for g in range(4):
            if (true == g).any():
                ious.append(np.sum((found == g) & (true == g)) / np.sum((found == g) | (true == g)))
        drawn.append([100 * np.mean(ious), 100 * np.sum(found == true) / np.sum(true != 255)])
    for interval, values in zip((result.miou, result.accuracy), np.transpose(drawn), strict=True):
        assert interval[1:] == pytest.approx(tuple(np.percentile(values, [10, 90])))


def test_without_draws_there_are_no_intervals() -> None:
    confusions = tables(*random_maps(), 4, 4)
    with_draws, without = segmentation_scores(confusions), segmentation_scores(confusions, resamples=0)
    assert without.miou == (with_draws.miou.value, None, None) and without.accuracy.low is None


def test_classes_that_reach_an_iou() -> None:
    """Background and classes of 1/2, 1/5 and 0 of ten pixels each; a fifth class does not occur."""
    truth = np.repeat([0, 1, 2, 3], 10)[None]
    predicted = np.repeat([0, 1, 3, 0, 2, 3], [10, 5, 5, 8, 2, 10])[None]
    confusions = confusion(predicted, truth, 5, 5)[None]
    result = segmentation_scores(confusions, "majority")
    assert result.classes == pytest.approx([100 * 10 / 18, 50, 20, 200 / 3, np.nan], nan_ok=True)
    assert result.found == 3 and result.reaching() == (4, pytest.approx(np.mean([1000 / 18, 50, 20, 200 / 3])))
    assert result.reaching(51.0) == (2, pytest.approx(np.mean([1000 / 18, 200 / 3])))
    assert result.reaching(99.0) == (0, None)
    missed = segmentation_scores(confusion(predicted * 0, truth, 5, 5)[None])
    assert missed.classes[1] == 0 and missed.reaching(0.0) == (1, pytest.approx(25))


def test_maps_that_cannot_be_compared() -> None:
    small, large = np.zeros((2, 3), dtype=np.int64), np.zeros((3, 3), dtype=np.int64)
    with pytest.raises(ParameterError, match="3×2 and 3×3 pixels: resize"):
        confusion(small, large, 2, 2)
    with pytest.raises(ParameterError, match="the true label map holds 7: legal are 0 to 1, and 255"):
        confusion(small, small + 7, 2, 2)
    with pytest.raises(ParameterError, match="the predicted label map holds -1: legal are 0 to 1"):
        confusion(small - 1, small, 2, 2)
    with pytest.raises(ParameterError, match="no pixel of these images counts"):
        segmentation_scores(confusion(small, small + 255, 2, 2)[None])
    with pytest.raises(ParameterError, match="matching is 'best': choose one of hungarian, majority"):
        match(np.eye(2), "best")


def test_more_classes_than_clusters() -> None:
    assert match(np.array([[0.1, 0.9, 0.0]])).tolist() == [1]
    assert match(np.array([[0.1], [0.9], [0.5]])).tolist() == [-1, 0, -1]


def test_differences_are_paired_and_of_the_mean_over_runs() -> None:
    """Two runs against one: the interval is that of the differences of the same draws."""
    rng = np.random.default_rng(3)
    base = rng.integers(0, 40, (9, 3, 3)) + 60 * np.eye(3, dtype=np.int64)
    runs = [base + extra * np.eye(3, dtype=np.int64) for extra in (20, 60)]
    theirs = segmentation_scores(base, resamples=300, seed=1)
    ours = [segmentation_scores(run, resamples=300, seed=1) for run in runs]
    gain = precision_difference(mean_of_runs(ours), mean_of_runs([theirs]))["miou"]
    assert gain.value == pytest.approx(np.mean([one.miou.value for one in ours]) - theirs.miou.value)
    draws = np.mean([one.draws[:, 0] for one in ours], axis=0) - theirs.draws[:, 0]
    assert (gain.low, gain.high) == pytest.approx(tuple(np.percentile(draws, [2.5, 97.5])))
    assert 0 < gain.low < gain.value < gain.high  # narrower than what either interval would allow
    assert gain.high - gain.low < theirs.miou.high - theirs.miou.low
    other = segmentation_scores(base[:5], resamples=300, seed=1)
    with pytest.raises(ParameterError, match="same images"):
        precision_difference(ours[0], other)
