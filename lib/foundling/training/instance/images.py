"""What an instance segmenter is trained on: images of any size and the masks in them, read when they are asked for."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Int, UInt8
from pycocotools import mask as coco_mask
from torch import Tensor
from torch.utils import data

from foundling.categories.crops import as_bytes
from foundling.datasets.base import Problems, describe
from foundling.errors import DataMissing, ImageError, ParameterError
from foundling.training.detection.images import check_labels, read_pixels
from foundling.training.pseudo_labels import ImageLabels, PseudoLabels
from foundling.training.reading import ReadSet
from foundling.types import Sample


class Masked(NamedTuple):
    """One image with its objects' masks and their classes from 0, and what was wrong with those it stands in for."""

    pixels: UInt8[Tensor, "3 height width"]
    masks: Bool[Tensor, "object height width"]
    labels: Int[Tensor, " object"]
    problems: tuple[str, ...] = ()


class MaskedImages(data.Dataset[Masked]):
    """The images that have a mask; the next readable one stands in for one that cannot be read.

    Masks without a pixel are dropped, and images with no other left out: ``problems`` counts them.
    """

    def __init__(self, samples: Sequence[Sample], labels: PseudoLabels) -> None:
        """Raises ParameterError where :meth:`PseudoLabels.usable` does, for boxes without masks, masks of another size
        than their image, classes that there are none of, and where no mask has a pixel."""
        self.pairs: list[tuple[Sample, ImageLabels, list[int]]] = []
        problems: Problems = defaultdict(list)
        for sample, image in labels.usable(samples):
            check_labels(image, len(labels.classes))
            kept = _with_pixels(image)
            problems["mask without a pixel (dropped)"] += [image.name] * (len(image) - len(kept))
            if kept:
                self.pairs.append((sample, image, kept))
        if not self.pairs:
            raise ParameterError(
                "no mask of any image has a pixel: there is nothing to train on; make the labels again"
            )
        self.problems = describe(problems)
        self.identity = f"{len(self.pairs)} images with masks of {len(labels.classes)} classes ({labels.identity})"

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Masked:
        problems: list[str] = []
        for i in range(index, index + len(self)):
            sample, image, kept = self.pairs[i % len(self)]
            try:
                pixels = read_pixels(sample, image.size)
            except ImageError as error:
                problems.append(str(error))
                continue
            assert image.masks is not None
            masks = np.stack([coco_mask.decode(as_bytes(image.masks[row])).astype(bool) for row in kept])
            return Masked(pixels, torch.from_numpy(masks), torch.from_numpy(image.labels[kept]), tuple(problems))
        raise DataMissing(f"none of the {len(self)} training images can be read; the first: {problems[0]}")


def _with_pixels(image: ImageLabels) -> list[int]:
    """The rows of the masks that are not empty."""
    if image.masks is None:
        raise ParameterError(
            f"{image.name}: its {len(image)} objects have boxes but no masks: make labels of a method that finds "
            "masks, with masks=True"
        )
    for mask in image.masks:
        if tuple(mask["size"]) != image.size:
            raise ParameterError(
                f"{image.name}: a mask of {mask['size'][1]}×{mask['size'][0]} pixels in an image of {image.size[1]}×"
                f"{image.size[0]}: make masks at the original size"
            )
    return [row for row, mask in enumerate(image.masks) if coco_mask.area(as_bytes(mask)) > 0]


class MaskedBatch(NamedTuple):
    """Images of one step on the device, of any size, and their masks and classes, each in a list."""

    images: list[UInt8[Tensor, "3 _ _"]]
    masks: list[Bool[Tensor, "_ _ _"]]
    labels: list[Int[Tensor, " _"]]


class MaskedSet(ReadSet):
    """The images of a run, and their masks."""

    batch = MaskedBatch
