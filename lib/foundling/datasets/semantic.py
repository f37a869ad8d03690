"""Semantic label maps: the class of every pixel, from VOC's index PNGs or from the masks of instances."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from pycocotools import mask as rle_codec

from foundling.datasets.base import Dataset, describe
from foundling.datasets.images import image_size, read_image
from foundling.datasets.index_masks import read_labels
from foundling.datasets.voc import AUGMENTED, CATEGORIES, MASKS
from foundling.datasets.voc_masks import AUGMENTED_MAPS, MAPS
from foundling.errors import ImageError, ParameterError
from foundling.types import VOID, Sample, Target

VOC_NAMES = {
    "airplane": "aeroplane",
    "couch": "sofa",
    "dining table": "diningtable",
    "motorcycle": "motorbike",
    "potted plant": "pottedplant",
    "tv": "tvmonitor",
}  # of COCO's categories that VOC calls otherwise
LEAST_PIXELS = 1000  # that are annotated in an image which COMUS takes from COCO

LabelMap = UInt8[np.ndarray, "height width"]


def semantic_truth(sample: Sample, dataset: Dataset) -> LabelMap:
    """The true class of every pixel of one image of ``dataset``: 0 is background, then class + 1; 255 is unknown.

    Of VOC's segmentation splits: what ``SegmentationClass`` says (``seg_trainaug``: ``SegmentationClassAug``). Of
    others: the masks of instances, merged by category. Where they overlap, the one annotated first counts, and crowds
    are objects like others (both as COMUS' code has it); categories are numbered in the order of their ids, whatever
    gaps these have. In an image whose masks cannot be used, what lies inside its boxes is unknown.

    Raises :class:`ParameterError` for a dataset that says no classes of pixels (opened without masks, not annotated) or
    has more than 254 categories; :class:`ImageError` if a file is missing, damaged, of another size than its image, or
    holds numbers that are no class.
    """
    classes = len(dataset.categories) + 1
    if classes > VOID:
        raise ParameterError(f"{dataset.name}: {classes - 1} categories do not fit into a label map of 8 bits: 254 do")
    if dataset.name.startswith("voc") and dataset.split.startswith(MASKS):
        folder = sample.path.parents[1] / (AUGMENTED_MAPS if dataset.split == AUGMENTED else MAPS)
        return read_semantic(folder / f"{sample.path.stem}.png", classes, size_of(sample))
    target = sample.target
    if target is None or not any(other.target and other.target.masks is not None for other in dataset):
        raise ParameterError(
            f"{dataset.name} {dataset.split} says no classes of pixels: open a dataset that has masks with masks=True "
            "(scenes, coco), or a segmentation split of voc12 (seg_val)"
        )
    labels = np.zeros(size_of(sample), dtype=np.uint8)
    if target.masks is None:
        for x0, y0, x1, y1 in target.boxes.tolist():
            labels[int(y0) : math.ceil(y1), int(x0) : math.ceil(x1)] = VOID
        return labels
    for mask, label in zip(target.masks[::-1], target.labels[::-1], strict=True):
        inside = rle_codec.decode(mask).astype(bool)
        if inside.shape != labels.shape:
            sizes = " and ".join(f"{width}×{height}" for height, width in (inside.shape, labels.shape))
            raise ImageError(
                f"{sample.name}: its masks and its file have {sizes} pixels: get the file that was annotated"
            )
        labels[inside] = label + 1
    return labels


def read_semantic(path: Path, classes: int, size: tuple[int, int] | None = None) -> LabelMap:
    """The label map in an index PNG: classes 0 to ``classes`` - 1, and 255.

    Raises :class:`ImageError`, naming the file, if it is missing, damaged, holds colours instead of indices or a number
    that is neither a class nor 255, or, with ``size`` (height, width), has another size.
    """
    labels = read_labels(path)
    if size is not None and labels.shape != size:
        raise ImageError(
            f"{path}: a label map of {labels.shape[1]}×{labels.shape[0]} pixels for an image of {size[1]}×{size[0]}: "
            "it must have the size of its image; make it again, or resize it with nearest neighbour"
        )
    present = np.flatnonzero(np.bincount(labels.ravel(), minlength=VOID + 1))
    if (unknown := present[(present >= classes) & (present != VOID)]).size:
        shown = ", ".join(map(str, unknown[:5])) + (", …" if unknown.size > 5 else "")
        raise ImageError(
            f"{path}: the label map holds {shown}: legal are 0 to {classes - 1}, and {VOID} for void; it is of another "
            "dataset, or was resized with interpolation or saved without its palette"
        )
    return labels


def size_of(sample: Sample) -> tuple[int, int]:
    """Height and width of an image as it is read; raises :class:`ImageError` if it cannot be."""
    if not sample.orient:
        return image_size(sample.path)
    image = read_image(sample.path, orient=True)
    return image.height, image.width


def as_voc(dataset: Dataset) -> Dataset:
    """A dataset with COCO's categories as one with VOC's twenty: objects of all others are left out.

    What COMUS' transfer from VOC to COCO is measured on (Sec. 4.4, Table 4). Names and numbers of categories are VOC's.
    Pixels that only other objects have become background. Raises :class:`ParameterError` if one of the twenty is
    missing.
    """
    names = [VOC_NAMES.get(name, name) for name in dataset.categories]
    if missing := [name for name in CATEGORIES if name not in names]:
        raise ParameterError(
            f"{dataset.name} has no category {', '.join(missing[:3])} ({len(missing)} of VOC's 20 are missing): this "
            "wants COCO's 80, or VOC's own"
        )
    number = np.array([CATEGORIES.index(name) if name in CATEGORIES else -1 for name in names])
    samples = tuple(
        sample if sample.target is None else replace(sample, target=_renumbered(sample.target, number))
        for sample in dataset
    )
    return replace(dataset, samples=samples, categories=CATEGORIES, category_ids=tuple(range(1, len(CATEGORIES) + 1)))


def _renumbered(target: Target, number: np.ndarray) -> Target:
    labels = number[target.labels]
    kept = labels >= 0
    chosen: dict[str, Any] = {
        name: getattr(target, name)[kept] for name in ("boxes", "difficult", "truncated", "crowd")
    }
    masks = None if target.masks is None else [mask for mask, k in zip(target.masks, kept, strict=True) if k]
    return Target(labels=labels[kept].astype(np.int64), masks=masks, **chosen)


def boxes_as_masks(dataset: Dataset) -> Dataset:
    """The dataset with the rectangle of every box as the mask of its object, where an image has no masks.

    VOC 2007 has masks of a few hundred images, and instanceness (Table 3) measures masks on all 5,011 of trainval
    without saying against what. Raises :class:`ImageError` for an image whose size cannot be read.
    """
    return replace(dataset, samples=tuple(_with_rectangles(sample) for sample in dataset))


def _with_rectangles(sample: Sample) -> Sample:
    target = sample.target
    if target is None or target.masks is not None:
        return sample
    height, width = size_of(sample)
    boxes = np.concatenate([target.boxes[:, :2], target.boxes[:, 2:] - target.boxes[:, :2]], axis=1)
    codes = rle_codec.frPyObjects(boxes, height, width) if len(boxes) else []
    masks = [{"size": [height, width], "counts": code["counts"].decode("ascii")} for code in codes]
    return replace(sample, target=replace(target, masks=masks))


def with_objects(dataset: Dataset, least: int = LEAST_PIXELS) -> Dataset:
    """The images in which the masks of objects cover ``least`` pixels or more, together.

    COMUS' code drops the others from COCO, for training and for evaluation, as it does images without masks.
    ``Dataset.problems`` counts them. Raises :class:`ParameterError` if none is left.
    """
    covered = [_covered(sample.target) >= least for sample in dataset]
    if not any(covered):
        raise ParameterError(f"{dataset.name}: in none of its {len(dataset)} images do masks cover {least} pixels")
    few = [sample.name for sample, enough in zip(dataset, covered, strict=True) if not enough]
    told = describe({f"image with fewer than {least} pixels of objects (dropped)": few})
    kept = tuple(sample for sample, enough in zip(dataset, covered, strict=True) if enough)
    return replace(dataset, samples=kept, problems=(*dataset.problems, *told))


def _covered(target: Target | None) -> int:
    """How many pixels the masks have, those of several counted once."""
    if target is None or not target.masks:
        return 0
    return int(rle_codec.area(rle_codec.merge(target.masks)))
