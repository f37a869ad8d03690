"""Overlap of boxes."""

import numpy as np
from jaxtyping import Float


def iou(boxes_a: Float[np.ndarray, "a 4"], boxes_b: Float[np.ndarray, "b 4"]) -> Float[np.ndarray, "a b"]:
    """Intersection over union of every box of ``boxes_a`` with every box of ``boxes_b``, in 0..1.

    Boxes are (x0, y0, x1, y1) in continuous pixels with exclusive ends: a side is ``x1 - x0``, without the "+1" of the
    VOC devkit. A box without area, or with a coordinate that is not a finite number, overlaps nothing (0). Two boxes
    of which one fills exactly half of the other give exactly 0.5 on whole-pixel coordinates.
    """
    a, b = _finite(boxes_a)[:, None], _finite(boxes_b)[None, :]  # [a, 1, 4], [1, b, 4]
    sides = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])  # [a, b, 2]
    shared = sides.clip(min=0).prod(axis=-1)
    union = _area(a) + _area(b) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)


def _finite(boxes: Float[np.ndarray, "box 4"]) -> Float[np.ndarray, "box 4"]:
    """The boxes in double precision; one with a nan or infinite coordinate becomes the empty box at the origin."""
    exact = boxes.astype(np.float64)
    return np.where(np.isfinite(exact).all(axis=1, keepdims=True), exact, 0.0)


def _area(boxes: Float[np.ndarray, "*boxes 4"]) -> Float[np.ndarray, "*boxes"]:
    return (boxes[..., 2:] - boxes[..., :2]).clip(min=0).prod(axis=-1)
