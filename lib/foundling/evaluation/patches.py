"""How well patch features tell an object from the rest of its image, measured on patches, without any method."""

import cv2
import numpy as np
from jaxtyping import Bool, Float
from pycocotools import mask as coco_mask
from scipy.stats import rankdata

from foundling.types import PatchFeatures, Target


def object_patches(features: PatchFeatures, target: Target, share: float = 0.5) -> Bool[np.ndarray, "object patch"]:
    """Which patches of one image each object covers by more than ``share`` of their area.

    ``features`` is a batch of one image and ``target`` its ground truth, in pixels of the original image; masks are
    used where there are any, else boxes. What lies in the padding counts as not covered. An empty target gives an
    array of no rows.
    """
    rows, columns = features.grid
    size = features.patch_size
    seen, original = features.image_sizes[0].tolist(), features.original_sizes[0].tolist()
    inside = np.zeros((len(target), rows * columns), dtype=bool)
    for i in range(len(target)):
        mask = _object_mask(target, i, (original[0], original[1]))
        if seen != original:
            mask = cv2.resize(mask, (seen[1], seen[0]), interpolation=cv2.INTER_AREA)
        canvas = np.zeros((rows * size, columns * size), dtype=np.float32)
        canvas[: seen[0], : seen[1]] = mask
        cells = canvas.reshape(rows, size, columns, size)  # [row, y, column, x]
        inside[i] = (cells.mean(axis=(1, 3)) > share).reshape(-1)
    return inside


def _object_mask(target: Target, i: int, size: tuple[int, int]) -> Float[np.ndarray, "height width"]:
    if target.masks is not None:
        return coco_mask.decode(target.masks[i]).astype(np.float32)
    mask = np.zeros(size, dtype=np.float32)
    x0, y0, x1, y1 = np.round(target.boxes[i]).astype(int)
    mask[y0:y1, x0:x1] = 1
    return mask


def largest_object(inside: Bool[np.ndarray, "object patch"]) -> Bool[np.ndarray, " patch"] | None:
    """The patches of the object that covers most of them (the first of equals); None if no object covers a patch."""
    if not inside.any():
        return None
    return inside[int(np.argmax(inside.sum(axis=1)))]


def object_centre(features: PatchFeatures, target: Target | None) -> tuple[int, int]:
    """The patch (row, column) of the largest object that lies nearest to its centre; the image's middle without one."""
    rows, columns = features.grid
    inside = None if target is None else largest_object(object_patches(features, target))
    if inside is None:
        return rows // 2, columns // 2
    covered = np.argwhere(inside.reshape(rows, columns))  # [patch, (row, column)]
    distance = ((covered - covered.mean(axis=0)) ** 2).sum(axis=1)
    row, column = covered[int(np.argmin(distance))]
    return int(row), int(column)


def similarity_auc(features: Float[np.ndarray, "patch channel"], inside: Bool[np.ndarray, " patch"]) -> float | None:
    """Mean area under the ROC curve with which an object's patch ranks the object's other patches above the rest.

    For every patch p of the object, the other patches q are ranked by the similarity f_p · f_q of LOST (Eq. 1, before
    its threshold). 1 means that every object patch is more similar to its own object than to anything else; 0.5 is
    chance. None where the object has fewer than two patches, or covers them all.
    """
    count, outside = int(inside.sum()), int((~inside).sum())
    if count < 2 or outside == 0:
        return None
    similarity = features[inside] @ features.T  # [p, patch]
    others = np.ones_like(similarity, dtype=bool)
    others[np.arange(count), np.flatnonzero(inside)] = False  # a patch is not compared with itself
    ranks = rankdata(similarity[others].reshape(count, -1), axis=1)  # [p, patch - 1]
    positive = np.broadcast_to(inside, others.shape)[others].reshape(count, -1)
    rank_sum = (ranks * positive).sum(axis=1)
    return float(np.mean((rank_sum - (count - 1) * count / 2) / ((count - 1) * outside)))
