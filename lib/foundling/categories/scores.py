"""What is true of salient masks and of clusters of them, from one reading of the true label maps.

An image has one salient mask, so that all a clustering can change is the name of what lies inside. The classes of the
pixels inside and outside of it are counted once; mIoU of any number of clusterings follows from these counts.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Int

from foundling.categories.crops import RLE, Objects
from foundling.datasets.base import Dataset
from foundling.datasets.semantic import LabelMap, semantic_truth
from foundling.datasets.voc import MASKS
from foundling.discovery.export import encode_mask
from foundling.errors import ImageError, ParameterError
from foundling.evaluation.segmentation import confusion
from foundling.saliency import SaliencyMasks
from foundling.types import VOID, Failure

Counts = Int[np.ndarray, "image 2 class"]


def has_classes(dataset: Dataset) -> bool:
    """Whether :func:`foundling.datasets.semantic.semantic_truth` knows the classes of the dataset's pixels."""
    if dataset.name.startswith("voc") and dataset.split.startswith(MASKS):
        return True
    return any(sample.target is not None and sample.target.masks is not None for sample in dataset)


def class_counts(
    dataset: Dataset, masks: Mapping[str, SaliencyMasks], failures: list[Failure]
) -> dict[str, Int[np.ndarray, "image 2 class"]]:
    """How many pixels of each true class lie outside and inside of each source's mask of each image.

    ``masks`` are of the images of ``dataset``, in its order; class 0 is background, 255 (void) does not count. An image
    without a usable truth is appended to ``failures``; it has counts of 0, as one that could not be read. Raises
    :class:`ParameterError` where the dataset says no classes of pixels, and for masks of other images or sizes.
    """
    classes = len(dataset.categories) + 1
    for label, found in masks.items():
        if found.names != tuple(sample.name for sample in dataset):
            raise ParameterError(
                f"the masks of {label!r} are of other images than {dataset.name}'s: make them of these"
            )
    counts = {label: np.zeros((len(dataset), 2, classes), dtype=np.int64) for label in masks}
    for i, truth in _truths(dataset, failures):
        for label, found in masks.items():
            if found.sizes[i].all():
                counts[label][i] = confusion(found.mask(i).astype(np.int64), truth, 2, classes)
    return counts


def with_labelled(dataset: Dataset, least: int, failures: list[Failure]) -> Dataset:
    """The images of which at least ``least`` pixels are of a class; those without a usable truth go to ``failures``."""
    kept = [i for i, truth in _truths(dataset, failures) if ((truth > 0) & (truth != VOID)).sum() >= least]
    return replace(dataset, samples=tuple(dataset.samples[i] for i in kept))


def annotated_masks(dataset: Dataset, failures: list[Failure]) -> SaliencyMasks:
    """All that is annotated in each image, as one mask: what a perfect source of saliency would give.

    Void pixels are outside. An image without a usable truth is appended to ``failures`` and has no mask. Raises
    :class:`ParameterError` where the dataset says no classes of pixels.
    """
    masks: list[RLE | None] = [None] * len(dataset)
    sizes = np.zeros((len(dataset), 2), dtype=np.int64)
    for i, truth in _truths(dataset, failures):
        inside = (truth > 0) & (truth != VOID)
        sizes[i] = truth.shape
        masks[i] = encode_mask(inside) if inside.any() else None
    names = tuple(sample.name for sample in dataset)
    return SaliencyMasks("annotated", names, sizes, tuple(masks), tuple(failures))


def _truths(dataset: Dataset, failures: list[Failure]) -> Iterator[tuple[int, LabelMap]]:
    """The position and the true label map of every image that has a usable one; the others go to ``failures``."""
    for i, sample in enumerate(dataset):
        try:
            truth = semantic_truth(sample, dataset)
        except ImageError as error:
            failures.append(Failure(sample.name, i, str(error)))
        else:
            yield i, truth


def saliency_parts(counts: Counts) -> Int[np.ndarray, "image 4"]:
    """Of every image, the numbers of :func:`foundling.evaluation.saliency.saliency_counts`: pixels rightly in the mask,
    wrongly in it, missing from it, rightly left out."""
    outside, inside = counts[:, 0], counts[:, 1]
    return np.stack([inside[:, 1:].sum(1), inside[:, 0], outside[:, 1:].sum(1), outside[:, 0]], axis=1)


def image_classes(dataset: Dataset, objects: Objects) -> Int[np.ndarray, " object"]:
    """The only category of each object's image (from 0); -1 where the image has several, or none."""
    targets = [dataset[int(image)].target for image in objects.images]
    present = [set() if target is None else set(target.labels.tolist()) for target in targets]
    return np.array([names.pop() if len(names) == 1 else -1 for names in present], dtype=np.int64)


def object_classes(counts: Counts, objects: Objects) -> Int[np.ndarray, " object"]:
    """The class (from 0, without background) that most of each object's pixels have; -1 where none has one.

    ``objects`` are one an image, made of the masks that were counted.
    """
    inside = counts[objects.images, 1, 1:]
    return np.where(inside.any(axis=1), inside.argmax(axis=1), -1).astype(np.int64)


def cluster_confusions(
    counts: Counts, objects: Objects, labels: Int[np.ndarray, " object"], clusters: int
) -> Int[np.ndarray, "image cluster class"]:
    """The tables of :func:`foundling.evaluation.confusion` of the pseudo-masks that ``labels`` make, image by image.

    Row 0 is background, row c + 1 cluster c. An image without an object, or whose object has no cluster (-1), is all
    background, as COMUS evaluates. Raises :class:`ParameterError` for several objects in an image.
    """
    if len(np.unique(objects.images)) < len(objects):
        raise ParameterError("several objects in one image: make one of each image's mask (objects_of_masks)")
    tables = np.zeros((len(counts), clusters + 1, counts.shape[2]), dtype=np.int64)
    tables[:, 0] = counts.sum(axis=1)
    named = labels >= 0
    images, rows = objects.images[named], labels[named] + 1
    tables[images, 0] = counts[images, 0]
    tables[images, rows] = counts[images, 1]
    return tables
