"""Correct localisation (CorLoc): the share of images in which the one predicted box covers an object.

The published convention (LOST, Sec. 4.1): a hit is an image whose box overlaps any annotated object with an IoU of at
least 0.5; images without annotated objects are neither hits nor misses.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from foundling.errors import ParameterError
from foundling.evaluation.bootstrap import CONFIDENCE, RESAMPLES, mean_interval, percent
from foundling.evaluation.boxes import iou
from foundling.types import Target


@dataclass(frozen=True)
class CorLoc:
    """CorLoc in percent (0..100) with its interval, and what it was counted from.

    ``value``, ``low`` and ``high`` are ``None`` where no image has ground truth, the ends also where only one has.
    ``overlaps`` is the IoU with the best object of each image (0 where it is not counted).
    """

    value: float | None
    low: float | None
    high: float | None
    hits: Bool[np.ndarray, " image"]
    counted: Bool[np.ndarray, " image"]
    overlaps: Float[np.ndarray, " image"]


def corloc(
    boxes: Float[np.ndarray, "image 4"],
    targets: Sequence[Target | None],
    threshold: float = 0.5,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> CorLoc:
    """CorLoc of one box an image, overall (LOST, Sec. 4.1).

    ``boxes`` are (x0, y0, x1, y1) in pixels of the annotated images; a row of nan (the method failed) is a miss where
    the image counts. ``targets`` holds each image's ground truth, in the same order; ``None`` or a target without any
    object that is not a crowd leaves the image out of the count. Difficult and truncated objects do count, as
    published; a dataset's ``_noh`` splits leave them out. A hit has an IoU of at least ``threshold`` with any object.

    Raises :class:`ParameterError` where the numbers of boxes and targets differ, or ``threshold`` is outside 0..1.
    """
    _check(boxes, targets, threshold)
    counted = np.array([t is not None and bool((~t.crowd).any()) for t in targets], dtype=bool)
    overlaps = np.array(
        [_best(boxes[i], targets[i], None) if counted[i] else 0.0 for i in range(len(boxes))], dtype=np.float64
    )
    return _result(counted, overlaps, threshold, confidence, resamples, seed)


def corloc_by_class(
    boxes: Float[np.ndarray, "image 4"],
    targets: Sequence[Target | None],
    categories: Sequence[str],
    threshold: float = 0.5,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, CorLoc]:
    """CorLoc of each category: over the images that contain it, the share whose box covers one of its objects.

    This is the usual per-class convention of weakly supervised and co-localisation work: an image counts once for each
    class it contains, and only objects of that class make a hit. The overall figure of :func:`corloc` takes any
    object, so that it is not the mean of these. ``categories`` are the names that ``Target.labels`` index; their order
    is kept, and a category that no image contains has the value ``None``.

    Raises :class:`ParameterError` as :func:`corloc` does, and for a label without a category.
    """
    _check(boxes, targets, threshold)
    labels = [np.empty(0, dtype=np.int64) if t is None else t.labels[~t.crowd] for t in targets]
    unknown = sorted({int(label) for found in labels for label in found if not 0 <= label < len(categories)})
    if unknown:
        raise ParameterError(f"label {unknown[0]} has no category: labels run from 0 to {len(categories) - 1}")
    results = {}
    for c, name in enumerate(categories):
        counted = np.array([bool((found == c).any()) for found in labels], dtype=bool)
        overlaps = np.zeros(len(boxes))
        for i in map(int, np.flatnonzero(counted)):
            overlaps[i] = _best(boxes[i], targets[i], c)
        results[name] = _result(counted, overlaps, threshold, confidence, resamples, seed)
    return results


def _check(boxes: Float[np.ndarray, "image 4"], targets: Sequence[Target | None], threshold: float) -> None:
    if len(boxes) != len(targets):
        raise ParameterError(f"{len(boxes)} boxes for {len(targets)} targets: give one box an image, nan where none")
    if not 0 < threshold <= 1:
        raise ParameterError(f"threshold is {threshold}: an IoU lies above 0 and at most at 1 (published: 0.5)")


def _best(box: Float[np.ndarray, " 4"], target: Target | None, label: int | None) -> float:
    """The IoU of ``box`` with the object it overlaps best: of class ``label``, or any where ``None``; crowds never."""
    if target is None:
        return 0.0
    objects = ~target.crowd if label is None else ~target.crowd & (target.labels == label)
    return float(iou(box[None], target.boxes[objects]).max(initial=0.0))


def _result(
    counted: Bool[np.ndarray, " image"],
    overlaps: Float[np.ndarray, " image"],
    threshold: float,
    confidence: float,
    resamples: int,
    seed: int,
) -> CorLoc:
    hits = counted & (overlaps >= threshold)
    interval = percent(
        mean_interval(hits[counted].astype(np.float64), confidence=confidence, resamples=resamples, seed=seed)
    )
    return CorLoc(*interval, hits, counted, overlaps)
