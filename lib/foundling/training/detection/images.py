"""What a detector is trained on: images of any size and their boxes, read when they are asked for."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils import data

from foundling.datasets.images import read_image
from foundling.errors import DataMissing, ImageError, ParameterError
from foundling.training.pseudo_labels import ImageLabels, PseudoLabels
from foundling.training.reading import ReadSet
from foundling.types import Sample


class Boxed(NamedTuple):
    """One image with its boxes (pixels) and their classes from 0, and what was wrong with those it stands in for."""

    pixels: UInt8[Tensor, "3 height width"]
    boxes: Float[Tensor, "object 4"]
    labels: Int[Tensor, " object"]
    problems: tuple[str, ...] = ()


class BoxedImages(data.Dataset[Boxed]):
    """The images that have a box; the next readable one stands in for one that cannot be read."""

    def __init__(self, samples: Sequence[Sample], labels: PseudoLabels) -> None:
        """Raises ParameterError where :meth:`PseudoLabels.usable` does, and for a box that its image does not hold."""
        self.pairs = labels.usable(samples)
        for _, image in self.pairs:
            check_labels(image, len(labels.classes))
        self.identity = f"{len(self.pairs)} images with boxes of {len(labels.classes)} classes ({labels.identity})"

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Boxed:
        problems: list[str] = []
        for i in range(index, index + len(self)):
            sample, image = self.pairs[i % len(self)]
            try:
                pixels = read_pixels(sample, image.size)
            except ImageError as error:
                problems.append(str(error))
                continue
            boxes = torch.from_numpy(image.boxes).float()
            return Boxed(pixels, boxes, torch.from_numpy(image.labels), tuple(problems))
        raise DataMissing(f"none of the {len(self)} training images can be read; the first: {problems[0]}")


def read_pixels(sample: Sample, size: tuple[int, int]) -> UInt8[Tensor, "3 height width"]:
    """The image; raises ImageError if it cannot be read, or does not have ``size`` (height, width)."""
    pixels = np.array(read_image(sample.path, orient=sample.orient))
    if pixels.shape[:2] != size:
        raise ImageError(
            f"{sample.path}: {pixels.shape[1]}×{pixels.shape[0]} pixels, but its boxes are those of an image of "
            f"{size[1]}×{size[0]}; make the labels of the files that are there"
        )
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def check_labels(image: ImageLabels, classes: int) -> None:
    """Raises ParameterError for a box without area, or not inside its image, and a class that there is none of."""
    height, width = image.size
    low, high = image.boxes[:, :2], image.boxes[:, 2:]
    inside = (low >= 0).all(1) & (high <= [width, height]).all(1) & (high > low).all(1)  # nan is nowhere
    if not inside.all():
        box = image.boxes[int(np.flatnonzero(~inside)[0])].tolist()
        raise ParameterError(
            f"{image.name}: the box {box} does not lie inside the image of {width}×{height} pixels, or has no area: "
            "make labels with pseudo_labels(), which clips and drops such boxes"
        )
    if wrong := [label for label in image.labels.tolist() if not 0 <= label < classes]:
        raise ParameterError(f"{image.name}: a box of class {wrong[0]}, but there are classes 0 to {classes - 1}")


class BoxedBatch(NamedTuple):
    """Images of one step on the device, of any size, and their boxes and classes, each in a list."""

    images: list[UInt8[Tensor, "3 _ _"]]
    boxes: list[Float[Tensor, "_ 4"]]
    labels: list[Int[Tensor, " _"]]


class BoxedSet(ReadSet):
    """The images of a run, and their boxes."""

    batch = BoxedBatch
