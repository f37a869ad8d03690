"""Patch-level separation against scikit-learn's ROC, by hand, and under a change of scale."""

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from sklearn.metrics import roc_auc_score

from foundling.evaluation.patches import largest_object, object_centre, object_patches, similarity_auc
from foundling.types import PatchFeatures, Target


def target(boxes: list[list[float]], masks: list[np.ndarray] | None = None) -> Target:
    flags = np.zeros(len(boxes), dtype=bool)
    rle = None if masks is None else [coco_mask.encode(np.asfortranarray(m.astype(np.uint8))) for m in masks]
    corners = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    return Target(corners, np.zeros(len(boxes), dtype=np.int64), flags, flags, flags, rle)


def features(grid: tuple[int, int], size: tuple[int, int], original: tuple[int, int] | None = None) -> PatchFeatures:
    sizes = torch.tensor([size])
    return PatchFeatures(grid, 8, sizes, torch.tensor([original]) if original else sizes, ("a",), (0,))


def test_boxes_cover_the_patches_they_fill_by_more_than_half():
    truth = target([[0, 0, 12, 8], [8, 8, 11, 16]])
    # the first box fills patch 0 and exactly half of patch 1; the second 3/8 of patch 3
    inside = object_patches(features((2, 2), (16, 16)), truth)
    assert inside.tolist() == [[True, False, False, False], [False, False, False, False]]
    more = object_patches(features((2, 2), (16, 16)), truth, share=0.4)
    assert more.tolist() == [[True, True, False, False], [False, False, False, False]]


def test_masks_come_before_boxes_and_padding_is_not_covered():
    mask = np.zeros((10, 10), dtype=bool)
    mask[:, 8:] = True  # two of the eight pixel columns of the right patches, which reach beyond the image
    truth = target([[0, 0, 10, 10]], [mask])
    assert not object_patches(features((2, 2), (10, 10)), truth).any()
    assert object_patches(features((2, 2), (10, 10)), truth, share=0.2).tolist() == [[False, True, False, False]]


@pytest.mark.parametrize("masks", [False, True])
def test_objects_shrink_with_their_image(masks):
    mask = np.zeros((32, 32), dtype=bool)
    mask[:16, 16:] = True
    truth = target([[16, 0, 32, 16]], [mask] if masks else None)
    shrunk = object_patches(features((2, 2), (16, 16), original=(32, 32)), truth)
    assert shrunk.tolist() == [[False, True, False, False]]


def test_no_objects_no_rows():
    inside = object_patches(features((3, 4), (24, 32)), target([]))
    assert inside.shape == (0, 12)
    assert largest_object(inside) is None


def test_the_largest_object_is_the_one_with_most_patches():
    inside = np.array([[True, False, False], [False, True, True], [True, True, False]])
    assert largest_object(inside).tolist() == [False, True, True]
    assert largest_object(np.zeros((2, 3), dtype=bool)) is None


def test_the_centre_of_the_largest_object_is_one_of_its_patches():
    ring = np.zeros((40, 40), dtype=bool)
    ring[8:32, 8:32] = True
    ring[16:24, 16:24] = False  # the middle patch is a hole
    truth = target([[0, 0, 8, 8], [8, 8, 32, 32]], [np.eye(40, dtype=bool), ring])
    assert object_centre(features((5, 5), (40, 40)), truth) == (1, 2)
    assert object_centre(features((5, 5), (40, 40)), target([])) == (2, 2)
    assert object_centre(features((3, 6), (24, 48)), None) == (1, 3)


def test_auc_by_hand():
    # object patches 0 and 1 point the same way, patch 2 half-way, patch 3 away from both
    features = np.array([[1.0, 0.0], [1.0, 0.0], [0.5, 0.5], [-1.0, 0.0]])
    assert similarity_auc(features, np.array([True, True, False, False])) == 1.0
    # with patch 3 as the second patch: 0 ranks it last (0); 3 ranks 0 level with 1 and below 2 (a half of two: 0.25)
    assert similarity_auc(features, np.array([True, False, False, True])) == 0.125


def test_auc_equals_scikit_learn_patch_by_patch(rng):
    features = rng.integers(-3, 4, size=(40, 6)).astype(float)  # whole numbers: exact ties between similarities
    inside = rng.random(40) < 0.3
    areas = []
    for p in np.flatnonzero(inside):
        others = np.arange(40) != p
        areas.append(roc_auc_score(inside[others], (features @ features[p])[others]))
    assert similarity_auc(features, inside) == pytest.approx(np.mean(areas), abs=1e-12)
    assert similarity_auc(3 * features, inside) == pytest.approx(np.mean(areas), abs=1e-12)


@pytest.mark.parametrize("inside", [[True, False, False], [False, False, False], [True, True, True]])
def test_nothing_to_rank_is_none(inside):
    assert similarity_auc(np.eye(3), np.array(inside)) is None
