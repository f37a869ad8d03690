"""Overlap of boxes: by hand, pixel by pixel, and under moves and flips."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundling.evaluation import iou


def random_boxes(rng: np.random.Generator, count: int, side: int = 24) -> np.ndarray:
    """Boxes with whole-pixel corners, at least one pixel long."""
    start = rng.integers(0, side - 1, (count, 2))
    length = rng.integers(1, side - start)
    return np.concatenate([start, start + length], axis=1).astype(np.float64)


def painted_iou(a: np.ndarray, b: np.ndarray, side: int = 24) -> float:
    """Intersection over union by counting the pixels that each box paints."""
    canvas = np.zeros((2, side, side), dtype=bool)
    for layer, box in enumerate((a, b)):
        x0, y0, x1, y1 = box.astype(int)
        for y in range(y0, y1):
            for x in range(x0, x1):
                canvas[layer, y, x] = True
    return (canvas[0] & canvas[1]).sum() / (canvas[0] | canvas[1]).sum()


def test_by_hand():
    a = np.array([[0.0, 0.0, 10.0, 10.0]])
    b = np.array([[5.0, 0.0, 15.0, 10.0], [0.0, 0.0, 10.0, 10.0], [10.0, 0.0, 20.0, 10.0], [2.5, 2.5, 7.5, 7.5]])
    assert iou(a, b).tolist() == [[50 / 150, 1.0, 0.0, 0.25]]  # sides that only touch share nothing


def test_half_is_exactly_half_at_every_size():
    sides = np.arange(1, 700, dtype=np.float64)
    whole = np.stack([0 * sides + 3, 0 * sides + 7, 3 + 2 * sides, 7 + sides], axis=1)
    half = whole.copy()
    half[:, 2] = 3 + sides
    assert (np.diag(iou(whole, half)) == 0.5).all()


def test_agrees_with_counting_pixels(rng):
    a, b = random_boxes(rng, 12), random_boxes(rng, 9)
    counted = np.array([[painted_iou(p, q) for q in b] for p in a])
    np.testing.assert_allclose(iou(a, b), counted, atol=1e-12)
    assert 0 < (counted > 0).sum() < counted.size  # the draw holds both kinds of pair


@given(st.integers(0, 2**32 - 1), st.floats(-1e4, 1e4), st.floats(0.01, 100))
def test_invariant_under_shift_scale_flip_and_exchange(seed, shift, scale):
    a, b = random_boxes(np.random.default_rng(seed), 3), random_boxes(np.random.default_rng(seed + 1), 4)
    expected = iou(a, b)
    np.testing.assert_allclose(iou(a * scale + shift, b * scale + shift), expected, atol=1e-6)
    np.testing.assert_allclose(iou(b, a).T, expected, atol=1e-12)
    mirrored = [np.stack([24 - x[:, 2], x[:, 1], 24 - x[:, 0], x[:, 3]], axis=1) for x in (a, b)]
    np.testing.assert_allclose(iou(*mirrored), expected, atol=1e-12)


@pytest.mark.parametrize(
    "box",
    [
        [np.nan] * 4,
        [0, 0, np.nan, 10],
        [0, 0, np.inf, np.inf],
        [-np.inf, 0, np.inf, 10],
        [5, 5, 5, 9],
        [9, 9, 1, 1],
    ],
    ids=["nan", "one nan", "infinite", "infinite both ways", "no area", "inside out"],
)
def test_degenerate_boxes_overlap_nothing(box):
    others = np.array([[0.0, 0.0, 10.0, 10.0], box])
    assert iou(np.array([box], dtype=np.float64), others).tolist() == [[0.0, 0.0]]


def test_no_boxes_and_single_precision():
    none, one = np.zeros((0, 4), dtype=np.float32), np.array([[0, 0, 4, 4]], dtype=np.float32)
    assert iou(none, one).shape == (0, 1)
    assert iou(one, none).shape == (1, 0)
    assert iou(one, one).dtype == np.float64
