"""How well patch features tell an object from the rest of its image, measured on patches, without any method."""

import numpy as np
from jaxtyping import Bool, Float
from pycocotools import mask as coco_mask
from scipy.stats import rankdata

from foundling.types import Target


def object_patches(
    target: Target, grid: tuple[int, int], patch_size: int, share: float = 0.5
) -> Bool[np.ndarray, "object patch"]:
    """Which patches each object covers by more than ``share`` of their area (masks where there are any, else boxes).

    ``grid`` is (rows, columns) and ``patch_size`` pixels of the annotated image; the last row and column may reach
    beyond the image, and what lies outside counts as not covered. An empty target gives an array of no rows.
    """
    rows, columns = grid
    inside = np.zeros((len(target), rows * columns), dtype=bool)
    for i in range(len(target)):
        canvas = np.zeros((rows * patch_size, columns * patch_size), dtype=np.float32)
        if target.masks is not None:
            mask = coco_mask.decode(target.masks[i])[: canvas.shape[0], : canvas.shape[1]]
            canvas[: mask.shape[0], : mask.shape[1]] = mask
        else:
            x0, y0, x1, y1 = np.round(target.boxes[i]).astype(int)
            canvas[y0:y1, x0:x1] = 1
        cells = canvas.reshape(rows, patch_size, columns, patch_size)  # [row, y, column, x]
        inside[i] = (cells.mean(axis=(1, 3)) > share).reshape(-1)
    return inside


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
