"""How well segments cover annotated objects: average best overlap and object recovery (Odin, Sec. 3.2 and A.4).

For every annotated mask the best IoU over all proposals of its image; its mean over the masks of an image is ABO (of
instances, ABO_i; of the instances of a class merged into one mask, ABO_c), the share above 0.5 is OR. All three are
then averaged over images.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from pycocotools import mask as coco_mask

from foundling.errors import ParameterError
from foundling.evaluation.bootstrap import CONFIDENCE, RESAMPLES, Interval, mean_interval, percent
from foundling.types import Target

RECOVERED = 0.5  # a mask is recovered where its best IoU is above this
FILTER_MASKS, FILTER_AREA, FILTER_SIDE = 16, 100, 224  # Table A.1: most masks an image, least pixels, at that side
METRICS = ("abo_i", "abo_c", "or")


class Truths(NamedTuple):
    """The annotated masks of one square picture and their classes."""

    masks: Bool[np.ndarray, "object side side"]
    labels: Int[np.ndarray, " object"]


@dataclass(frozen=True)
class Overlap:
    """ABO_i, ABO_c and OR in percent (0..100) with their intervals over images, and what they are means of.

    ``images`` has a row an image: its ABO_i, ABO_c and OR in 0..1, nan where the image was not counted.
    """

    abo_i: Interval
    abo_c: Interval
    recovery: Interval
    images: Float[np.ndarray, "image 3"]

    @property
    def counted(self) -> Bool[np.ndarray, " image"]:
        """Which images entered the means."""
        return ~np.isnan(self.images).any(axis=1)


def best_overlap(
    proposals: Bool[np.ndarray, "proposal height width"], truths: Bool[np.ndarray, "truth height width"]
) -> Float[np.ndarray, " truth"]:
    """The best IoU of each of ``truths`` with any proposal (Odin, Eq. 8-9); 0 where there is no proposal."""
    pixels = truths.shape[1] * truths.shape[2]  # float32 counts them exactly up to 4096×4096
    a, b = (masks.reshape(len(masks), pixels).astype(np.float32) for masks in (proposals, truths))
    return _iou((a @ b.T).astype(np.float64), a.sum(1, dtype=np.float64), b.sum(1, dtype=np.float64)).max(0, initial=0)


class TruthCells(NamedTuple):
    """How many pixels each cell of a grid has in all, of each object, and of each class."""

    sizes: Float[np.ndarray, "rows columns"]
    instances: Float[np.ndarray, "object rows columns"]
    categories: Float[np.ndarray, "class rows columns"]


def truth_cells(truths: Truths, grid: tuple[int, int]) -> TruthCells:
    """What :func:`image_overlap` needs of the truth, made once for all segmentations on a grid of (rows, columns)."""
    merged = [truths.masks[truths.labels == label].any(0) for label in np.unique(truths.labels)]
    categories = np.reshape(merged, (-1, *truths.masks.shape[1:])).astype(bool)
    return TruthCells(
        _cell_sizes(truths.masks.shape[1:], grid), cell_counts(truths.masks, grid), cell_counts(categories, grid)
    )


def image_overlap(labels: Int[np.ndarray, "level rows columns"], truth: TruthCells) -> tuple[float, float, float]:
    """ABO_i, ABO_c and OR of one image, in 0..1 (Odin, Eq. 10-11); nan for each where it has no object.

    The proposals are all segments of all levels; a segment is all cells of one label, 0 or more. The grid of labels is
    spread over the picture as a nearest-neighbour resize would: a pixel belongs to the cell that its centre falls into.
    """
    if not len(truth.instances):
        return (np.nan, np.nan, np.nan)
    instances, categories = (_best(labels, counts, truth.sizes) for counts in (truth.instances, truth.categories))
    return float(instances.mean()), float(categories.mean()), float((instances > RECOVERED).mean())


def cell_counts(
    masks: Bool[np.ndarray, "mask height width"], grid: tuple[int, int]
) -> Float[np.ndarray, "mask rows columns"]:
    """How many pixels of each mask have their centre in each cell of a grid of (rows, columns)."""
    height, width = masks.shape[1:]
    by_row = _between(masks, _ends(height, grid[0]), 1)
    return _between(by_row, _ends(width, grid[1]), 2).astype(np.float64)


def _cell_sizes(size: tuple[int, ...], grid: tuple[int, int]) -> Float[np.ndarray, "rows columns"]:
    return np.outer(*(np.diff(_ends(n, cells)) for n, cells in zip(size, grid, strict=True))).astype(np.float64)


def _ends(pixels: int, cells: int) -> Int[np.ndarray, " end"]:
    """Where each cell begins, and the last one ends, on a line of ``pixels``: the first pixel whose centre is in it."""
    cell_of = ((2 * np.arange(pixels) + 1) * cells) // (2 * pixels)
    return np.searchsorted(cell_of, np.arange(cells + 1))


def _between(masks: np.ndarray, ends: Int[np.ndarray, " end"], axis: int) -> Int[np.ndarray, "..."]:
    """Sums along ``axis`` over the intervals that ``ends`` bound."""
    sums = np.insert(np.cumsum(masks, axis=axis, dtype=np.int32), 0, 0, axis=axis)
    return np.diff(np.take(sums, ends, axis=axis), axis=axis)


def _best(
    labels: Int[np.ndarray, "level rows columns"],
    counts: Float[np.ndarray, "truth rows columns"],
    sizes: Float[np.ndarray, "rows columns"],
) -> Float[np.ndarray, " truth"]:
    """The best IoU of each truth with any segment, from its pixels in every cell: counted once a cell."""
    best, flat, areas = np.zeros(len(counts)), counts.reshape(len(counts), sizes.size), counts.sum((1, 2))
    for level in labels.reshape(len(labels), -1):
        segments = np.bincount(level, weights=sizes.ravel())  # pixels
        shared = np.zeros((len(segments), len(counts)))
        for i, count in enumerate(flat):
            shared[:, i] = np.bincount(level, weights=count, minlength=len(segments))
        best = np.maximum(best, _iou(shared, segments, areas).max(0, initial=0))
    return best


def _iou(
    shared: Float[np.ndarray, "a b"], areas_a: Float[np.ndarray, " a"], areas_b: Float[np.ndarray, " b"]
) -> Float[np.ndarray, "a b"]:
    union = areas_a[:, None] + areas_b - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=shared > 0)


def summarise(
    images: Float[np.ndarray, "image 3"],
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Overlap:
    """The means over images of what :func:`image_overlap` gives, leaving out rows of nan."""
    counted = images[~np.isnan(images).any(axis=1)]
    abo_i, abo_c, recovery = (
        percent(mean_interval(column, confidence=confidence, resamples=resamples, seed=seed)) for column in counted.T
    )
    return Overlap(abo_i, abo_c, recovery, images)


def overlap_difference(
    a: Overlap, b: Overlap, *, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval]:
    """How many points A's ``abo_i``, ``abo_c`` and ``or`` lie above B's on the images counted in both, with intervals.

    Differences are resampled image by image: an interval that contains 0 does not tell the two apart.
    Raises :class:`ParameterError` where the numbers of images differ.
    """
    if len(a.images) != len(b.images):
        raise ParameterError(f"a difference needs the same images: A has {len(a.images)}, B has {len(b.images)}")
    gains = (a.images - b.images)[a.counted & b.counted]
    return {
        metric: percent(mean_interval(gain, confidence=confidence, resamples=resamples, seed=seed))
        for metric, gain in zip(METRICS, gains.T, strict=True)
    }


def central_square(height: int, width: int) -> tuple[int, int, int]:
    """Top, left and side of the largest square in the middle of an image (one pixel towards the origin if odd)."""
    side = min(height, width)
    return (height - side) // 2, (width - side) // 2, side


def square_truths(target: Target, side: int) -> Truths:
    """The masks of ``target`` in the picture's central square, resized to ``side`` pixels (nearest neighbour).

    Crowds are left out, and so is what has no pixel there. Raises :class:`ParameterError` for a target without masks.
    """
    if target.masks is None:
        raise ParameterError("these objects have boxes but no masks: open the dataset with masks=True, or use another")
    kept = np.flatnonzero(~target.crowd)
    masks = np.zeros((len(kept), side, side), dtype=bool)
    for mask, i in zip(masks, kept, strict=True):
        encoded = target.masks[i]
        top, left, length = central_square(*encoded["size"])
        at = ((2 * np.arange(side) + 1) * length) // (2 * side)
        mask[:] = coco_mask.decode(encoded)[top + at[:, None], left + at]
    seen = masks.any((1, 2))
    return Truths(masks[seen], target.labels[kept[seen]])


def without_small(truths: Truths) -> Truths:
    """The filter of Table A.1: no mask below 100 pixels at 224×224, and at most 16 masks an image.

    Which 16 the paper does not say: the largest (the first of equals).
    """
    side = truths.masks.shape[-1]
    areas = truths.masks.sum((1, 2))
    order = np.argsort(-areas, kind="stable")[:FILTER_MASKS]
    kept = np.sort(order[areas[order] * FILTER_SIDE**2 >= FILTER_AREA * side**2])
    return Truths(truths.masks[kept], truths.labels[kept])
