"""Average precision as the VOC devkit measures it: detections are matched in the order of their scores.

A detection belongs to the object of its class in its image with which it has the best IoU (the first of equals). With
an IoU above the threshold it is right if it is the first to claim that object, and false otherwise; a difficult object
is no object to be found, and what claims it counts for nothing. The devkit's boxes begin at 1 and include their last
pixel, whence its "+1"; ours are half-open, which gives the same areas without. A crowd of COCO is no object either: of
what misses every object, the detections that lie in a crowd by more than the threshold (of their own area) count for
nothing.

AP is the area under the curve of precision over recall, or its mean at the recalls 0, .1, …, 1 (VOC 2007), where
precision at a recall is the best at that recall or beyond.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from foundling.errors import ParameterError
from foundling.evaluation.bootstrap import CONFIDENCE, Figures, image_draws, named_intervals
from foundling.evaluation.boxes import iou
from foundling.evaluation.detection import Detected, Ranked, ranked
from foundling.types import Sample, Target

ELEVEN = np.arange(11) / 10  # recalls of VOC 2007's measure
RESAMPLES = 1000  # each costs a pass over all detections
_CELLS = 2**23  # of tables of draws in memory at a time


class Curve(NamedTuple):
    """Precision over recall, one point a detection that counts, the surest first; shares in 0..1.

    ``area`` is the AP (0..1), ``scores`` those of the detections. Without any object, recall and area are nan.
    """

    recall: Float[np.ndarray, " point"]
    precision: Float[np.ndarray, " point"]
    scores: Float[np.ndarray, " point"]
    area: float


@dataclass(frozen=True)
class VocPrecision(Figures):
    """Class-agnostic AP in percent: ``values`` has ``area`` and ``eleven`` (points), with intervals over images.

    ``objects`` counts those that are neither difficult nor crowds, ``detections`` those in annotated images.
    """

    curve: Curve
    objects: int
    detections: int


class Claims(NamedTuple):
    """Which detection (rank) claims which object of which class with which IoU, by rank; and which lie in crowds."""

    detection: Int[np.ndarray, " claim"]
    label: Int[np.ndarray, " claim"]
    object: Int[np.ndarray, " claim"]  # numbered through all images
    overlap: Float[np.ndarray, " claim"]
    difficult: Bool[np.ndarray, " claim"]
    crowd_detection: Int[np.ndarray, " in_crowd"]
    crowd_label: Int[np.ndarray, " in_crowd"]
    crowd_overlap: Float[np.ndarray, " in_crowd"]
    objects: Float[np.ndarray, "image label"]  # to be found


class Judged(NamedTuple):
    """Of a group of detections in the order of rank: the places of those that are right, and of those ignored."""

    right: Int[np.ndarray, " right"]
    ignored: Int[np.ndarray, " ignored"]


def voc_precision(
    detected: Detected,
    samples: Sequence[Sample],
    threshold: float = 0.5,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> VocPrecision:
    """AP by the devkit's rules whatever the labels: all detections and all objects are of one class.

    An image with a target but no object counts: what is found there is false. One without a target is left out.
    Without any detection AP is 0, without any object ``None``. Intervals draw images with replacement (``resamples``;
    0: none). Raises :class:`ParameterError` for a ``threshold`` or ``confidence`` outside 0..1, and as
    :func:`foundling.evaluation.detection.ranked`.
    """
    check_shares([threshold], confidence)
    ranking = ranked(detected, samples)
    claims = claims_of(ranking, 1, threshold, blind=True)
    members = np.arange(len(ranking))
    judged = judge(claims, members, 0, threshold)
    objects = claims.objects[:, 0]
    everywhere = np.ones((1, len(objects)))
    point = np.array(precisions(judged, everywhere[:, ranking.image], everywhere @ objects))[:, 0]
    draws = [np.zeros((0, 2))]
    if (objects > 0).sum() > 1:
        for weights in small_draws(len(objects), resamples, seed, len(ranking)):
            drawn = precisions(judged, weights[:, ranking.image], weights @ objects)
            draws.append(np.stack(drawn, axis=1))
    every = 100 * np.concatenate(draws)
    alone = [len(every) == 0] * 2
    values = named_intervals(["area", "eleven"], 100 * point, every, confidence, alone)
    curve = curve_of(judged, ranking.scores, float(objects.sum()))
    return VocPrecision(values, every, ranking.images, curve, int(objects.sum()), len(ranking))


def check_shares(thresholds: Sequence[float], confidence: float) -> None:
    """Raise :class:`ParameterError` for IoUs or a confidence that are none."""
    for threshold in thresholds:
        if not 0 <= threshold < 1:
            raise ParameterError(f"threshold is {threshold}: an IoU lies from 0 to below 1 (published: 0.5)")
    if not 0 < confidence < 1:
        raise ParameterError(f"confidence is {confidence}: choose a share between 0 and 1, such as 0.95")


def claims_of(ranking: Ranked, classes: int, least: float, blind: bool = False) -> Claims:
    """Every detection's object of each class in its image, where the IoU is above ``least``.

    ``blind`` takes all objects for ones of class 0. Raises :class:`ParameterError` for a label beyond ``classes``.
    """
    starts = np.searchsorted(np.sort(ranking.image), np.arange(len(ranking.targets) + 1))
    by_image = np.argsort(ranking.image, kind="stable")
    objects = np.zeros((len(ranking.targets), classes))
    claims: list[np.ndarray] = [np.zeros((5, 0))]
    crowded: list[np.ndarray] = [np.zeros((3, 0))]
    first = 0  # number of the image's first object
    for n, target in enumerate(ranking.targets):
        labels = np.zeros(len(target), dtype=np.int64) if blind else target.labels
        if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
            wrong = labels[(labels < 0) | (labels >= classes)][0]
            raise ParameterError(
                f"image_id {ranking.images[n]} has an object of label {wrong}: {classes} classes given"
            )
        wanted = ~target.crowd & ~target.difficult
        objects[n] = np.bincount(labels[wanted], minlength=classes)
        rows = by_image[starts[n] : starts[n + 1]]
        if len(rows) and len(target):
            found = _in_image(ranking.boxes[rows], target, labels, least)
            claims.append(np.stack([rows[found[0]], found[1], first + found[2], found[3], target.difficult[found[2]]]))
            crowded.append(_in_crowds(ranking.boxes[rows], rows, target, labels, least))
        first += len(target)
    each = np.concatenate(claims, axis=1)
    each = each[:, np.argsort(each[0], kind="stable")]
    rank, label, number = (each[i].astype(np.int64) for i in range(3))
    lying = np.concatenate(crowded, axis=1)
    crowd_rank, crowd_label = (lying[i].astype(np.int64) for i in range(2))
    return Claims(rank, label, number, each[3], each[4] > 0, crowd_rank, crowd_label, lying[2], objects)


def _in_image(
    boxes: Float[np.ndarray, "box 4"], target: Target, labels: Int[np.ndarray, " object"], least: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Row, class, object and IoU of each box's best object of each class, where it is above ``least``."""
    overlaps = iou(boxes, target.boxes)
    parts = []
    for label in np.unique(labels[~target.crowd]):
        own = np.flatnonzero((labels == label) & ~target.crowd)
        best = own[overlaps[:, own].argmax(axis=1)]
        value = overlaps[np.arange(len(boxes)), best]
        rows = np.flatnonzero(value > least)
        parts.append((rows, np.full(len(rows), label), best[rows], value[rows]))
    none = np.zeros(0, dtype=np.int64)
    parts.append((none, none, none, np.zeros(0)))
    rows, named, number, value = (np.concatenate(part) for part in zip(*parts, strict=True))
    return rows, named, number, value


