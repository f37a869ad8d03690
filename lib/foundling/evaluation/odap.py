"""Average precision for object discovery (odAP), which ranks boxes in each image only (LOST, appendix B.2).

LOST describes it as "the average of the AP of predicted objects for each number of predicted regions, from one to the
maximum number of ground-truth objects in an image". The measure is that of LOD (Vo et al., NeurIPS 2021), whose code
defines it otherwise, and whose numbers stand beside LOST's in Table 9. So there are two here:

* :func:`od_ap`, as LOD's code: with r regions an image, P(r) is the share of regions that are right and R(r) that of
  objects that are found; odAP is the sum over r of P(r) (R(r) − R(r − 1)). Scores of different images are never
  compared, and P(1) is CorLoc.
* :func:`mean_of_aps`, as LOST's text: the mean over r of the usual AP (COCO's) of the r surest regions of each image.

Difficult and truncated objects count, as for CorLoc, and crowds do not exist.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from foundling.errors import ParameterError
from foundling.evaluation.bootstrap import CONFIDENCE, Figures, image_draws, named_intervals
from foundling.evaluation.boxes import iou
from foundling.evaluation.detection import Detected, Ranked, ranked, to_results, without_crowds
from foundling.evaluation.precision import precision_by_count
from foundling.evaluation.recall import THRESHOLDS
from foundling.types import Sample

LEAST_REGIONS = 5  # LOD ranks at least so many regions of an image
RESAMPLES = 1000
NAMES = ("odAP", "odAP50")  # odAP: mean over IoU .50:.05:.95


@dataclass(frozen=True)
class OdAP(Figures):
    """``values`` has ``odAP`` (LOST's odAP@[50-95]) and ``odAP50`` in percent, with intervals over images.

    ``precision`` and ``recall`` are P(r) and R(r) in 0..1 for each IoU, r from 1 (nan without objects).
    """

    precision: Float[np.ndarray, "threshold region"]
    recall: Float[np.ndarray, "threshold region"]


def od_ap(
    detected: Detected,
    samples: Sequence[Sample],
    *,
    regions: int | None = None,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> OdAP:
    """odAP by LOD's definition: the sum over r = 1 … ``regions`` of P(r) (R(r) − R(r − 1)), R(0) = 0.

    Of the r surest detections of an image (or as many as there are), one is right if it is the first to reach the IoU
    with some object; an object is found if one reaches it. P(r) divides all that are right by all there are, R(r) all
    that are found by all objects; an image without any detection counts as one with a false one. ``regions`` is by
    default the largest number of objects in an image, 5 at least. IoU are .50, .55, … .95; reaching one is enough.

    Without objects the values are ``None``. Intervals draw images with replacement, ``regions`` held (``resamples``; 0:
    none). Raises :class:`ParameterError` for ``regions`` below 1, a ``confidence`` outside 0..1, and as
    :func:`foundling.evaluation.detection.ranked`.
    """
    _check(regions, confidence)
    ranking = ranked(detected, without_crowds(samples))
    count = regions or max(LEAST_REGIONS, *(len(target) for target in ranking.targets), 0)
    right, found, there, objects = _counts(ranking, count)
    everywhere = np.ones((1, len(objects)))
    precision, recall = _rates(right, found, there, objects, everywhere)
    many = image_draws(len(objects), resamples, seed) if (objects > 0).sum() > 1 else ()
    draws = [_areas(*_rates(right, found, there, objects, weights)) for weights in many]
    every = 100 * np.concatenate([np.zeros((0, 2)), *draws])
    point = 100 * _areas(precision, recall)[0]
    values = named_intervals(NAMES, point, every, confidence, [False, False])
    return OdAP(values, every, ranking.images, precision[0], recall[0])


def mean_of_aps(
    detected: Detected, samples: Sequence[Sample], *, regions: int | None = None
) -> dict[str, float | None]:
    """odAP by LOST's words: the mean over r = 1 … ``regions`` of COCO's AP with r detections an image, in percent.

    ``regions`` is by default the largest number of objects in an image. ``odAP`` is the mean over IoU .50:.05:.95 and
    ``odAP50`` that at 0.5; ``None`` without objects. Raises as :func:`od_ap`.
    """
    _check(regions, CONFIDENCE)
    plain = without_crowds(samples)
    count = regions or max(1, *(len(s.target) for s in plain if s.target is not None), 1)
    aps = precision_by_count(to_results(detected), plain, "bbox", range(1, count + 1))
    means = [float(aps.mean()), float(aps[:, 0].mean())]
    return {name: None if np.isnan(mean) else 100 * mean for name, mean in zip(NAMES, means, strict=True)}


def _check(regions: int | None, confidence: float) -> None:
    if regions is not None and regions < 1:
        raise ParameterError(f"regions is {regions}: choose 1 or more detections an image, or None")
    if not 0 < confidence < 1:
        raise ParameterError(f"confidence is {confidence}: choose a share between 0 and 1, such as 0.95")


def _counts(
    ranking: Ranked, count: int
) -> tuple[
    Float[np.ndarray, "image threshold region"],
    Float[np.ndarray, "image threshold region"],
    Float[np.ndarray, "image region"],
    Float[np.ndarray, " image"],
]:
    """By image and r: the detections that are right, the objects that are found, the detections; and all objects."""
    shape = (len(ranking.targets), len(THRESHOLDS), count)
    right, found = np.zeros(shape), np.zeros(shape)
    there = np.ones((shape[0], count))
    by_image = np.argsort(ranking.image, kind="stable")
    starts = np.searchsorted(ranking.image[by_image], np.arange(len(ranking.targets) + 1))
    for n, target in enumerate(ranking.targets):
        rows = by_image[starts[n] : starts[n + 1]][:count]
        there[n] = np.minimum(np.arange(1, count + 1), max(1, len(rows)))
        if len(rows) and len(target):
            reached = iou(ranking.boxes[rows], target.boxes) >= THRESHOLDS[:, None, None]
            right[n], found[n] = _first_reached(reached, count)
    return right, found, there, np.array([len(target) for target in ranking.targets], dtype=np.float64)


def _first_reached(
    reached: Bool[np.ndarray, "threshold region object"], count: int
) -> tuple[Float[np.ndarray, "threshold count"], Float[np.ndarray, "threshold count"]]:
    """By r: regions that are the first to reach an object, and objects that are reached."""
    first = np.where(reached.any(axis=1), reached.argmax(axis=1), count)  # [threshold, object]
    claimed = first[:, :, None] == np.arange(count)  # [threshold, object, region]
    return np.cumsum(claimed.any(axis=1), axis=1).astype(np.float64), np.cumsum(claimed.sum(axis=1), axis=1) * 1.0


def _rates(
    right: Float[np.ndarray, "image threshold region"],
    found: Float[np.ndarray, "image threshold region"],
    there: Float[np.ndarray, "image region"],
    objects: Float[np.ndarray, " image"],
    weights: Float[np.ndarray, "draw image"],
) -> tuple[Float[np.ndarray, "draw threshold region"], Float[np.ndarray, "draw threshold region"]]:
    """P(r) and R(r) at each IoU, every image counted ``weights`` times."""
    regions, total = weights @ there, weights @ objects
    total = np.where(total > 0, total, np.nan)
    hits, covered = (np.tensordot(weights, table, axes=1) for table in (right, found))
    precision = hits / np.maximum(regions, 1)[:, None, :]
    return np.where(np.isnan(total)[:, None, None], np.nan, precision), covered / total[:, None, None]


def _areas(
    precision: Float[np.ndarray, "draw threshold region"], recall: Float[np.ndarray, "draw threshold region"]
) -> Float[np.ndarray, "draw 2"]:
    """odAP and odAP50 (0..1) of each draw."""
    areas = (precision * np.diff(recall, axis=2, prepend=0.0)).sum(axis=2)
    return np.stack([areas.mean(axis=1), areas[:, 0]], axis=1)
