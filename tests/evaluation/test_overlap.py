"""Best overlaps by hand, against loops over masks and pixels, and the conventions of ABO and OR one by one."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from foundling.errors import ParameterError
from foundling.evaluation.overlap import (
    Truths,
    best_overlap,
    central_square,
    image_overlap,
    overlap_difference,
    square_truths,
    summarise,
    truth_cells,
    without_small,
)
from foundling.types import Target


def target_of(masks, labels=None, crowd=None) -> Target:
    """A target with these masks; its boxes play no part."""
    n = len(masks)
    none = np.zeros(n, dtype=bool)
    encoded = [coco_mask.encode(np.asfortranarray(np.asarray(mask, dtype=np.uint8))) for mask in masks]
    return Target(
        np.tile([0.0, 0.0, 1.0, 1.0], (n, 1)),
        np.zeros(n, dtype=np.int64) if labels is None else np.array(labels),
        none,
        none,
        none if crowd is None else np.array(crowd),
        encoded,
    )


def naive_best(proposals, truths) -> list[float]:
    """The definition, in plain loops over every pixel of every pair of masks."""
    best = []
    for truth in truths:
        overlaps = [0.0]
        for proposal in proposals:
            shared = together = 0
            for a, b in zip(proposal.ravel().tolist(), truth.ravel().tolist(), strict=True):
                shared += a and b
                together += a or b
            overlaps.append(shared / together if together else 0.0)
        best.append(max(overlaps))
    return best


def naive_segments(labels, height, width) -> list[np.ndarray]:
    """Every segment of every level as a mask of the picture: the nearest cell of every pixel, pixel by pixel."""
    segments = []
    for level in labels:
        rows, columns = level.shape
        for label in sorted(set(level.ravel().tolist())):
            mask = np.zeros((height, width), dtype=bool)
            for y in range(height):
                for x in range(width):
                    mask[y, x] = level[int((y + 0.5) * rows / height), int((x + 0.5) * columns / width)] == label
            segments.append(mask)
    return segments


def best_overlap_of_labels(levels, truths) -> list[float]:
    """The ABO of pictures of one object: its best IoU with any segment."""
    alone = [Truths(truth[None], np.zeros(1, dtype=np.int64)) for truth in truths]
    return [image_overlap(levels, truth_cells(truth, levels.shape[1:]))[0] for truth in alone]


QUARTERS = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]])
HALVES = np.array([[0, 0, 1, 1]] * 4)
WHOLE = np.zeros((4, 4), dtype=np.int64)
CORNER = np.array([[1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]], dtype=bool)  # 5 pixels
COLUMN = np.array([[0, 0, 0, 1]] * 4, dtype=bool)  # 4 pixels
HALF = np.array([[1, 1, 0, 0]] * 4, dtype=bool)  # 8 pixels


def test_best_overlap_by_hand():
    levels = np.stack([WHOLE, HALVES, QUARTERS])
    # the corner's 4 pixels in the first quarter, of 5 in all; the column fills half of the right half
    np.testing.assert_allclose(best_overlap_of_labels(levels, np.stack([CORNER, COLUMN, HALF])), [4 / 5, 1 / 2, 1])


def test_one_segment_is_the_whole_image():
    np.testing.assert_allclose(best_overlap_of_labels(WHOLE[None], np.stack([CORNER, COLUMN])), [5 / 16, 4 / 16])


def test_cells_larger_than_pixels_by_hand():
    grid = np.array([[[0, 1], [1, 1]]])  # label 0 is the first quarter of the picture
    np.testing.assert_allclose(best_overlap_of_labels(grid, CORNER[None]), [4 / 5])


@pytest.mark.parametrize("size", [(6, 6), (7, 9), (5, 12), (3, 2)])  # multiples, no multiples, fewer pixels than cells
def test_labels_give_what_loops_over_masks_give(rng, size):
    labels = np.stack([rng.integers(0, k, (3, 4)) for k in (1, 3, 7)])
    truths = rng.random((4, *size)) < np.array([0.1, 0.4, 0.7, 0.9])[:, None, None]
    expected = naive_best(naive_segments(labels, *size), truths)
    np.testing.assert_allclose(best_overlap_of_labels(labels, truths), expected, rtol=1e-12)


def test_masks_give_what_loops_over_pixels_give(rng):
    proposals, truths = rng.random((5, 6, 7)) < 0.4, rng.random((3, 6, 7)) < 0.5
    np.testing.assert_allclose(best_overlap(proposals, truths), naive_best(proposals, truths), rtol=1e-12)


def test_nothing_to_compare():
    proposals, truths = np.ones((2, 4, 4), dtype=bool), np.ones((3, 4, 4), dtype=bool)
    assert best_overlap(proposals[:0], truths).tolist() == [0, 0, 0]
    assert best_overlap(proposals, truths[:0]).shape == (0,)


def test_labels_are_names_only(rng):
    labels = rng.integers(0, 6, (2, 5, 5))
    truths = rng.random((3, 10, 10)) < 0.5
    other = np.stack([rng.permutation(6)[level] for level in labels])
    np.testing.assert_array_equal(best_overlap_of_labels(labels, truths), best_overlap_of_labels(other, truths))


@pytest.mark.parametrize("axis", [1, 2])
def test_a_flip_changes_nothing(rng, axis):
    labels, truths = rng.integers(0, 6, (2, 5, 5)), rng.random((3, 10, 10)) < 0.5
    flipped = best_overlap_of_labels(np.flip(labels, axis), np.flip(truths, axis))
    np.testing.assert_array_equal(best_overlap_of_labels(labels, truths), flipped)


def overlaps_of(levels, masks, labels) -> tuple[float, float, float]:
    truths = Truths(np.stack(masks), np.array(labels))
    return image_overlap(levels, truth_cells(truths, levels.shape[1:]))


def test_an_image_by_hand():
    # 4/5 and 1/2, which is not above 0.5; apart by class the masks stay what they are
    levels = np.stack([WHOLE, HALVES, QUARTERS])
    assert overlaps_of(levels, [CORNER, COLUMN], [0, 1]) == pytest.approx(
        ((4 / 5 + 1 / 2) / 2, (4 / 5 + 1 / 2) / 2, 1 / 2)
    )


def test_instances_of_a_class_are_merged():
    # the two halves of the left half: as instances 4/8 at best, together the left half itself
    upper, lower = HALF.copy(), HALF.copy()
    upper[2:], lower[:2] = False, False
    assert overlaps_of(HALVES[None], [upper, lower], [5, 5]) == pytest.approx((1 / 2, 1, 0))
    assert overlaps_of(HALVES[None], [upper, lower], [5, 2]) == pytest.approx((1 / 2, 1 / 2, 0))


def test_an_image_without_objects_is_not_counted():
    empty = Truths(np.zeros((0, 4, 4), dtype=bool), np.zeros(0, dtype=np.int64))
    row = image_overlap(WHOLE[None], truth_cells(empty, (4, 4)))
    assert np.isnan(row).all()
    result = summarise(np.array([row, (0.5, 0.25, 1.0), (0.25, 0.75, 0.0)]))
    assert (result.abo_i.value, result.abo_c.value, result.recovery.value) == (37.5, 50.0, 50.0)
    assert result.counted.tolist() == [False, True, True]


def test_no_image_at_all_gives_no_number():
    result = summarise(np.full((2, 3), np.nan))
    assert result.abo_i == result.abo_c == result.recovery == (None, None, None)


def test_the_mean_is_over_images_not_over_objects():
    # one image with one object of IoU 1, one with three of 0.25: 62.5, not 43.75
    result = summarise(np.array([(1.0, 1.0, 1.0), (0.25, 0.25, 0.0)]))
    assert result.abo_i.value == 62.5


def test_differences_are_taken_image_by_image(rng):
    b = rng.random((40, 3))
    gained = b + 0.1
    gained[3] = np.nan
    difference = overlap_difference(summarise(gained), summarise(b))
    assert list(difference) == ["abo_i", "abo_c", "or"]
    for interval in difference.values():  # the same gain everywhere: nothing to vary, though images differ much
        assert interval == pytest.approx((10, 10, 10))


def test_differences_need_the_same_images():
    with pytest.raises(ParameterError, match="A has 3, B has 2"):
        overlap_difference(summarise(np.ones((3, 3))), summarise(np.ones((2, 3))))


def test_the_central_square():
    assert central_square(5, 8) == (0, 1, 5)
    assert central_square(8, 4) == (2, 0, 4)


def test_masks_are_cropped_and_resized_with_the_nearest_pixel():
    mask = np.zeros((4, 8), dtype=bool)
    mask[1, 3] = mask[0, 0] = True  # the second is outside the square, columns 2 to 5
    outside = np.zeros((4, 8), dtype=bool)
    outside[:, :2] = True
    truths = square_truths(target_of([mask, outside, np.ones((4, 8))], [4, 5, 6], [False, False, True]), 8)
    assert truths.labels.tolist() == [4]  # one left the picture, one is a crowd
    expected = np.zeros((8, 8), dtype=bool)
    expected[2:4, 2:4] = True
    np.testing.assert_array_equal(truths.masks, expected[None])


def test_shrinking_takes_the_pixel_at_the_centre():
    mask = np.zeros((6, 6), dtype=bool)
    mask[1::3, 1::3] = True
    np.testing.assert_array_equal(square_truths(target_of([mask]), 2).masks, np.ones((1, 2, 2)))


def test_a_target_without_masks():
    target = Target(np.zeros((1, 4)), np.zeros(1, dtype=np.int64), *[np.zeros(1, dtype=bool)] * 3)
    with pytest.raises(ParameterError, match=r"boxes but no masks.*masks=True"):
        square_truths(target, 8)


def test_small_masks_are_filtered_at_224_pixels():
    masks = np.zeros((3, 112, 112), dtype=bool)
    masks[0, 0, :24] = masks[1, 0, :25] = masks[2, 0, :26] = True  # 96, 100 and 104 pixels at twice the side
    kept = without_small(Truths(masks, np.arange(3)))
    assert kept.labels.tolist() == [1, 2]


def test_the_sixteen_largest_masks_stay_in_their_order():
    masks = np.zeros((20, 224, 224), dtype=bool)
    for i, mask in enumerate(masks):
        mask[: 3 + i % 10, :100] = True  # every size twice: the smallest four go, and all of them could stay otherwise
    kept = without_small(Truths(masks, np.arange(20)))
    assert kept.labels.tolist() == [i for i in range(20) if i % 10 > 1]
