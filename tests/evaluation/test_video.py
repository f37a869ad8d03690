"""J and F against hand-worked squares and a slow oracle that dilates with a disk; means, recall, decay, intervals."""

import math
from itertools import product

import cv2
import numpy as np
import pytest

from foundling.errors import ParameterError
from foundling.evaluation import Interval
from foundling.evaluation.video import (
    Measure,
    ObjectScore,
    VideoScores,
    contour,
    contour_accuracy,
    jf_difference,
    region_similarity,
    score_video,
    score_videos,
)

SHAPE = (60, 80)  # diagonal 100: the tolerance of 0.008 is 0.8, rounded up to one pixel


def square(top, left, side=20, shape=SHAPE):
    mask = np.zeros(shape, dtype=bool)
    mask[top : top + side, left : left + side] = True
    return mask


EMPTY = np.zeros(SHAPE, dtype=bool)


@pytest.mark.parametrize(
    ("found", "truth", "j"),
    [
        (square(10, 10), square(10, 10), 1),
        (square(10, 20), square(10, 10), 200 / 600),
        (square(10, 15), square(10, 10), 300 / 500),
        (square(10, 30), square(10, 10), 0),
        (EMPTY, square(10, 10), 0),
        (square(10, 10), EMPTY, 0),
        (EMPTY, EMPTY, 1),
    ],
)
def test_regions(found, truth, j):
    assert region_similarity(found, truth) == pytest.approx(j, abs=1e-12)


def test_the_contour_of_a_square():
    """A square of 2 has its outer neighbours on the left and above, and its own pixels on the right and below."""
    mask = np.zeros((6, 6), dtype=bool)
    mask[2:4, 2:4] = True
    expected = np.zeros((6, 6), dtype=bool)
    expected[1, 1:4] = expected[2:4, 1] = expected[3, 1:4] = expected[2:4, 3] = True
    assert np.array_equal(contour(mask), expected)


def test_the_image_edge_is_no_contour():
    assert not contour(np.ones((5, 5), dtype=bool)).any()
    half = np.zeros((4, 4), dtype=bool)
    half[:, 2:] = True
    assert np.array_equal(contour(half), np.array([[False, True, False, False]] * 4))


@pytest.mark.parametrize(
    ("found", "truth", "f"),
    [
        (square(10, 10), square(10, 10), 1),
        (square(10, 11), square(10, 10), 1),  # one pixel off is within the tolerance
        (EMPTY, EMPTY, 1),
        (EMPTY, square(10, 10), 0),
        (square(10, 10), EMPTY, 0),
        (np.ones(SHAPE, dtype=bool), square(10, 10), 0),  # a mask without contour, against one with
        (square(5, 5, 10), square(35, 50, 10), 0),
        # Three pixels to the right: the contour is a ring of 21 × 21 pixels, 80 of them. Of its rows (21 pixels each),
        # 18 overlap, and one more lies within a pixel; of its columns, none but their ends, which are part of the rows,
        # and the pixels next to a row of the other: one above the lower row and one below the upper, in the column of
        # each that lies within the other. So 2 · 19 + 2 of 80.
        (square(10, 13), square(10, 10), 40 / 80),
    ],
)
def test_contours(found, truth, f):
    assert contour_accuracy(found, truth) == pytest.approx(f, abs=1e-12)


def slow_contour_accuracy(found, truth):
    """From the definition: dilate each contour with a disk and count the pixels of the other under it."""
    radius = math.ceil(0.008 * math.hypot(*truth.shape))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    disk = (x * x + y * y <= radius * radius).astype(np.uint8)
    mine, theirs = (np.zeros(truth.shape, dtype=np.uint8) for _ in range(2))
    for mask, edge in ((found, mine), (truth, theirs)):
        for row in range(mask.shape[0]):
            for column in range(mask.shape[1]):
                block = mask[row : row + 2, column : column + 2]
                edge[row, column] = (block != mask[row, column]).any()
    if not mine.any() or not theirs.any():
        return float(mine.any() == theirs.any())
    precision = (mine & cv2.dilate(theirs, disk)).sum() / mine.sum()
    recall = (theirs & cv2.dilate(mine, disk)).sum() / theirs.sum()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


@pytest.mark.parametrize("shape", [(60, 80), (90, 160), (40, 400)])  # radius 1, 2, 4
def test_contours_against_the_oracle(rng, shape):
    for blur in (3, 9):
        found, truth = (cv2.GaussianBlur(rng.normal(size=shape), (0, 0), blur) > 0 for _ in range(2))
        near = np.roll(truth, 2, axis=1)
        for mask in (found, near):
            assert contour_accuracy(mask, truth) == pytest.approx(slow_contour_accuracy(mask, truth), abs=1e-9)


