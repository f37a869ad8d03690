"""Patches to pixels: whole patches, interpolated memberships against a loop, and edges."""

import numpy as np
import pytest

from foundling.discovery.export import pixel_mask
from foundling.proposals import bilinear_masks, nearest_masks, refine_masks
from foundling.types import ParameterError


@pytest.mark.parametrize(("seen", "size"), [((20, 30), (20, 30)), ((20, 30), (47, 61)), ((20, 30), (9, 14))])
def test_whole_patches_are_those_of_pixel_mask(rng, seen, size):
    masks = rng.random((5, 3, 4)) < 0.5
    expected = [pixel_mask(mask, 8, seen, size) for mask in masks]
    assert np.array_equal(nearest_masks(masks, 8, seen, size), expected)
    assert nearest_masks(masks[:0], 8, seen, size).shape == (0, *size)


def naive_bilinear(memberships, levels, patch_size, seen, size) -> np.ndarray:
    """Each pixel's four neighbouring patch centres, one by one."""
    n, rows, columns = memberships.shape
    masks = np.zeros((n, *size), dtype=bool)
    for y in range(size[0]):
        for x in range(size[1]):
            v = min(max((y + 0.5) * seen[0] / size[0] / patch_size - 0.5, 0), rows - 1)
            u = min(max((x + 0.5) * seen[1] / size[1] / patch_size - 0.5, 0), columns - 1)
            i, j = min(int(v), rows - 2), min(int(u), columns - 2)
            a, b = v - i, u - j
            soft = (1 - a) * ((1 - b) * memberships[:, i, j] + b * memberships[:, i, j + 1])
            soft = soft + a * ((1 - b) * memberships[:, i + 1, j] + b * memberships[:, i + 1, j + 1])
            for level in set(levels.tolist()):
                parts = [p for p in range(n) if levels[p] == level]
                masks[max(parts, key=lambda p: (soft[p], -p)), y, x] = True
    return masks


@pytest.mark.parametrize(("seen", "size"), [((22, 30), (22, 30)), ((22, 30), (47, 61)), ((22, 30), (9, 14))])
def test_bilinear_agrees_with_a_loop_over_pixels(rng, seen, size):
    levels = np.array([2, 2, 3, 3, 3])
    soft = rng.random((5, 3, 4))  # the grid reaches beyond the 22×30 pixels that were seen
    assert np.array_equal(bilinear_masks(soft, levels, 8, seen, size), naive_bilinear(soft, levels, 8, seen, size))


def test_bilinear_masks_are_a_partition_and_put_the_border_half_way():
    soft = np.array([[[1.0, 0.0]], [[0.0, 1.0]]])
    masks = bilinear_masks(soft, np.array([2, 2]), 8, (8, 16), (8, 16))
    assert (masks.sum(axis=0) == 1).all()
    assert masks[0, :, :8].all() and masks[1, :, 8:].all()
    surer = bilinear_masks(np.array([[[1.0, 0.4]], [[0.0, 0.6]]]), np.array([2, 2]), 8, (8, 16), (8, 16))
    assert surer[0].sum() > masks[0].sum()  # where the patch is less sure, it ends nearer to its centre


def test_of_equal_memberships_the_first_part_takes_the_pixel():
    masks = bilinear_masks(np.full((2, 2, 2), 0.5), np.array([2, 2]), 8, (16, 16), (16, 16))
    assert masks[0].all() and not masks[1].any()


def disc(height, width, y, x, radius) -> np.ndarray:
    v, u = np.mgrid[:height, :width]
    return (v - y) ** 2 + (u - x) ** 2 <= radius**2


def test_edges_of_the_image_pull_the_mask():
    truth = disc(96, 128, 50, 60, 27)
    image = np.where(truth[..., None], np.uint8([220, 60, 40]), np.uint8([40, 90, 160]))
    patches = truth.reshape(12, 8, 16, 8).mean(axis=(1, 3)) > 0.5
    rough = pixel_mask(patches, 8, (96, 128), (96, 128))
    refined = refine_masks(rough[None], image, radius=8)[0]

    def overlap(mask):
        return (mask & truth).sum() / (mask | truth).sum()

    assert overlap(refined) > 0.97 > overlap(rough)


def test_a_flat_image_moves_no_straight_edge_and_what_fails_stays():
    flat = np.full((64, 64, 3), 128, dtype=np.uint8)
    half = np.zeros((1, 64, 64), dtype=bool)
    half[0, :, :32] = True
    assert np.array_equal(refine_masks(half, flat), half)
    dot = np.zeros((1, 64, 64), dtype=bool)
    dot[0, 30:33, 30:33] = True  # so small that the filter would dissolve it
    assert np.array_equal(refine_masks(dot, flat), dot)
    assert refine_masks(half[:0], flat).shape == (0, 64, 64)


def test_mirroring_commutes_with_refinement(rng):
    image = rng.integers(0, 255, (8, 10, 3)).astype(np.uint8).repeat(6, axis=0).repeat(6, axis=1)
    masks = (rng.random((2, 8, 10)) < 0.5).repeat(6, axis=1).repeat(6, axis=2)
    plain, mirrored = refine_masks(masks, image), refine_masks(masks[:, :, ::-1].copy(), image[:, ::-1].copy())
    assert (plain[:, :, ::-1] != mirrored).mean() < 0.001  # sums in another order


def test_errors():
    mask, image = np.ones((1, 8, 8), dtype=bool), np.zeros((8, 9, 3), dtype=np.uint8)
    with pytest.raises(ParameterError, match="the image has 8×9 pixels, the masks 8×8"):
        refine_masks(mask, image)
    with pytest.raises(ParameterError, match="radius 0"):
        refine_masks(mask, image[:, :8], radius=0)
