"""Class-agnostic average precision and recall of masks and boxes, as COCO measures them (pycocotools' COCOeval).

Every object and every result belongs to one category; crowds stay regions where nothing counts. A result's rank is its
score. COCOeval leaves equal scores in the order they came in; here, in an image, the larger one comes first, then the
one whose mask (its run lengths as bytes) or box (its numbers) sorts first, and of different images the one with the
smaller id. So the order of the results changes nothing.

COCOeval matches results with objects. Ranking all results and averaging precision is done here, because resampled
images need it again and again; for the images as they are it gives COCOeval's numbers.
"""

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from foundling.errors import ParameterError
from foundling.evaluation.bootstrap import CONFIDENCE, Figures, image_draws, named_intervals
from foundling.evaluation.recall import THRESHOLDS
from foundling.evaluation.results import Result, box_of, is_finite, mask_of
from foundling.types import Sample, Target

KINDS = ("segm", "bbox")
MAX_DETS = (1, 10, 100)
# all, up to 32², up to 96², larger: pixels of the mask, or of the box where there is none
AREAS = ("", "_S", "_M", "_L")
RESAMPLES = 1000  # each costs a pass over all results


@dataclass(frozen=True)
class ClassAgnostic(Figures):
    """Class-agnostic figures in percent (0..100) by name, with intervals over images.

    ``values`` has ``AP`` (mean over IoU .50:.05:.95), ``AP50``, ``AP75``, ``AP_S``, ``AP_M``, ``AP_L`` (by area, at the
    largest number of results an image), ``AR1``, ``AR10``, ``AR100`` (by number of results an image), ``AR_S``,
    ``AR_M``, ``AR_L``. A value is ``None`` where there is no object of that size, an interval where it was not asked
    for or one image alone has objects of that size. ``draws`` are the values of the resampled images. ``images`` counts
    the annotated ones, ``objects`` those that are no crowd, ``results`` the results in annotated images.
    """

    objects: int
    results: int