def test_flipping_both_changes_regions_never_and_contours_hardly(rng):
    """The contour lies on one side of the edge, so that a flip moves it by a pixel at the image's border."""
    found, truth = (cv2.GaussianBlur(rng.normal(size=SHAPE), (0, 0), 5) > 0 for _ in range(2))
    assert region_similarity(found[:, ::-1], truth[:, ::-1]) == region_similarity(found, truth)
    assert contour_accuracy(found.T, truth.T) == contour_accuracy(found, truth)
    assert contour_accuracy(found[::-1], truth[::-1]) == pytest.approx(contour_accuracy(found, truth), abs=0.02)


def labels(*masks):
    """One index mask, the later object above the earlier."""
    out = np.zeros(masks[0].shape, dtype=np.uint8)
    for number, mask in enumerate(masks, start=1):
        out[mask] = number
    return out


def moving(shifts, start=10):
    return np.stack([labels(square(10, start + shift)) for shift in shifts])


def test_first_and_last_frame_are_not_scored():
    truth = moving([0] * 5)
    found = moving([30, 0, 5, 10, 30])
    (score,) = score_video("v", found, truth)
    assert score.frames_j == pytest.approx([1, 300 / 500, 200 / 600])
    assert (score.video, score.number) == ("v", 1)
    assert score.j.mean == pytest.approx(100 * (1 + 0.6 + 1 / 3) / 3)
    assert score.j.recall == pytest.approx(200 / 3)
    assert score.frames_f[0] == 1
    assert score.jf == pytest.approx((score.j.mean + score.f.mean) / 2)


def test_decay_is_first_less_last_quarter():
    """Eight frames: quarters 1–3, 3–4, 4–6, 6–8 (1, 2.75, 4.5, 6.25, 8 rounded, ends shared)."""
    shifts = [0, 0, 5, 5, 5, 5, 10, 10]
    (score,) = score_video("v", moving([0, *shifts, 0]), moving([0] * 10))
    j = {0: 1.0, 5: 0.6, 10: 1 / 3}
    first, last = np.mean([j[s] for s in shifts[:3]]), np.mean([j[s] for s in shifts[5:]])
    assert score.j.decay == pytest.approx(100 * (first - last))


def test_perfect_masks_get_everything_and_no_decay():
    truth = moving([0, 2, 4, 6, 8])
    result = score_videos([("v", truth, truth)])
    assert result.jf == (100, None, None)
    assert (result.j.mean, result.j.recall, result.j.decay) == (100, 100, 0)
    assert (result.f.mean, result.f.recall, result.f.decay) == (100, 100, 0)


def test_each_object_counts_once_whatever_the_length_of_its_video():
    two = np.stack([labels(square(10, 10), square(35, 50))] * 9)
    half = np.where(two == 2, 0, two)  # the second object is lost
    short = moving([0, 0, 0])
    result = score_videos([("a", half, two), ("b", short, short)])
    assert [(s.video, s.number, s.j.mean) for s in result.objects] == [("a", 1, 100), ("a", 2, 0), ("b", 1, 100)]
    assert result.j.mean == pytest.approx(200 / 3)
    assert result.jf.value == pytest.approx((result.j.mean + result.f.mean) / 2)


def test_numbers_beyond_the_first_mask_do_not_count():
    """A truth whose object appears late is not scored, and one that vanishes is right where nothing is found."""
    first, gone = labels(square(10, 10)), np.zeros(SHAPE, dtype=np.uint8)
    late = labels(EMPTY, square(35, 50))
    truth = np.stack([first, first | late, gone, first])
    (score,) = score_video("v", np.stack([first, first, gone, first]), truth)
    assert score.frames_j.tolist() == [1, 1]


def test_void_counts_neither_way():
    truth = moving([0, 0, 0])
    truth[1][square(10, 30)] = 255
    truth[0][square(10, 30)] = 255
    found = truth.copy()
    found[1][square(10, 30)] = 1
    found[0] = 0
    (score,) = score_video("v", found, truth)
    assert score.frames_j.tolist() == [1]
    assert score.frames_f.tolist() == [1]


