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
    """Which detections claim which objects of one class with which IoU, and which lie in its crowds, by rank."""

    detection: Int[np.ndarray, " claim"]  # place among the detections that are judged
    object: Int[np.ndarray, " claim"]
    overlap: Float[np.ndarray, " claim"]
    difficult: Bool[np.ndarray, " claim"]
    in_crowd: Int[np.ndarray, " in_crowd"]
    crowd_overlap: Float[np.ndarray, " in_crowd"]


class Groups(NamedTuple):
    """The detections in groups (clusters), each with its claims on each class that any of it overlaps."""

    images: tuple[Int[np.ndarray, " _"], ...]  # of each detection of each group, the surest first
    scores: tuple[Float[np.ndarray, " _"], ...]
    claims: dict[tuple[int, int], Claims]  # of (group, class)
    objects: Float[np.ndarray, "image label"]  # to be found

    def judged(self, group: int, label: int, threshold: float) -> "Judged":
        """What becomes of the detections of ``group`` as detections of class ``label``."""
        claims = self.claims.get((group, label))
        none = np.zeros(0, dtype=np.int64)
        return Judged(none, none) if claims is None else judge(claims, threshold)


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
    groups = grouped(ranking, 1, 1, threshold, blind=True)
    judged, objects = groups.judged(0, 0, threshold), groups.objects[:, 0]
    everywhere = np.ones((1, len(objects)))
    point = _both(judged, everywhere[:, ranking.image], everywhere @ objects)[0]
    draws = [np.zeros((0, 2))]
    if (objects > 0).sum() > 1:
        for weights in small_draws(len(objects), resamples, seed, len(ranking)):
            draws.append(_both(judged, weights[:, ranking.image], weights @ objects))
    every = 100 * np.concatenate(draws)
    alone = [len(every) == 0] * 2
    values = named_intervals(["area", "eleven"], 100 * point, every, confidence, alone)
    curve = curve_of(judged, ranking.scores, float(objects.sum()))
    return VocPrecision(values, every, ranking.images, curve, int(objects.sum()), len(ranking))


def _both(
    judged: Judged, weights: Float[np.ndarray, "draw member"], objects: Float[np.ndarray, " draw"]
) -> Float[np.ndarray, "draw 2"]:
    """AP as area and by eleven points."""
    ranks = np.cumsum(weights, axis=1)
    return np.stack([average_precision(judged, weights, objects, ranks, eleven=e) for e in (False, True)], axis=1)


def check_shares(thresholds: Sequence[float], confidence: float) -> None:
    """Raise :class:`ParameterError` for IoUs or a confidence that are none."""
    for threshold in thresholds:
        if not 0 <= threshold < 1:
            raise ParameterError(f"threshold is {threshold}: an IoU lies from 0 to below 1 (published: 0.5)")
    if not 0 < confidence < 1:
        raise ParameterError(f"confidence is {confidence}: choose a share between 0 and 1, such as 0.95")


def grouped(ranking: Ranked, groups: int, classes: int, least: float, blind: bool = False) -> Groups:
    """The detections by label, with the object of each class that each claims with an IoU above ``least``.

    ``blind`` takes all detections and objects for ones of label 0. Raises :class:`ParameterError` for a class beyond
    ``classes``.
    """
    by_image = np.argsort(ranking.image, kind="stable")
    starts = np.searchsorted(ranking.image[by_image], np.arange(len(ranking.targets) + 1))
    objects = np.zeros((len(ranking.targets), classes))
    claims, crowded = [np.zeros((5, 0))], [np.zeros((3, 0))]
    first = 0  # number of the image's first object
    for n, target in enumerate(ranking.targets):
        labels = np.zeros(len(target), dtype=np.int64) if blind else target.labels
        if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
            wrong = labels[(labels < 0) | (labels >= classes)][0]
            raise ParameterError(
                f"image_id {ranking.images[n]} has an object of label {wrong}: {classes} classes given"
            )
        objects[n] = np.bincount(labels[~target.crowd & ~target.difficult], minlength=classes)
        rows = by_image[starts[n] : starts[n + 1]]
        if len(rows) and len(target):
            found = _in_image(ranking.boxes[rows], target, labels, least)
            claims.append(np.stack([rows[found[0]], found[1], found[3], first + found[2], target.difficult[found[2]]]))
            crowded.append(_in_crowds(ranking.boxes[rows], rows, target, labels, least))
        first += len(target)
    named = np.zeros(len(ranking), dtype=np.int64) if blind else ranking.labels
    members = [np.flatnonzero(named == group) for group in range(groups)]
    place = np.zeros(len(ranking), dtype=np.int64)  # in its group
    for own in members:
        place[own] = np.arange(len(own))
    right, lying = (_by_pair(np.concatenate(parts, axis=1), named, place) for parts in (claims, crowded))
    return Groups(
        tuple(ranking.image[own] for own in members),
        tuple(ranking.scores[own] for own in members),
        {
            pair: _claims(right.get(pair, np.zeros((4, 0))), lying.get(pair, np.zeros((2, 0))))
            for pair in sorted({*right, *lying})
        },
        objects,
    )