def _in_crowds(
    boxes: Float[np.ndarray, "box 4"],
    rows: Int[np.ndarray, " box"],
    target: Target,
    labels: Int[np.ndarray, " object"],
    least: float,
) -> Float[np.ndarray, "3 in_crowd"]:
    """Rank, class and share of the area of each box that lies in a crowd by more than ``least``."""
    parts = [np.zeros((3, 0))]
    for crowd in np.flatnonzero(target.crowd).tolist():
        x0, y0, x1, y1 = target.boxes[crowd]
        inside = np.clip(boxes, [x0, y0, x0, y0], [x1, y1, x1, y1])
        shared, area = ((b[:, 2:] - b[:, :2]).prod(axis=1) for b in (inside, boxes))
        share = np.divide(shared, area, out=np.zeros(len(boxes)), where=area > 0)
        at = share > least
        parts.append(np.stack([rows[at], np.full(int(at.sum()), labels[crowd]), share[at]]).astype(np.float64))
    return np.concatenate(parts, axis=1)


def judge(claims: Claims, members: Int[np.ndarray, " member"], label: int, threshold: float) -> Judged:
    """What becomes of the detections ``members`` (ascending ranks) as detections of class ``label``."""
    of_class = (claims.label == label) & (claims.overlap > threshold)
    detection, number = claims.detection[of_class], claims.object[of_class]
    inside = np.isin(detection, members)
    detection, number, difficult = detection[inside], number[inside], claims.difficult[of_class][inside]
    _, first = np.unique(number[~difficult], return_index=True)  # claims are in the order of rank
    right = np.sort(detection[~difficult][first])
    in_crowd = claims.crowd_detection[(claims.crowd_label == label) & (claims.crowd_overlap > threshold)]
    idle = np.setdiff1d(in_crowd[np.isin(in_crowd, members)], detection)
    ignored = np.union1d(idle, detection[difficult]).astype(np.int64)
    return Judged(np.searchsorted(members, right), np.searchsorted(members, ignored))


