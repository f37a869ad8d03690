"""Point and matrix non-maximum suppression: by hand, against the definition in loops, what order does, errors."""

import math

import numpy as np
import pytest
import torch
from masked import rectangles

from foundling.errors import ParameterError
from foundling.training.instance.nms import ious, matrix_nms, point_nms


def naive(masks: np.ndarray, scores: np.ndarray, kernel: str, sigma: float) -> np.ndarray:
    """Each mask against every better one (Eq. 3 to 5), one pair at a time."""

    def iou(a: int, b: int) -> float:
        union = np.logical_or(masks[a], masks[b]).sum()
        return float(np.logical_and(masks[a], masks[b]).sum() / union) if union else 0.0

    def f(u: float) -> float:
        return math.exp(-sigma * u * u) if kernel == "gaussian" else 1 - u

    ranked = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    found = scores.copy()
    for place, j in enumerate(ranked):
        least = 1.0
        for other, i in enumerate(ranked[:place]):
            most = max((iou(k, i) for k in ranked[:other]), default=0.0)
            least = min(least, f(iou(i, j)) / max(f(most), np.finfo(np.float32).eps))
        found[j] = scores[j] * least
    return found


@pytest.mark.parametrize("kernel", ["gaussian", "linear"])
def test_scores_are_those_of_the_definition(kernel: str, rng: np.random.Generator) -> None:
    placed = np.concatenate([rng.integers(0, 12, (25, 2)), rng.integers(3, 9, (25, 2))], axis=1)
    masks = rectangles([(x, y, x + w, y + h) for x, y, w, h in placed.tolist()], (20, 20))
    scores = rng.uniform(0.05, 1, 25).astype(np.float32)
    scores[7] = scores[3]  # equal scores
    masks[11] = masks[5]  # the same mask again
    found = matrix_nms(masks, torch.from_numpy(scores), kernel, sigma=1.5)  # type: ignore[arg-type]
    np.testing.assert_allclose(found.numpy(), naive(masks.numpy(), scores, kernel, 1.5), rtol=1e-4, atol=1e-6)


def test_two_masks_by_hand() -> None:
    """IoU 1/3: the second keeps exp(-2 / 9) of its score, the first all of it."""
    masks = rectangles([(0, 0, 4, 4), (2, 0, 6, 4)], (4, 8))
    assert ious(masks)[0, 1].item() == pytest.approx(1 / 3)
    found = matrix_nms(masks, torch.tensor([0.9, 0.8]))
    assert found.tolist() == pytest.approx([0.9, 0.8 * math.exp(-2 / 9)])
    assert matrix_nms(masks, torch.tensor([0.9, 0.8]), "linear").tolist() == pytest.approx([0.9, 0.8 * 2 / 3])


def test_what_is_likely_to_go_takes_little_from_others() -> None:
    """The middle of a chain is covered by the first as much as it covers the last: it takes nothing from it."""
    masks = rectangles([(0, 0, 4, 4), (2, 0, 6, 4), (4, 0, 8, 4)], (4, 8))
    found = matrix_nms(masks, torch.tensor([0.9, 0.8, 0.7]))
    assert found.tolist() == pytest.approx([0.9, 0.8 * math.exp(-2 / 9), 0.7])


def test_the_order_of_the_masks_changes_nothing(rng: np.random.Generator) -> None:
    masks = torch.from_numpy(rng.random((12, 9, 9)) < 0.5)
    scores = torch.from_numpy(rng.permutation(12).astype(np.float32) / 12)
    order = torch.from_numpy(rng.permutation(12))
    found = matrix_nms(masks, scores)
    torch.testing.assert_close(matrix_nms(masks[order], scores[order]), found[order])
    assert found.max() == scores.max() and (found <= scores).all()


def test_no_masks_and_empty_ones() -> None:
    assert matrix_nms(torch.zeros(0, 4, 4, dtype=torch.bool), torch.zeros(0)).shape == (0,)
    both = matrix_nms(torch.zeros(2, 4, 4, dtype=torch.bool), torch.tensor([0.5, 0.25]))
    assert both.tolist() == [0.5, 0.25]


def test_an_unknown_kernel_is_refused() -> None:
    with pytest.raises(ParameterError, match="kernel is 'hard': choose gaussian or linear"):
        unchecked = getattr(matrix_nms, "__wrapped__", matrix_nms)
        unchecked(torch.zeros(1, 2, 2, dtype=torch.bool), torch.ones(1), "hard")


def test_cells_are_kept_that_are_largest_among_themselves_above_and_left(rng: np.random.Generator) -> None:
    scores = rng.integers(0, 5, (7, 6)).astype(np.float32)
    expected = np.zeros_like(scores)
    for y, x in np.ndindex(scores.shape):
        square = scores[max(y - 1, 0) : y + 1, max(x - 1, 0) : x + 1]
        expected[y, x] = scores[y, x] if scores[y, x] == square.max() else 0
    assert (point_nms(torch.from_numpy(scores)).numpy() == expected).all()
