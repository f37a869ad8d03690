"""Detectors of clusters judged by classes: AP after each class has been given a cluster (LOST, Sec. 4.3 and Table 3).

The AP of every cluster's detections is measured against the objects of every class, by the rules of the VOC devkit
(:mod:`foundling.evaluation.voc_ap`). At an IoU of 0.5 the clusters are then matched one to one with the classes so that
the sum of AP is largest, and the same matching serves at every IoU, as in the authors'
``evaluate_unsupervised_detection_voc.py``. Clusters without a class are left out with all they detected; a class
without a cluster, which the authors do not allow, has AP 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from foundling.errors import ParameterError
from foundling.evaluation.bootstrap import CONFIDENCE, Figures, Interval, named_intervals
from foundling.evaluation.detection import Detected, Ranked, ranked
from foundling.evaluation.matching import NO_CLASS, match
from foundling.evaluation.recall import THRESHOLDS
from foundling.evaluation.voc_ap import (
    RESAMPLES,
    Curve,
    Groups,
    average_precision,
    check_shares,
    curve_of,
    grouped,
    small_draws,
)
from foundling.types import Sample

NAMES = ("AP", "AP50", "AP75")


@dataclass(frozen=True)
class ClassAware(Figures):
    """AP of classes in percent, after matching.

    ``values`` has ``AP`` (mean over IoU .50:.05:.95), ``AP50`` and ``AP75``, each a mean over the classes that occur,
    with intervals over images for which the matching is held. ``classes`` is the AP50 of each class with its interval
    (``None`` where it does not occur), ``class_draws`` those of the draws. ``matrix`` has the AP of every cluster for
    every class at each IoU (nan where the class does not occur), ``assignment`` the class of each cluster (-1: none),
    ``curves`` precision over recall of each class at IoU 0.5 (``None`` without a cluster). ``objects`` counts those
    that are neither difficult nor crowds, by class.
    """

    classes: tuple[Interval, ...]
    class_draws: Float[np.ndarray, "draw class"]
    matrix: Float[np.ndarray, "threshold cluster class"]
    assignment: Int[np.ndarray, " cluster"]
    curves: tuple[Curve | None, ...]
    objects: Int[np.ndarray, " class"]


def class_aware(
    detected: Detected,
    samples: Sequence[Sample],
    classes: int,
    clusters: int | None = None,
    *,
    assignment: Int[np.ndarray, " cluster"] | None = None,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> ClassAware:
    """AP of detections whose labels are clusters, against objects whose labels are classes (LOST, Sec. 4.3).

    ``classes`` and ``clusters`` are their numbers (``clusters`` by default as the detections have them). With an
    ``assignment`` (the class of each cluster, -1 for none) nothing is matched: ``np.arange(classes)`` where labels are
    classes already. An image with a target but no object counts: what is found there is false. Intervals draw images
    with replacement (``resamples``; 0: none).

    Raises :class:`ParameterError` for labels beyond ``classes`` or ``clusters``, an ``assignment`` that gives one class
    twice or does not fit, and as :func:`foundling.evaluation.detection.ranked`.
    """
    check_shares([], confidence)
    ranking = ranked(detected, samples)
    clusters = _clusters(ranking, clusters, assignment)
    groups = grouped(ranking, clusters, classes, float(THRESHOLDS[0]))
    objects = groups.objects.sum(axis=0)
    occurs = objects > 0
    matrix = _matrix(groups)
    if assignment is None:
        assignment = _match(matrix[0], occurs)
    _check_assignment(assignment, classes)
    cluster_of = {int(named): cluster for cluster, named in enumerate(assignment) if named != NO_CLASS}
    table = np.zeros((len(THRESHOLDS), classes))
    for named, cluster in cluster_of.items():
        table[:, named] = matrix[:, cluster, named]
    table[:, ~occurs] = np.nan
    draws = _drawn(groups, cluster_of, resamples, seed)
    spread = (groups.objects > 0).sum(axis=0)
    every, by_class = _figures(draws), 100 * draws[:, 0]
    lonely = [int((groups.objects.sum(axis=1) > 0).sum()) < 2] * len(NAMES)
    single = (spread < 2).tolist()
    names = [str(c) for c in range(classes)]
    return ClassAware(
        named_intervals(NAMES, _figures(table[None])[0], every, confidence, lonely),
        every,
        ranking.images,
        tuple(named_intervals(names, 100 * table[0], by_class, confidence, single).values()),
        by_class,
        100 * matrix,
        assignment,
        tuple(_curve(groups, cluster_of.get(c), c) for c in range(classes)),
        objects.astype(np.int64),
    )


def _clusters(ranking: Ranked, clusters: int | None, assignment: Int[np.ndarray, " cluster"] | None) -> int:
    most = int(ranking.labels.max(initial=-1)) + 1
    given = clusters if clusters is not None else most if assignment is None else len(assignment)
    if most > given:
        raise ParameterError(f"there is a detection of cluster {most - 1}, but {given} clusters are given, from 0")
    if assignment is not None and len(assignment) != given:
        raise ParameterError(f"{len(assignment)} classes are assigned to {given} clusters: give one a cluster")
    return given


def _check_assignment(assignment: Int[np.ndarray, " cluster"], classes: int) -> None:
    named = assignment[assignment != NO_CLASS]
    if len(np.unique(named)) < len(named) or (len(named) and not 0 <= named.min() <= named.max() < classes):
        raise ParameterError(
            f"the assignment is {assignment.tolist()}: give each of the {classes} classes to one cluster at most, "
            f"{NO_CLASS} to the others"
        )


def _match(scores: Float[np.ndarray, "cluster class"], occurs: np.ndarray) -> Int[np.ndarray, " cluster"]:
    """The class of each cluster, among those that occur."""
    assignment = np.full(len(scores), NO_CLASS, dtype=np.int64)
    if occurs.any() and len(scores):
        named = match(scores[:, occurs])
        assignment[named != NO_CLASS] = np.flatnonzero(occurs)[named[named != NO_CLASS]]
    return assignment


def _matrix(groups: Groups) -> Float[np.ndarray, "threshold cluster class"]:
    """AP (0..1) of every cluster for every class; nan for one without objects."""
    objects = groups.objects.sum(axis=0, keepdims=True)
    matrix = np.zeros((len(THRESHOLDS), len(groups.images), objects.shape[1]))
    for cluster, label in groups.claims:  # the others found nothing: 0
        once = np.ones((1, len(groups.images[cluster])))
        for n, threshold in enumerate(THRESHOLDS.tolist()):
            judged = groups.judged(cluster, label, threshold)
            matrix[n, cluster, label] = average_precision(judged, once, objects[:, label])[0]
    matrix[..., objects[0] == 0] = np.nan
    return matrix


def _drawn(
    groups: Groups, cluster_of: dict[int, int], resamples: int, seed: int
) -> Float[np.ndarray, "draw threshold class"]:
    """AP (0..1) of every class at every IoU in draws of images; nan where a draw has no object of a class."""
    images, classes = groups.objects.shape
    judged = {
        (cluster, label): [groups.judged(cluster, label, t) for t in THRESHOLDS.tolist()]
        for label, cluster in cluster_of.items()
    }
    parts = [np.zeros((0, len(THRESHOLDS), classes))]
    most = max((len(own) for own in groups.images), default=0)
    for weights in small_draws(images, resamples, seed, most) if images > 1 else ():
        objects = weights @ groups.objects
        drawn = np.zeros((len(weights), len(THRESHOLDS), classes))
        for (cluster, label), by_threshold in judged.items():
            own = weights[:, groups.images[cluster]]
            ranks = np.cumsum(own, axis=1)
            for n, one in enumerate(by_threshold):
                drawn[:, n, label] = average_precision(one, own, objects[:, label], ranks)
        parts.append(np.where(objects[:, None, :] > 0, drawn, np.nan))
    return np.concatenate(parts)


def _figures(table: Float[np.ndarray, "draw threshold class"]) -> Float[np.ndarray, "draw 3"]:
    """AP, AP50 and AP75 in percent: means over the classes that occur."""
    there = ~np.isnan(table)
    count = there.sum(axis=2)
    total = np.where(there, table, 0).sum(axis=2)
    means = np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
    return 100 * np.stack([means.mean(axis=1), means[:, 0], means[:, 5]], axis=1)


def _curve(groups: Groups, cluster: int | None, label: int) -> Curve | None:
    if cluster is None:
        return None
    judged = groups.judged(cluster, label, float(THRESHOLDS[0]))
    return curve_of(judged, groups.scores[cluster], float(groups.objects[:, label].sum()))
