"""Masks as the labels that an instance segmenter is trained on: proposals, or what a segmenter finds itself."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int
from pycocotools import mask as coco_mask

from foundling.categories.crops import Objects, as_bytes
from foundling.datasets.base import describe
from foundling.errors import ParameterError
from foundling.proposals import ProposalSet
from foundling.training.instance.predict import TrainedSegmenter, segment_instances
from foundling.training.pseudo_labels import ImageLabels, PseudoLabels, pseudo_labels
from foundling.types import Failure, Sample


class _Row(NamedTuple):
    image: int
    part: int
    score: float
    mask: dict[str, Any]
    label: int


def labels_of_proposals(
    proposals: ProposalSet,
    samples: Sequence[Sample],
    *,
    most: int | None = None,
    sizes: Int[np.ndarray, "image 2"] | None = None,
) -> PseudoLabels:
    """The mask proposals of each image, or its ``most`` best, as class-agnostic labels with tight boxes.

    ``samples`` are those that the proposals were made of; images that failed there are left out here. ``sizes``
    (height, width) spares reading them from the files.
    """
    rows = [
        _Row(image.index, part, float(image.scores[part]), image.masks[part], 0)
        for image in proposals.images
        for part in range(len(image.masks))[:most]
    ]
    return pseudo_labels(samples, _objects(rows, samples), sizes=sizes, failures=proposals.failures)


def without_small(labels: PseudoLabels, least: float) -> PseudoLabels:
    """The labels without the masks that cover less than the share ``least`` (0..1) of their image.

    Spectral parts in pieces are for the most part single patches, which are no objects; the paper keeps them. Raises
    :class:`ParameterError` for a share out of range, and for boxes without masks.
    """
    if not 0 <= least <= 1:
        raise ParameterError(f"least = {least}: give a share of the image from 0 to 1")
    images, problems = list[ImageLabels](), dict[str, list[str]]()
    kind = f"mask of less than {100 * least:g} % of its image (left out)"
    for image in labels.images:
        if len(image) and image.masks is None:
            raise ParameterError(f"{image.name}: its {len(image)} objects have boxes but no masks")
        masks = image.masks or ()
        areas = np.array([coco_mask.area(as_bytes(mask)) for mask in masks], dtype=np.float64)
        kept = np.flatnonzero(areas >= least * image.size[0] * image.size[1])
        problems.setdefault(kind, []).extend([image.name] * (len(image) - len(kept)))
        chosen = tuple(masks[row] for row in kept) or None
        images.append(replace(image, boxes=image.boxes[kept], labels=image.labels[kept], masks=chosen))
    return replace(labels, images=tuple(images), problems=(*labels.problems, *describe(problems)))


def labels_of_segmenter(
    segmenter: TrainedSegmenter, samples: Sequence[Sample], score: float = 0.3, most: int = 20, workers: int = 2
) -> PseudoLabels:
    """What ``segmenter`` finds in ``samples`` with ``score`` or more, the surest ``most`` of each image, as labels.

    FreeSOLO drops very wide boxes as well, by a rule that mistakes their form; here none are. An image that cannot be
    used is a failure.
    """
    failures: list[Failure] = []
    position = {sample.name: i for i, sample in enumerate(samples)}
    rows = [
        _Row(position[sample.name], part, float(found.scores[part]), (found.masks or ())[part], int(found.labels[part]))
        for sample, found in segment_instances(segmenter, samples, failures=failures, workers=workers)
        for part in np.flatnonzero(found.scores >= score)[:most].tolist()
    ]
    objects = _objects(rows, samples)
    if len(segmenter.classes) == 1:
        return pseudo_labels(samples, objects, failures=failures)
    labels = np.array([row.label for row in rows], dtype=np.int64)
    return pseudo_labels(samples, objects, labels, segmenter.classes, failures=failures)


def _objects(rows: Iterable[_Row], samples: Sequence[Sample]) -> Objects:
    rows = list(rows)
    boxes = np.array([coco_mask.toBbox(as_bytes(row.mask)) for row in rows], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return Objects(
        np.array([row.image for row in rows], dtype=np.int64),
        tuple(samples[row.image].name for row in rows),
        np.array([row.part for row in rows], dtype=np.int64),
        boxes,
        np.array([row.score for row in rows], dtype=np.float64),
        tuple(row.mask for row in rows),
    )
