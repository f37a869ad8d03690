"""Masks on the patch grid as masks of the original image's pixels: by patch, from soft memberships, along edges."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from foundling.discovery.export import patches_of_pixels
from foundling.types import ParameterError

RADIUS, SMOOTH = 16, 1e-3  # of the guided filter: pixels, and a variance of colours in 0..1 that still counts as flat
LEAST_AGREEMENT = 0.5  # IoU of a refined mask with the mask before, below which the refinement has failed


def nearest_masks(
    masks: Bool[np.ndarray, "object rows columns"], patch_size: int, seen: Sequence[int], size: Sequence[int]
) -> Bool[np.ndarray, "object height width"]:
    """Masks of whole patches: a pixel belongs to the patch that its centre falls into.

    ``seen`` is the height and width that the network saw, ``size`` that of the original image, in pixels. What
    :func:`foundling.discovery.export.pixel_mask` does, for many masks; they lie column by column in memory, as run
    lengths do.
    """
    rows, columns = patches_of_pixels(patch_size, seen, size)
    return masks.transpose(0, 2, 1).take(columns, axis=1).take(rows, axis=2).transpose(0, 2, 1)


def bilinear_masks(
    memberships: Float[np.ndarray, "object rows columns"],
    levels: Int[np.ndarray, " object"],
    patch_size: int,
    seen: Sequence[int],
    size: Sequence[int],
) -> Bool[np.ndarray, "object height width"]:
    """Masks from soft memberships: each pixel goes to the part of its partition that most belongs to it.

    Memberships are interpolated between the centres of the patches (beyond the outermost ones they stay as they are);
    of equal ones the first part takes the pixel. A partition is all objects of one of ``levels``. ``seen`` and ``size``
    are as in :func:`nearest_masks`.
    """
    rows, columns = (
        _weights(original, network, cells, patch_size)
        for original, network, cells in zip(size, seen, memberships.shape[1:], strict=True)
    )
    cells = memberships.astype(np.float32).transpose(0, 2, 1)
    masks = np.zeros((len(cells), len(columns), len(rows)), dtype=bool)  # [object, width, height]
    for level in np.unique(levels):  # one at a time: in large photos the values of all are gigabytes
        parts = np.flatnonzero(levels == level)
        winner = (columns @ cells[parts] @ rows.T).argmax(axis=0)
        for i, part in enumerate(parts):
            masks[part] = winner == i
    return masks.transpose(0, 2, 1)


def _weights(original: int, network: int, cells: int, patch_size: int) -> Float[np.ndarray, "pixel cell"]:
    """How much each cell counts at each pixel's centre, by linear interpolation between the centres of the cells."""
    at = ((np.arange(original) + 0.5) * network / original / patch_size - 0.5).clip(0, cells - 1)
    return np.maximum(0, 1 - np.abs(at[:, None] - np.arange(cells))).astype(np.float32)


def refine_masks(
    masks: Bool[np.ndarray, "object height width"],
    image: UInt8[np.ndarray, "rows columns 3"],
    radius: int = RADIUS,
    smooth: float = SMOOTH,
) -> Bool[np.ndarray, "object height width"]:
    """Masks moved to the edges of ``image`` (RGB) by the guided filter (He, Sun and Tang, PAMI 2013).

    Each mask is filtered with the image as guide and cut at one half. ``radius`` is the reach in pixels (about a
    patch), ``smooth`` the filter's epsilon: where the colours (0..1) vary less, they are no edge. A mask that so loses
    more than it keeps (IoU with the mask before under 0.5) stays as it was. OpenCV's guided filter; the bilateral
    solver of TokenCut is missing in its PyPI packages.

    Raises :class:`ParameterError` for an image of another size, or numbers out of range.
    """
    if masks.shape[1:] != image.shape[:2]:
        raise ParameterError(
            f"the image has {image.shape[0]}×{image.shape[1]} pixels, the masks {masks.shape[1]}×{masks.shape[2]}: "
            "give both in original pixels"
        )
    if radius < 1 or smooth <= 0:
        raise ParameterError(f"radius {radius}, smooth {smooth}: give at least 1 pixel and a number above 0")
    # colours as 0..255: OpenCV gives up where a determinant is small, which it is for greyish colours as 0..1
    guided = cv2.ximgproc.createGuidedFilter(np.ascontiguousarray(image), radius, smooth * 255**2)
    refined = np.zeros_like(masks)
    for i, mask in enumerate(masks):
        moved = guided.filter(mask.astype(np.float32)) > 0.5
        agrees = (moved & mask).sum() >= LEAST_AGREEMENT * (moved | mask).sum()
        refined[i] = moved if agrees else mask
    return refined
