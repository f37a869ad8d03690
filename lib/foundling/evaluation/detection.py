"""What detectors found in a dataset: from and to COCO results, and in the order in which it is judged.

Everywhere in the evaluation of detectors, detections are a mapping from an image's id to its
:class:`foundling.types.Detections`; an image that is missing in it had none. Whatever order they come in, the surest is
judged first; of equal scores that of the image with the smaller id, in an image the larger box, then the one whose
numbers sort first. So the order changes nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from foundling.errors import ParameterError
from foundling.evaluation.results import Result, box_of, is_finite
from foundling.types import Detections, Sample, Target

Detected = Mapping[int, Detections]


class Ranked(NamedTuple):
    """The detections in annotated images, the surest first; ``image`` is a position in ``images`` and ``targets``."""

    image: Int[np.ndarray, " detection"]
    boxes: Float[np.ndarray, "detection 4"]
    scores: Float[np.ndarray, " detection"]
    labels: Int[np.ndarray, " detection"]
    images: tuple[int, ...]  # ids of the annotated images, ascending
    targets: tuple[Target, ...]

    def __len__(self) -> int:
        """How many detections there are (not how many fields)."""
        return len(self.image)


def ranked(detected: Detected, samples: Sequence[Sample]) -> Ranked:
    """All detections in annotated images in the order in which they are judged (see the module).

    Raises :class:`ParameterError` for an image id that no sample has, or two have; for a score or box that is not
    finite, a box that ends before it begins, and a negative label.
    """
    truth = {s.image_id: s.target for s in sorted(samples, key=lambda s: s.image_id) if s.target is not None}
    return Ranked(*_in_order(detected, samples, list(truth)), tuple(truth), tuple(truth.values()))


def _in_order(
    detected: Detected, samples: Sequence[Sample], images: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Image (position in ``images``), box, score and label of the detections in ``images``, as they are judged."""
    known = {sample.image_id for sample in samples}
    if len(known) < len(samples):
        raise ParameterError("two samples have one image id: detections could not be told apart")
    if unknown := sorted(set(detected) - known):
        raise ParameterError(f"detections in image_id {unknown[0]}, which no sample has: use the samples' ids")
    here = [(n, detected[i]) for n, i in enumerate(images) if i in detected]
    for n, found in here:
        _check(found, images[n])
    image = np.concatenate([np.zeros(0, dtype=np.int64), *(np.full(len(found), n) for n, found in here)])
    boxes = np.concatenate([np.zeros((0, 4)), *(found.boxes for _, found in here)]).astype(np.float64)
    scores = np.concatenate([np.zeros(0), *(found.scores for _, found in here)]).astype(np.float64)
    labels = np.concatenate([np.zeros(0, dtype=np.int64), *(found.labels for _, found in here)])
    area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    order = np.lexsort((*boxes.T[::-1], -area, image, -scores))  # the last key counts first
    return image[order], boxes[order], scores[order], labels[order]


def _check(found: Detections, image_id: int) -> None:
    where = f"image_id {image_id}"
    if not len(found.boxes) == len(found.scores) == len(found.labels):
        raise ParameterError(
            f"{where} has {len(found.boxes)} boxes, {len(found.scores)} scores and {len(found.labels)} labels: "
            "give one of each a detection"
        )
    wrong = ~np.isfinite(found.boxes).all(axis=1) | (found.boxes[:, 2:] < found.boxes[:, :2]).any(axis=1)
    if wrong.any():
        raise ParameterError(f"{where} has the box {found.boxes[wrong][0].tolist()}: give x0 ≤ x1 and y0 ≤ y1, pixels")
    if not np.isfinite(found.scores).all():
        bad = found.scores[~np.isfinite(found.scores)][0]
        raise ParameterError(f"{where} has the score {bad}: give a finite number")
    if (found.labels < 0).any():
        raise ParameterError(f"{where} has the label {found.labels.min()}: labels count from 0")


def top_boxes(detected: Detected, samples: Sequence[Sample]) -> Float[np.ndarray, "image 4"]:
    """The surest box of each of ``samples``, whatever its label, in their order; nan where there is none.

    For :func:`foundling.evaluation.corloc` ("LOST + CAD" of LOST, Table 1). Images without annotation have theirs, too.
    Raises as :func:`ranked` does.
    """
    image, ordered, _, _ = _in_order(detected, samples, [sample.image_id for sample in samples])
    boxes = np.full((len(samples), 4), np.nan)
    rows, first = np.unique(image, return_index=True)
    boxes[rows] = ordered[first]
    return boxes


