"""Saliency scores: counts by hand, naive oracles from the definitions, what changes nothing, odd maps, errors."""

import numpy as np
import pytest

from foundling.errors import ParameterError
from foundling.evaluation.saliency import (
    THRESHOLDS,
    f_curve,
    f_measure,
    largest_f,
    saliency_counts,
    saliency_difference,
    score_saliency,
)


def test_counts_by_hand() -> None:
    mask = np.array([[True, True, False], [True, False, True]])
    truth = np.array([[3, 0, 1], [255, 0, 9]], dtype=np.uint8)  # the void pixel counts nowhere
    assert saliency_counts(mask, truth).tolist() == [2, 1, 1, 1]
    assert saliency_counts(~mask, truth).tolist() == [1, 1, 2, 1]


def test_scores_by_hand() -> None:
    """Two images: IoU 1/2 and 1/5, in 4 and 10 pixels; both empty of nothing else."""
    scores = score_saliency(np.array([[1, 1, 0, 2], [1, 2, 2, 5]]))
    assert scores.iou.value == pytest.approx(100 * (1 / 2 + 1 / 5) / 2)
    assert scores.accuracy.value == pytest.approx(100 * (3 / 4 + 6 / 10) / 2)
    assert scores.foreground.value == pytest.approx(100 * 2 / 7)
    f = [1.3 * 0.5 * 1 / (0.3 * 0.5 + 1), 1.3 / 3 / 3 / (0.3 / 3 + 1 / 3)]
    assert scores.f.value == pytest.approx(100 * np.mean(f))
    np.testing.assert_allclose(scores.images, [[1 / 2, 3 / 4, f[0]], [1 / 5, 6 / 10, f[1]]])


def test_against_pixel_by_pixel(rng: np.random.Generator) -> None:
    counts, ious, accuracies = [], [], []
    for _ in range(20):
        mask, truth = rng.random((5, 7)) < 0.4, rng.choice(np.array([0, 1, 4, 255], dtype=np.uint8), (5, 7))
        counts.append(saliency_counts(mask, truth))
        pairs = [(bool(m), t > 0) for m, t in zip(mask.flat, truth.flat, strict=True) if t != 255]
        ious.append(sum(m and t for m, t in pairs) / sum(m or t for m, t in pairs))
        accuracies.append(sum(m == t for m, t in pairs) / len(pairs))
    scores = score_saliency(np.stack(counts))
    np.testing.assert_allclose(scores.images[:, :2], np.stack([ious, accuracies], 1))
    for interval in (scores.foreground, scores.iou, scores.accuracy, scores.f):
        assert interval.low is not None and interval.value is not None and interval.high is not None
        assert interval.low < interval.value < interval.high


def test_the_order_of_images_and_mirroring_change_nothing(rng: np.random.Generator) -> None:
    masks, truths = rng.random((9, 6, 6)) < 0.5, rng.integers(0, 3, (9, 6, 6), dtype=np.uint8)
    counts = np.stack([saliency_counts(m, t) for m, t in zip(masks, truths, strict=True)])
    turned = np.stack([saliency_counts(m[:, ::-1], t[:, ::-1]) for m, t in zip(masks, truths, strict=True)])
    np.testing.assert_array_equal(counts, turned)
    a, b = score_saliency(counts), score_saliency(counts[::-1])
    assert a.iou.value == pytest.approx(b.iou.value) and a.foreground == pytest.approx(b.foreground, abs=2)


def test_images_that_say_nothing() -> None:
    nothing_wrong, no_pixel, all_missed = [0, 0, 0, 9], [0, 0, 0, 0], [0, 0, 9, 0]
    scores = score_saliency(np.array([nothing_wrong, no_pixel, all_missed]))
    np.testing.assert_array_equal(scores.images, [[1, 1, 1], [0, 0, 0]])
    assert scores.foreground.value == 0
    empty = score_saliency(np.zeros((0, 4), dtype=np.int64))
    assert empty.iou == empty.foreground == (None, None, None)


def test_maps_of_other_sizes_are_refused() -> None:
    mask, truth = np.zeros((2, 3), dtype=bool), np.zeros((3, 2), dtype=np.uint8)
    with pytest.raises(ParameterError, match="3×2 and 2×3 pixels: bring the mask to the size"):
        saliency_counts(mask, truth)
    with pytest.raises(ParameterError, match="3×2 and 2×3 pixels: bring the map to the size"):
        f_curve(mask.astype(float), truth)
    with pytest.raises(ParameterError, match=r"a map of -0\.1 to 2: stretch it to 0\.\.1"):
        f_curve(np.array([[-0.1, 2.0]]), np.zeros((1, 2), dtype=np.uint8))


def test_f_at_every_threshold(rng: np.random.Generator) -> None:
    values = np.round(rng.random((6, 8)) * 255) / 255  # on the thresholds themselves: above is strict
    values[0, 0], values[0, 1] = 0, 1
    truth = rng.choice(np.array([0, 2, 255], dtype=np.uint8), (6, 8))
    curve = f_curve(values, truth)
    expected = []
    for threshold in np.arange(0, 1, 1 / 255):
        pairs = [(v > threshold, t > 0) for v, t in zip(values.flat, truth.flat, strict=True) if t != 255]
        both, found, true = sum(p and t for p, t in pairs), sum(p for p, _ in pairs), sum(t for _, t in pairs)
        precision = both / found if found else 1.0
        recall = both / true if true else 1.0
        below = 0.3 * precision + recall
        expected.append(1.3 * precision * recall / below if below else 0.0)
    assert len(curve) == len(THRESHOLDS) == 255
    np.testing.assert_allclose(curve, expected)


def test_a_mask_has_one_f_whatever_the_threshold(rng: np.random.Generator) -> None:
    mask, truth = rng.random((6, 6)) < 0.5, rng.integers(0, 2, (6, 6), dtype=np.uint8)
    both, wrong, missed, _ = saliency_counts(mask, truth).astype(float)
    np.testing.assert_allclose(f_curve(mask.astype(float), truth), f_measure(*map(np.array, (both, wrong, missed))))


def test_the_largest_f_is_of_one_threshold_for_all_images() -> None:
    curves = np.zeros((2, 255))
    curves[0, 10], curves[1, 20], curves[:, 30] = 1.0, 1.0, 0.6
    found = largest_f(curves)
    assert found.value == pytest.approx(60)
    assert found.low == pytest.approx(60) and found.high == pytest.approx(100)  # a draw may hold one image twice
    assert largest_f(curves[:1]) == (100.0, None, None)
    assert largest_f(curves[:0]) == (None, None, None)


def test_differences_are_paired() -> None:
    a = score_saliency(np.array([[4, 1, 0, 5], [2, 3, 0, 5], [1, 4, 0, 5]]))
    b = score_saliency(np.array([[3, 2, 0, 5], [1, 4, 0, 5], [0, 5, 0, 5]]))
    gain = saliency_difference(a, b)
    assert gain["iou"].value == pytest.approx(20) and gain["iou"].low == pytest.approx(20)
    assert saliency_difference(b, a)["accuracy"].value == pytest.approx(-gain["accuracy"].value)
    with pytest.raises(ParameterError, match="A has 3, B has 1"):
        saliency_difference(a, score_saliency(np.array([[1, 1, 1, 1]])))