def class_agnostic(
    results: Sequence[Result],
    samples: Sequence[Sample],
    kind: str = "segm",
    *,
    max_dets: Sequence[int] = MAX_DETS,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> ClassAgnostic:
    """AP and AR of ``results`` against the objects of ``samples``, whatever their categories.

    ``results`` is a COCO results list: ``image_id``, ``score``, and ``segmentation`` (RLE; ``kind="segm"``) or ``bbox``
    (x, y, width, height; ``kind="bbox"``). ``samples`` give the image ids and the truth. An image with a target but no
    object counts: what is found there is false. One without a target (``None``) is left out with its results. Without
    any result AP and AR are 0, without any object they are ``None``. ``max_dets``, in increasing order, are the numbers
    of results an image that AR is measured at; AP and the areas take the last. Areas of objects are counted in pixels
    of their masks; COCO's own files store those of the polygons, which may differ by a few pixels.

    Intervals draw images with replacement, ``resamples`` times (0: none): an image's matches do not depend on other
    images, so that each draw only ranks and counts them again, with an image drawn twice counted twice.

    Raises :class:`ParameterError` for an unknown ``kind``, image id or form of a result, and for objects without masks.
    """
    _check(kind, max_dets, confidence, samples)
    truth = {s.image_id: s.target for s in sorted(samples, key=lambda s: s.image_id) if s.target is not None}
    found = _ordered(results, {s.image_id for s in samples}, truth, kind)
    matched = _evaluate(found, truth, kind, list(max_dets))
    names = _names(max_dets)
    point = _values(matched, np.ones(len(truth))) if truth else np.full(len(names), np.nan)
    draws = np.array(
        [_values(matched, w) for many in image_draws(len(truth), resamples, seed) for w in many]
        if len(truth) > 1
        else []
    ).reshape(-1, len(names))
    objects = sum(int((~target.crowd).sum()) for target in truth.values())
    values = named_intervals(names, point, draws, confidence, _of_one_image(matched, names))
    return ClassAgnostic(values, draws, tuple(truth), objects, len(found))


def precision_by_count(
    results: Sequence[Result], samples: Sequence[Sample], kind: str, counts: Sequence[int]
) -> Float[np.ndarray, "count threshold"]:
    """AP (0..1; nan without objects) at IoU .50, .55, …, .95 with only the first ``counts`` results of each image.

    Everything else is as for :func:`class_agnostic`. ``counts`` increase from 1.
    """
    _check(kind, counts, CONFIDENCE, samples)
    truth = {s.image_id: s.target for s in sorted(samples, key=lambda s: s.image_id) if s.target is not None}
    found = _ordered(results, {s.image_id for s in samples}, truth, kind)
    if not truth:
        return np.full((len(counts), len(THRESHOLDS)), np.nan)
    whole = _evaluate(found, truth, kind, [counts[-1]])  # results are matched in order: later ones change no match
    everywhere, rows = np.ones(len(truth)), []
    for count in counts:
        first = whole.areas[0].rank < count
        matched = whole.areas[0]
        cut = _Matched(
            matched.image[first], matched.rank[first], matched.hit[:, first], matched.miss[:, first], matched.objects
        )
        rows.append(_precision(cut, everywhere, whole.recalls))
    return np.stack(rows)


def _names(max_dets: Sequence[int]) -> list[str]:
    precision = ["AP", "AP50", "AP75", *(f"AP{area}" for area in AREAS[1:])]
    return [*precision, *(f"AR{count}" for count in max_dets), *(f"AR{area}" for area in AREAS[1:])]


def _check(kind: str, max_dets: Sequence[int], confidence: float, samples: Sequence[Sample]) -> None:
    if kind not in KINDS:
        raise ParameterError(f"kind is {kind!r}: choose one of {', '.join(KINDS)}")
    if not max_dets or min(max_dets) < 1 or list(max_dets) != sorted(set(max_dets)):
        raise ParameterError(f"max_dets is {list(max_dets)}: give increasing numbers from 1, such as 1, 10, 100")
    if not 0 < confidence < 1:
        raise ParameterError(f"confidence is {confidence}: choose a share between 0 and 1, such as 0.95")
    if len({sample.image_id for sample in samples}) < len(samples):
        raise ParameterError("two samples have one image id: results could not be told apart")
    for sample in samples:
        if kind == "segm" and sample.target is not None and len(sample.target) and sample.target.masks is None:
            raise ParameterError(
                f"{sample.name}: its objects have boxes but no masks: open the dataset with masks=True, or use bbox"
            )


def _ordered(results: Sequence[Result], known: set[int], truth: dict[int, Target], kind: str) -> list[Result]:
    """The results in annotated images in COCO's format, by image and in the stated order, numbered from 1."""
    sizes = {i: tuple(target.masks[0]["size"]) for i, target in truth.items() if target.masks}
    entries = []
    for number, result in enumerate(results):
        i: Any = result.get("image_id")
        score: Any = result.get("score")
        if i not in known:
            raise ParameterError(f"result {number} is of image_id {i!r}, which no sample has: use the samples' ids")
        if not is_finite(score):
            raise ParameterError(f"result {number} has the score {score!r}: give a finite number")
        shape = mask_of(result, number, sizes.get(i)) if kind == "segm" else box_of(result, number)
        if i in truth:
            entries.append({"image_id": i, "category_id": 1, "score": float(score), "iscrowd": 0, **shape})
    entries.sort(key=lambda e: (e["image_id"], -e["score"], -e["area"], e["tie"]))
    return [{**entry, "id": i} for i, entry in enumerate(entries, 1)]


class _Matched(NamedTuple):
    """COCOeval's matches of one area at the largest number of results: ranked results, and objects by image."""

    image: Int[np.ndarray, " result"]
    rank: Int[np.ndarray, " result"]  # among the results of its image, from 0
    hit: Bool[np.ndarray, "threshold result"]
    miss: Bool[np.ndarray, "threshold result"]
    objects: Float[np.ndarray, " image"]


class _Evaluation(NamedTuple):
    areas: list[_Matched]
    recalls: Float[np.ndarray, " recall"]
    max_dets: list[int]


def _evaluate(found: list[Result], truth: dict[int, Target], kind: str, max_dets: list[int]) -> _Evaluation:
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
        judge = COCOeval(_coco(_objects(truth, kind), truth), _coco(found, truth), kind)
        judge.params.imgIds, judge.params.maxDets = list(truth), max_dets
        judge.evaluate()
    position = {i: n for n, i in enumerate(truth)}
    n = len(truth)
    areas = [
        _ranked([e for e in judge.evalImgs[a * n : (a + 1) * n] if e is not None], position) for a in range(len(AREAS))
    ]
    return _Evaluation(areas, judge.params.recThrs, max_dets)


def _objects(truth: dict[int, Target], kind: str) -> list[Result]:
    objects: list[Result] = []
    for i, target in truth.items():
        for n, (x0, y0, x1, y1) in enumerate(target.boxes.tolist()):
            mask = None if target.masks is None else target.masks[n]
            area = (x1 - x0) * (y1 - y0) if mask is None else int(coco_mask.area(mask))
            entry = {"id": len(objects) + 1, "image_id": i, "category_id": 1, "iscrowd": int(target.crowd[n])}
            shape = {"bbox": [x0, y0, x1 - x0, y1 - y0], "area": area}
            objects.append(entry | shape | ({"segmentation": mask} if kind == "segm" else {}))
    return objects


def _coco(entries: list[Result], truth: dict[int, Target]) -> COCO:
    images = [{"id": i, "height": 0, "width": 0} for i in truth]  # sizes are only for polygons
    coco = COCO()
    coco.dataset = {"images": images, "annotations": entries, "categories": [{"id": 1, "name": "object"}]}
    coco.createIndex()
    return coco


def _ranked(images: list[dict[str, Any]], position: dict[int, int]) -> _Matched:
    """All results by score, as COCOeval concatenates and sorts them; ignored ones neither hit nor miss."""
    objects = np.zeros(len(position))
    for e in images:
        objects[position[e["image_id"]]] = np.count_nonzero(e["gtIgnore"] == 0)
    if not images:
        none = np.zeros(0, dtype=np.int64)
        return _Matched(none, none, np.zeros((10, 0), dtype=bool), np.zeros((10, 0), dtype=bool), objects)
    order = np.argsort(-np.concatenate([e["dtScores"] for e in images]), kind="stable")
    image = np.concatenate([np.full(len(e["dtScores"]), position[e["image_id"]]) for e in images])[order]
    rank = np.concatenate([np.arange(len(e["dtScores"])) for e in images])[order]
    matches = np.concatenate([e["dtMatches"] for e in images], axis=1)[:, order] > 0
    counts = ~np.concatenate([e["dtIgnore"] for e in images], axis=1).astype(bool)[:, order]
    return _Matched(image, rank, matches & counts, ~matches & counts, objects)


def _values(found: _Evaluation, weights: Float[np.ndarray, " image"]) -> Float[np.ndarray, " value"]:
    """All figures in percent, image i counted ``weights[i]`` times; nan where it has no object of the size."""
    with np.errstate(invalid="ignore"):
        precisions = [_precision(area, weights, found.recalls) for area in found.areas]
        whole = found.areas[0]
        recalls = [_recall(whole, weights, count) for count in found.max_dets]
        recalls += [_recall(area, weights, found.max_dets[-1]) for area in found.areas[1:]]
    ap = precisions[0]
    return 100 * np.array([ap.mean(), ap[0], ap[5], *(p.mean() for p in precisions[1:]), *recalls])


def _of_one_image(found: _Evaluation, names: Sequence[str]) -> list[bool]:
    """Whether the objects of the size that each figure is about lie in one image, or none."""
    single = {area: int((part.objects > 0).sum()) < 2 for area, part in zip(AREAS, found.areas, strict=True)}
    return [single[name[-2:] if name[-2:] in AREAS else ""] for name in names]


def _precision(
    found: _Matched, weights: Float[np.ndarray, " image"], recalls: Float[np.ndarray, " recall"]
) -> Float[np.ndarray, " threshold"]:
    """The mean over recalls 0, 0.01, …, 1 of the highest precision at that recall or beyond, at each IoU."""
    objects = weights @ found.objects
    if objects == 0:
        return np.full(len(found.hit), np.nan)
    counted = weights[found.image]
    ranks = np.cumsum(counted * (found.hit | found.miss), axis=1)  # how many results there are so far
    means = []
    for hit, rank in zip(found.hit, ranks, strict=True):
        hits = np.cumsum(counted[hit])  # precision is highest at a hit: only they are looked at
        best = np.maximum.accumulate((hits / (rank[hit] + np.spacing(1)))[::-1])[::-1]
        at = np.searchsorted(hits / objects, recalls, side="left")
        means.append(best[at[at < len(best)]].sum() / len(recalls))
    return np.array(means)


def _recall(found: _Matched, weights: Float[np.ndarray, " image"], count: int) -> float:
    """The share of objects matched by the first ``count`` results of each image, averaged over IoUs."""
    objects = float(weights @ found.objects)
    hits = found.hit[:, found.rank < count] @ weights[found.image[found.rank < count]]
    return float(hits.mean()) / objects if objects else np.nan
