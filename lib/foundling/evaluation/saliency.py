"""How well one mask an image covers all that is annotated in it: IoU, accuracy, F (COMUS, Table 6; TokenCut).

Everything follows from four numbers an image: how many pixels are rightly in the mask, wrongly in it, missing from it,
and rightly left out.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from foundling.errors import ParameterError
from foundling.evaluation.bootstrap import (
    CONFIDENCE,
    RESAMPLES,
    Interval,
    drawn_interval,
    image_draws,
    mean_interval,
    percent,
    ratio_intervals,
)
from foundling.types import VOID

BETA2 = 0.3  # β² of F: precision counts for more than recall
THRESHOLDS = np.arange(0, 1, 1 / 255)  # at which a map of 0..1 is cut for the largest F


@dataclass(frozen=True)
class SaliencyScores:
    """Numbers in percent (0..100) with their intervals over images.

    ``foreground`` is the IoU of the foreground over the dataset: intersections and unions are added up before they are
    divided (COMUS, Table 6, which says no more than "IoU for the foreground class"). ``iou``, ``accuracy`` and ``f``
    are means over images (TokenCut). ``images`` has an image's own IoU, accuracy and F in 0..1 in each row.
    """

    foreground: Interval
    iou: Interval
    accuracy: Interval
    f: Interval
    images: Float[np.ndarray, "image 3"]


def saliency_counts(
    mask: Bool[np.ndarray, "height width"], truth: UInt8[np.ndarray, "true_height true_width"], ignore: int = VOID
) -> Int[np.ndarray, "4"]:
    """How many pixels of one image are rightly in the mask, wrongly in it, missing from it, rightly left out.

    ``truth`` is a label map, in which all but 0 and ``ignore`` (which does not count) is foreground. Raises
    :class:`ParameterError` for a mask of another size.
    """
    if mask.shape != truth.shape:
        sizes = " and ".join(f"{width}×{height}" for height, width in (mask.shape, truth.shape))
        raise ParameterError(f"a mask and a true label map of {sizes} pixels: bring the mask to the size of the truth")
    counted = truth != ignore
    found, true = mask[counted], truth[counted] > 0
    both = int((found & true).sum())
    wrong, missed = int(found.sum()) - both, int(true.sum()) - both
    return np.array([both, wrong, missed, int(counted.sum()) - both - wrong - missed], dtype=np.int64)


def score_saliency(
    counts: Int[np.ndarray, "image 4"],
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> SaliencyScores:
    """The scores of masks, one an image, from their :func:`saliency_counts`; images of which no pixel counts are left
    out. An empty mask of an image without foreground has IoU and F 1."""
    counted = counts[counts.sum(1) > 0].astype(np.float64)
    right, wrong, missed, _ = counted.T
    union = right + wrong + missed
    images = np.stack(
        [
            np.divide(right, union, out=np.ones_like(union), where=union > 0),
            1 - np.divide(wrong + missed, counted.sum(1)),
            f_measure(right, wrong, missed),
        ],
        axis=1,
    )
    columns = right[:, None], union[:, None]
    foreground = ratio_intervals(*columns, confidence=confidence, resamples=resamples, seed=seed)[0]
    iou, accuracy, f = (
        percent(mean_interval(column, confidence=confidence, resamples=resamples, seed=seed)) for column in images.T
    )
    return SaliencyScores(percent(foreground), iou, accuracy, f, images)


def f_measure(
    right: Float[np.ndarray, "*any"], wrong: Float[np.ndarray, "*any"], missed: Float[np.ndarray, "*any"]
) -> Float[np.ndarray, "*any"]:
    """F with β² = 0.3, 0..1, from numbers of pixels: the weighted harmonic mean of precision and recall.

    Precision is 1 of an empty mask, recall 1 where there is no foreground; F is 0 where both are 0.
    """
    found, true = right + wrong, right + missed
    precision = np.divide(right, found, out=np.ones_like(found), where=found > 0)
    recall = np.divide(right, true, out=np.ones_like(true), where=true > 0)
    below = BETA2 * precision + recall
    return np.divide((1 + BETA2) * precision * recall, below, out=np.zeros_like(below), where=below > 0)


def f_curve(
    values: Float[np.ndarray, "height width"], truth: UInt8[np.ndarray, "true_height true_width"], ignore: int = VOID
) -> Float[np.ndarray, " threshold"]:
    """F of one image's map of 0..1 at every threshold of 0, 1/255, … 254/255: what lies above is the mask.

    Raises :class:`ParameterError` for a map of another size or with values outside 0..1.
    """
    if values.shape != truth.shape:
        sizes = " and ".join(f"{width}×{height}" for height, width in (values.shape, truth.shape))
        raise ParameterError(f"a map and a true label map of {sizes} pixels: bring the map to the size of the truth")
    if values.size and not 0 <= values.min() <= values.max() <= 1:
        raise ParameterError(f"a map of {values.min():.3g} to {values.max():.3g}: stretch it to 0..1 first")
    counted = truth != ignore
    passed = np.searchsorted(THRESHOLDS, values[counted].astype(np.float64), side="left")  # thresholds below a value
    true = truth[counted] > 0
    above = [  # pixels above each threshold
        np.bincount(passed[chosen], minlength=len(THRESHOLDS) + 1)[::-1].cumsum()[::-1][1:].astype(np.float64)
        for chosen in (true, ~true)
    ]
    return f_measure(above[0], above[1], true.sum() - above[0])


def largest_f(
    curves: Float[np.ndarray, "image threshold"],
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Interval:
    """Fβ max in percent: the mean over images at the threshold that is best for all of them together (TokenCut).

    ``curves`` are those of :func:`f_curve`. In every draw of images the threshold is chosen anew.
    """
    if not len(curves):
        return Interval(None, None, None)
    value = float(curves.mean(0).max())
    if len(curves) == 1:
        return percent(Interval(value, None, None))
    drawn = [(draws @ curves).max(1) / len(curves) for draws in image_draws(len(curves), resamples, seed)]
    return percent(drawn_interval(value, np.concatenate(drawn), confidence))


def saliency_difference(
    a: SaliencyScores, b: SaliencyScores, *, confidence: float = CONFIDENCE, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Interval]:
    """How many points A's ``iou``, ``accuracy`` and ``f`` lie above B's on the same images, with their intervals.

    Differences are resampled image by image. Raises :class:`ParameterError` where the numbers of images differ.
    """
    if len(a.images) != len(b.images):
        raise ParameterError(f"a difference needs the same images: A has {len(a.images)}, B has {len(b.images)}")
    return {
        name: percent(mean_interval(gain, confidence=confidence, resamples=resamples, seed=seed))
        for name, gain in zip(("iou", "accuracy", "f"), (a.images - b.images).T, strict=True)
    }