def without_difficult(samples: Sequence[Sample]) -> list[Sample]:
    """The same images without their difficult objects, as if nobody had annotated them.

    So LOST measures the AP of class-agnostic detectors on VOC (its ``prepare_voc_data_in_coco_style.py``): what is
    found there is false. The VOC devkit ignores it instead, as :mod:`foundling.evaluation.voc_ap` does.
    """
    return [s if s.target is None else replace(s, target=_part(s.target, ~s.target.difficult)) for s in samples]


def without_crowds(samples: Sequence[Sample]) -> list[Sample]:
    """The same images without their crowds, as if nobody had annotated them."""
    return [s if s.target is None else replace(s, target=_part(s.target, ~s.target.crowd)) for s in samples]


def _part(target: Target, kept: np.ndarray) -> Target:
    masks = None if target.masks is None else [mask for mask, keep in zip(target.masks, kept, strict=True) if keep]
    boxes, labels = target.boxes[kept], target.labels[kept]
    return Target(boxes, labels, target.difficult[kept], target.truncated[kept], target.crowd[kept], masks)


def to_results(detected: Detected, category_ids: Sequence[int] | None = None) -> list[Result]:
    """Detections as a COCO results list, by image id: ``bbox`` is x, y, width, height in original pixels.

    ``category_ids`` are COCO's numbers of the labels, in their order; by default label 0 is category 1, and so on.
    Raises :class:`ParameterError` for a label without a number, and for broken detections as :func:`ranked`.
    """
    entries: list[Result] = []
    for image_id in sorted(detected):
        found = detected[image_id]
        _check(found, image_id)
        for n, ((x0, y0, x1, y1), score) in enumerate(zip(found.boxes.tolist(), found.scores.tolist(), strict=True)):
            category = _category(int(found.labels[n]), category_ids)
            entry = {"image_id": image_id, "category_id": category, "bbox": [x0, y0, x1 - x0, y1 - y0], "score": score}
            entries.append(entry if found.masks is None else entry | {"segmentation": found.masks[n]})
    return entries


def _category(label: int, category_ids: Sequence[int] | None) -> int:
    if category_ids is None:
        return label + 1
    if label >= len(category_ids):
        raise ParameterError(f"label {label} has no category id: {len(category_ids)} are given, for labels from 0")
    return int(category_ids[label])


def from_results(
    results: Sequence[Result], samples: Sequence[Sample], category_ids: Sequence[int] | None = None
) -> dict[int, Detections]:
    """The detections of a COCO results list, by image id, each image's surest first: what :func:`to_results` wrote.

    An image of ``samples`` without results has none. Masks are kept where all results of an image have one.
    Raises :class:`ParameterError` for an image id that no sample has, a category that ``category_ids`` does not name
    (by default one below 1), and a result without a finite score or a box.
    """
    known = {sample.image_id for sample in samples}
    rows: dict[int, list[tuple[Any, ...]]] = {}
    for number, result in enumerate(results):
        i: Any = result.get("image_id")
        if i not in known:
            raise ParameterError(f"result {number} is of image_id {i!r}, which no sample has: use the samples' ids")
        if not is_finite(result.get("score")):
            raise ParameterError(f"result {number} has the score {result.get('score')!r}: give a finite number")
        label = _label(result.get("category_id"), category_ids, number)
        x, y, width, height = box_of(result, number)["bbox"]
        box = [x, y, x + width, y + height]
        rows.setdefault(i, []).append((-float(result["score"]), -width * height, box, label, result))
    return {i: _of_image(sorted(entries, key=lambda entry: entry[:4])) for i, entries in sorted(rows.items())}


def _of_image(entries: Sequence[tuple[Any, ...]]) -> Detections:
    masks = tuple(entry[4]["segmentation"] for entry in entries if isinstance(entry[4].get("segmentation"), dict))
    return Detections(
        np.array([entry[2] for entry in entries], dtype=np.float64),
        np.array([-entry[0] for entry in entries], dtype=np.float64),
        np.array([entry[3] for entry in entries], dtype=np.int64),
        masks if len(masks) == len(entries) else None,
    )


def _label(category: Any, category_ids: Sequence[int] | None, number: int) -> int:
    if category_ids is None:
        if not isinstance(category, int) or category < 1:
            raise ParameterError(f"result {number} has the category_id {category!r}: categories count from 1")
        return category - 1
    if category not in category_ids:
        raise ParameterError(
            f"result {number} has the category_id {category!r}: legal are {', '.join(map(str, category_ids))}"
        )
    return list(category_ids).index(category)