def test_the_interval_draws_whole_videos(rng):
    """Two objects that always agree say no more than one."""
    single, double = [], []
    for i in range(12):
        shift = int(rng.integers(0, 15))
        truth = moving([0] * 4)
        found = moving([0, shift, shift, 0])
        single.append((str(i), found, truth))
        both_truth, both = truth.copy(), found.copy()
        both_truth[:, 35:55], both[:, 35:55] = truth[:, 10:30] * 2, found[:, 10:30] * 2
        double.append((str(i), both, both_truth))
    one, two = score_videos(single, seed=3), score_videos(double, seed=3)
    assert one.jf.low < one.jf.value < one.jf.high
    assert (two.jf.high - two.jf.low) == pytest.approx(one.jf.high - one.jf.low, rel=0.05)
    assert score_videos(single, seed=3).jf == one.jf


def test_a_paired_difference():
    truth = moving([0] * 4)
    pairs = [(str(i), moving([0, i, i, 0]), truth) for i in range(6)]
    near, far = score_videos(pairs), score_videos([(n, np.roll(f, 4, axis=2), t) for n, f, t in pairs])
    gain = jf_difference(near, far)
    assert gain.value == pytest.approx(near.jf.value - far.jf.value)
    assert 0 < gain.low < gain.value < gain.high
    assert jf_difference(near, near) == (0, 0, 0)
    with pytest.raises(ParameterError, match="paired trackers need the same objects in one order: 6 and 5"):
        jf_difference(near, score_videos(pairs[:5]))


def scores_of(videos) -> VideoScores:
    """What :func:`score_videos` would give, of which only the J&F of the objects of each video is known."""
    frames, none = np.zeros(1), Measure(0.0, 0.0, 0.0)
    values = [(video, n, jf) for video, objects in videos.items() for n, jf in enumerate(objects.tolist(), start=1)]
    objects = [ObjectScore(v, n, Measure(jf, 0.0, 0.0), Measure(jf, 0.0, 0.0), frames, frames) for v, n, jf in values]
    return VideoScores(Interval(None, None, None), none, none, tuple(objects))


def all_draws(videos) -> list[float]:
    """The mean over objects in every one of the equally likely ways to draw as many videos as there are."""
    return [np.concatenate(drawn).mean() for drawn in product(videos.values(), repeat=len(videos))]


def test_a_video_that_is_drawn_comes_with_all_of_its_objects(rng):
    """Against every possible draw: videos of one object and of nine, where totals and counts must stay together."""
    gains = {"a": rng.normal(2, 1, 9), "b": rng.normal(5, 1, 1), "c": rng.normal(3, 1, 6), "d": rng.normal(9, 1, 1)}
    others = {name: rng.normal(50, 20, len(gain)) for name, gain in gains.items()}
    difference = jf_difference(scores_of({name: others[name] + gains[name] for name in gains}), scores_of(others))
    low, high = np.percentile(all_draws(gains), [2.5, 97.5])
    assert difference.value == pytest.approx(np.concatenate(list(gains.values())).mean())
    assert abs(difference.low - low) < 0.05 * (high - low)
    assert abs(difference.high - high) < 0.05 * (high - low)


def test_what_makes_a_video_hard_for_both_cancels(rng):
    """Objects differ by tens of points, their gains by hardly any: only pairs make a narrow interval."""
    others = {str(i): rng.normal(50, 20, 3) for i in range(10)}
    gained = {name: values + rng.normal(1, 0.1, 3) for name, values in others.items()}
    difference = jf_difference(scores_of(gained), scores_of(others))
    assert difference.high - difference.low < 0.2
    assert difference.low < 1 < difference.high


@pytest.mark.parametrize(
    ("found", "truth", "message"),
    [
        (moving([0] * 4), moving([0] * 3), r"video 'v': masks found are \(4, 60, 80\) .*, annotated \(3, 60, 80\)"),
        (moving([0] * 2), moving([0] * 2), "video 'v': 2 frames, but the first and the last are not scored"),
        (moving([0] * 3), moving([0] * 3) * 0, "video 'v': its first mask has no object"),
        (moving([0] * 3) * 4, moving([0] * 3), "video 'v': masks found have object 4, but there are only 1"),
    ],
)
def test_what_cannot_be_scored(found, truth, message):
    with pytest.raises(ParameterError, match=message):
        score_video("v", found, truth)


def test_nothing_to_score():
    with pytest.raises(ParameterError, match="no video to score: track at least one"):
        score_videos([])
    with pytest.raises(ParameterError, match="confidence is 95"):
        score_videos([("v", moving([0] * 3), moving([0] * 3))], confidence=95.0)