def precisions(
    judged: Judged, weights: Float[np.ndarray, "draw member"], objects: Float[np.ndarray, " draw"]
) -> tuple[Float[np.ndarray, " draw"], Float[np.ndarray, " draw"]]:
    """AP as area and by eleven points (0..1), each detection counted ``weights`` times; nan without ``objects``.

    A draw takes an image several times: its detections then count as often, at the same rank.
    """
    right, ignored = judged
    here = weights[:, right]
    idle = np.cumsum(np.pad(weights[:, ignored], ((0, 0), (1, 0))), axis=1)[:, np.searchsorted(ignored, right)]
    counted = np.cumsum(weights, axis=1)[:, right] - idle  # precision is highest where one is right
    hits = np.cumsum(here, axis=1)
    best = np.divide(hits, counted, out=np.zeros_like(hits), where=counted > 0)
    best = np.maximum.accumulate(best[:, ::-1], axis=1)[:, ::-1]
    total = np.where(objects > 0, objects, np.nan)[:, None]
    recall = hits / total
    reached = [np.where(recall >= level, best, 0).max(axis=1, initial=0) for level in ELEVEN]
    area = (here * best).sum(axis=1) / total[:, 0]
    return area, np.where(objects > 0, np.mean(reached, axis=0), np.nan)


def small_draws(images: int, resamples: int, seed: int, detections: int) -> Iterator[Float[np.ndarray, "draw image"]]:
    """The draws of :func:`image_draws`, as few at a time as ``detections`` columns leave room for."""
    step = max(1, _CELLS // max(1, detections))
    for weights in image_draws(images, resamples, seed):
        for start in range(0, len(weights), step):
            yield weights[start : start + step]


def curve_of(judged: Judged, scores: Float[np.ndarray, " member"], objects: float) -> Curve:
    """Precision over recall of the detections that were ``judged``; ``objects`` counts those to be found."""
    right = np.zeros(len(scores), dtype=bool)
    right[judged.right] = True
    counted = np.ones(len(scores), dtype=bool)
    counted[judged.ignored] = False
    hits = np.cumsum(right[counted])
    recall = hits / objects if objects else np.full(len(hits), np.nan)
    area = precisions(judged, np.ones((1, len(scores))), np.array([objects]))[0][0]
    return Curve(recall, hits / np.arange(1, len(hits) + 1), scores[counted], float(area))