def _by_pair(
    table: Float[np.ndarray, "column row"], named: Int[np.ndarray, " detection"], place: Int[np.ndarray, " detection"]
) -> dict[tuple[int, int], Float[np.ndarray, "_ _"]]:
    """Rows (rank, class, …) of a table by group and class, in the order of rank; the place, then the other columns."""
    rank, label = table[:2].astype(np.int64)
    order = np.lexsort((rank, label, named[rank]))
    rank, label = rank[order], label[order]
    rows = np.concatenate([place[rank][None], table[2:, order]])
    pairs = np.stack([named[rank], label])
    cuts = np.flatnonzero((pairs[:, 1:] != pairs[:, :-1]).any(axis=0)) + 1
    parts = np.split(rows, cuts, axis=1) if len(rank) else []
    heads = pairs[:, [0, *cuts.tolist()]].T.tolist() if len(rank) else []
    return {(group, c): part for (group, c), part in zip(heads, parts, strict=True)}


def _claims(rows: Float[np.ndarray, "4 claim"], crowd: Float[np.ndarray, "2 in_crowd"]) -> Claims:
    detection, number = rows[0].astype(np.int64), rows[2].astype(np.int64)
    return Claims(detection, number, rows[1], rows[3] > 0, crowd[0].astype(np.int64), crowd[1])


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


def judge(claims: Claims, threshold: float) -> Judged:
    """Which detections are right and which are ignored at an IoU above ``threshold``."""
    above = claims.overlap > threshold
    detection, number, difficult = claims.detection[above], claims.object[above], claims.difficult[above]
    _, first = np.unique(number[~difficult], return_index=True)  # claims are in the order of rank
    right = np.sort(detection[~difficult][first])
    idle = np.setdiff1d(claims.in_crowd[claims.crowd_overlap > threshold], detection)
    return Judged(right, np.union1d(idle, detection[difficult]).astype(np.int64))


def average_precision(
    judged: Judged,
    weights: Float[np.ndarray, "draw member"],
    objects: Float[np.ndarray, " draw"],
    ranks: Float[np.ndarray, "draw member"] | None = None,
    *,
    eleven: bool = False,
) -> Float[np.ndarray, " draw"]:
    """AP as area, or by ``eleven`` points (0..1), each detection counted ``weights`` times; nan without ``objects``.

    A draw takes an image several times: its detections then count as often, at the same rank. ``ranks`` are the sums of
    the weights up to each detection, where they are known.
    """
    right, ignored = judged
    here = weights[:, right]
    idle = np.cumsum(np.pad(weights[:, ignored], ((0, 0), (1, 0))), axis=1)[:, np.searchsorted(ignored, right)]
    counted = (np.cumsum(weights, axis=1) if ranks is None else ranks)[:, right] - idle
    hits = np.cumsum(here, axis=1)  # precision is highest where a detection is right: only these are looked at
    best = np.divide(hits, counted, out=np.zeros_like(hits), where=counted > 0)
    best = np.maximum.accumulate(best[:, ::-1], axis=1)[:, ::-1]
    total = np.where(objects > 0, objects, np.nan)
    if not eleven:
        return (here * best).sum(axis=1) / total
    recall = hits / total[:, None]
    reached = [np.where(recall >= level, best, 0).max(axis=1, initial=0) for level in ELEVEN]
    return np.where(objects > 0, np.mean(reached, axis=0), np.nan)


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
    area = average_precision(judged, np.ones((1, len(scores))), np.array([objects]))[0]
    return Curve(recall, hits / np.arange(1, len(hits) + 1), scores[counted], float(area))
