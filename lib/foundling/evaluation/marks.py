"""All that is measured of boxes whatever their class: of a teacher, or of detectors trained with several seeds.

Names are those of metrics: ``corloc`` of the surest box of an image (LOST, Table 1); ``ap50``, ``ap``, ``ar1``,
``ar10`` and ``ar100`` as COCO has them (Table 4); ``odap50`` and ``odap`` (Table 9); ``voc_ap50`` and ``voc07_ap50``,
the area and the eleven points of the VOC devkit.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from foundling.evaluation.bootstrap import Figures, Interval, precision_difference, seeds_interval
from foundling.evaluation.boxes import iou
from foundling.evaluation.corloc import CorLoc, corloc
from foundling.evaluation.detection import Detected, to_results, top_boxes, without_difficult
from foundling.evaluation.odap import OdAP, od_ap
from foundling.evaluation.precision import ClassAgnostic, class_agnostic
from foundling.evaluation.repeats import by_seed, figure_ratios, mean_hits, mean_of_runs
from foundling.evaluation.voc_ap import VocPrecision, voc_precision
from foundling.types import Sample

NAMES = {  # of a metric -> the part of the marks that has it, and its name there
    "ap50": ("coco", "AP50"),
    "ap": ("coco", "AP"),
    "ar1": ("coco", "AR1"),
    "ar10": ("coco", "AR10"),
    "ar100": ("coco", "AR100"),
    "odap50": ("od", "odAP50"),
    "odap": ("od", "odAP"),
    "voc_ap50": ("voc", "area"),
    "voc07_ap50": ("voc", "eleven"),
}
PARTS = ("coco", "od", "voc")


class Marks(NamedTuple):
    """What one set of detections is worth; the same ``samples`` and draws make two comparable."""

    corloc: CorLoc
    coco: ClassAgnostic
    od: OdAP
    voc: VocPrecision


def mark(detected: Detected, samples: Sequence[Sample], *, resamples: int = 1000, seed: int = 0) -> Marks:
    """The marks of ``detected`` (image id -> detections) in ``samples``.

    For COCO's figures objects that are difficult are taken away, as LOST does; CorLoc and odAP count them, and the
    devkit's figures ignore them. Raises :class:`foundling.errors.ParameterError` as the measures do.
    """
    targets = [sample.target for sample in samples]
    common: dict[str, Any] = {"resamples": resamples, "seed": seed}
    return Marks(
        corloc(top_boxes(detected, samples), targets, seed=seed),
        class_agnostic(to_results(detected), without_difficult(samples), "bbox", **common),
        od_ap(detected, samples, **common),
        voc_precision(detected, samples, **common),
    )


def over_images(runs: Sequence[Marks], seed: int = 0) -> dict[str, Interval]:
    """Every metric's mean over ``runs``, with the interval over images."""
    hits = mean_hits([run.corloc.hits for run in runs], runs[0].corloc.counted, seed=seed)
    return {"corloc": hits} | _named({part: mean_of_runs(_part(runs, part)).values for part in PARTS})


def over_seeds(runs: Sequence[Marks], against: Sequence[Marks] | None = None) -> dict[str, Interval]:
    """Every metric's mean over ``runs``, with the interval over seeds; or that of its differences from ``against``: the
    run of the same place, or a single one."""
    theirs = [] if against is None else list(against) * (len(runs) if len(against) == 1 else 1)
    points = [run.corloc.value for run in runs]
    base = [run.corloc.value for run in theirs] or [0.0] * len(runs)
    gains = [a - b for a, b in zip(points, base, strict=True) if a is not None and b is not None]
    rest = {part: by_seed(_part(runs, part), _part(theirs, part) or None) for part in PARTS}
    return {"corloc": seeds_interval(gains)} | _named(rest)


def differences(runs: Sequence[Marks], other: Marks, seed: int = 0) -> dict[str, Interval]:
    """By how many points the mean over ``runs`` lies above ``other``, with the interval over images, paired."""
    hits = mean_hits([run.corloc.hits for run in runs], other.corloc.counted, other.corloc.hits, seed=seed)
    gains = {part: precision_difference(mean_of_runs(_part(runs, part)), _part([other], part)[0]) for part in PARTS}
    return {"corloc": hits} | _named(gains)


def ratios(runs: Sequence[Marks], other: Marks) -> dict[str, Interval]:
    """How many times ``other`` the mean over ``runs`` is, with the interval over images; not of CorLoc."""
    return _named({part: figure_ratios(mean_of_runs(_part(runs, part)), _part([other], part)[0]) for part in PARTS})


def found_in_images(
    detected: Detected, samples: Sequence[Sample], threshold: float = 0.5
) -> Float[np.ndarray, " image"]:
    """The share of each image's objects (0..1) that as many of its surest detections find, at an IoU of ``threshold``.

    One box an image finds 1/n of n objects at most. Crowds do not count; an image without objects is nan.
    """
    shares = np.full(len(samples), np.nan)
    for i, sample in enumerate(samples):
        objects = np.zeros((0, 4)) if sample.target is None else sample.target.boxes[~sample.target.crowd]
        found = detected.get(sample.image_id)
        if len(objects):
            best = np.zeros((0, 4)) if found is None else found.boxes[np.argsort(-found.scores, kind="stable")]
            reached = iou(objects, best[: len(objects)]).max(axis=1, initial=0.0) >= threshold
            shares[i] = float(reached.mean())
    return shares


def _part(runs: Sequence[Marks], part: str) -> list[Figures]:
    return [getattr(run, part) for run in runs]


def _named(parts: dict[str, dict[str, Interval]]) -> dict[str, Interval]:
    return {name: parts[part][figure] for name, (part, figure) in NAMES.items()}
