"""Semantic segmentation without labels: mIoU after clusters have been matched with classes (COMUS, Sec. 4.1).

Everything follows from one table for each image: how many pixels cluster c has in common with class g. Background is
cluster 0 and class 0, and takes part in the matching like any other, as in the authors' code.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Integer

from foundling.errors import ParameterError
from foundling.evaluation.bootstrap import CONFIDENCE, RESAMPLES, Interval
from foundling.evaluation.matching import match
from foundling.types import VOID

FOUND_ABOVE = 0.2  # a class counts as found where its IoU is at least this (COMUS, Sec. 4.4)
_CELLS = 2**24  # cells of resampled tables in memory at a time


@dataclass(frozen=True)
class Segmentation:
    """How well matched clusters segment a dataset; numbers in percent (0..100).

    ``miou`` is the mean IoU over the classes that occur in the truth, background included, and ``accuracy`` the share
    of pixels with the right class, both with intervals over images; ``classes`` has the IoU of each class (nan where
    it does not occur), ``found`` how many of the classes other than background reach 20 %, ``assignment`` the class of
    each cluster (-1: none).
    """

    miou: Interval
    accuracy: Interval
    classes: Float[np.ndarray, " class"]
    found: int
    assignment: Int[np.ndarray, " cluster"]


def confusion(
    predicted: Integer[np.ndarray, "height width"],
    truth: Integer[np.ndarray, "true_height true_width"],
    clusters: int,
    classes: int,
    ignore: int = VOID,
) -> Int[np.ndarray, "cluster class"]:
    """How many pixels each cluster shares with each class in one image, at the resolution of the truth.

    ``predicted`` holds clusters 0 to ``clusters`` - 1 and ``truth`` classes 0 to ``classes`` - 1, or ``ignore`` where
    nothing counts. Raises :class:`ParameterError` for maps of different sizes and for values that are neither.
    """
    if predicted.shape != truth.shape:
        sizes = " and ".join(f"{width}×{height}" for height, width in (predicted.shape, truth.shape))
        raise ParameterError(
            f"a predicted and a true label map of {sizes} pixels: resize the prediction (nearest) to the truth first"
        )
    counted = truth != ignore
    found, true = predicted[counted].astype(np.int64), truth[counted].astype(np.int64)
    for name, values, count in (("predicted", found, clusters), ("true", true, classes)):
        if values.size and not 0 <= values.min() <= values.max() < count:
            wrong = values[(values < 0) | (values >= count)][0]
            raise ParameterError(
                f"the {name} label map holds {wrong}: legal are 0 to {count - 1}"
                + (f", and {ignore} for pixels that do not count" if name == "true" else "")
            )
    return np.bincount(found * classes + true, minlength=clusters * classes).reshape(clusters, classes)


def iou_table(table: Float[np.ndarray, "*more cluster class"]) -> Float[np.ndarray, "*more cluster class"]:
    """The IoU of each cluster with each class, 0..1, from the pixels they share (0 where neither has any)."""
    union = table.sum(-1, keepdims=True) + table.sum(-2, keepdims=True) - table
    return np.divide(table, union, out=np.zeros(table.shape), where=union > 0)


def segmentation_scores(
    confusions: Int[np.ndarray, "image cluster class"],
    matching: str = "hungarian",
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Segmentation:
    """mIoU and accuracy over a dataset, after clusters have been given classes (COMUS, Sec. 4.1).

    ``confusions`` are those of :func:`confusion`, image by image; intersections and unions are added up over the
    dataset before they are divided. ``matching`` is ``"hungarian"`` (one cluster a class, the largest sum of IoUs) or
    ``"majority"`` (every cluster the class it has the best IoU with; clusters of one class are merged). Pixels of a
    cluster without a class are wrong. The matching is made once, on all images, and held while these are resampled.

    Raises :class:`ParameterError` where no pixel counts, and as :func:`foundling.evaluation.matching.match`.
    """
    table = confusions.sum(0)
    if not table.any():
        raise ParameterError("no pixel of these images counts: every true label map is empty or void throughout")
    assignment = match(iou_table(table.astype(np.float64)), matching)
    merged = _merged(confusions, assignment)
    classes, accuracy = _scores(merged.sum(0, keepdims=True).astype(np.float64))
    occurs = merged.sum((0, 1)) > 0
    ends = _resampled(merged, occurs, confidence, resamples, seed) if len(merged) > 1 else ((None, None),) * 2
    return Segmentation(
        Interval(100 * float(classes[0, occurs].mean()), *ends[0]),
        Interval(100 * float(accuracy[0]), *ends[1]),
        np.where(occurs, 100 * classes[0], np.nan),
        int((classes[0, 1:][occurs[1:]] >= FOUND_ABOVE).sum()),
        assignment,
    )


def _merged(
    confusions: Int[np.ndarray, "image cluster class"], assignment: Int[np.ndarray, " cluster"]
) -> Int[np.ndarray, "image named class"]:
    """The same tables with clusters added up by their class; the last row holds clusters without one."""
    images, _, classes = confusions.shape
    merged = np.zeros((images, classes + 1, classes), dtype=np.int64)
    for cluster, named in enumerate(assignment):
        merged[:, named] += confusions[:, cluster]  # -1 is the last row
    return merged


def _scores(
    tables: Float[np.ndarray, "table named class"],
) -> tuple[Float[np.ndarray, "table class"], Float[np.ndarray, " table"]]:
    """IoU of each class and the share of right pixels, 0..1, of each of several tables."""
    right = np.diagonal(tables, axis1=1, axis2=2)
    union = tables[:, :-1].sum(2) + tables.sum(1) - right
    total = tables.sum((1, 2))
    iou = np.divide(right, union, out=np.zeros(right.shape), where=union > 0)
    return iou, np.divide(right.sum(1), total, out=np.zeros(len(total)), where=total > 0)


def _resampled(
    merged: Int[np.ndarray, "image named class"],
    occurs: np.ndarray,
    confidence: float,
    resamples: int,
    seed: int,
) -> list[tuple[float, float]]:
    """The ends of the percentile intervals of mIoU and of accuracy, in percent, over images drawn with replacement."""
    images = len(merged)
    flat = merged.reshape(images, -1).astype(np.float64)
    rng = np.random.default_rng(seed)
    values = []
    step = max(1, _CELLS // max(flat.shape[1], images))
    for start in range(0, resamples, step):
        times = rng.multinomial(images, np.full(images, 1 / images), size=min(step, resamples - start))
        classes, accuracy = _scores((times @ flat).reshape(-1, *merged.shape[1:]))
        values.append(np.stack([classes[:, occurs].mean(1), accuracy]))
    ends = 100 * np.quantile(np.concatenate(values, 1), [(1 - confidence) / 2, (1 + confidence) / 2], axis=1)
    return [(float(low), float(high)) for low, high in ends.T]
