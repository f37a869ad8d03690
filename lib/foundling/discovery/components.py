"""Connected components of masks on the patch grid, and the boxes around them."""

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import ndimage

Mask = Bool[np.ndarray, "rows columns"]
Box = Float[np.ndarray, "4"]


def label_components(mask: Mask) -> tuple[Int[np.ndarray, "rows columns"], int]:
    """Number the 4-connected components of a mask from 1, in raster order (0 is outside), and count them."""
    labels, count = ndimage.label(mask)
    return labels, int(count)


def component_at(mask: Mask, seed: tuple[int, int]) -> Mask:
    """The 4-connected component of ``mask`` that contains ``seed`` (row, column); empty if the seed lies outside."""
    labels, _ = label_components(mask)
    return labels == labels[seed] if mask[seed] else np.zeros_like(mask)


def largest_component(mask: Mask) -> Mask:
    """The 4-connected component with most patches; of equal ones the first in raster order; empty for an empty mask."""
    labels, count = label_components(mask)
    if count == 0:
        return np.zeros_like(mask)
    return labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:]))


def mask_box(mask: Mask, patch_size: int, image_size: tuple[int, int] | None = None) -> Box:
    """The tight box around a mask, in pixels.

    ``mask`` is on the patch grid and must not be empty; ``patch_size`` is in pixels. With ``image_size`` (height,
    width before padding) the far corner is clipped to the image; without, the box may reach into the padding.
    Returns ``x0, y0, x1, y1``, far corner exclusive. Raises ``ValueError`` for an empty mask.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        raise ValueError("an empty mask has no box")
    box = patch_size * np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=np.float64)
    if image_size is not None:
        box[2:] = np.minimum(box[2:], image_size[::-1])
    return box
