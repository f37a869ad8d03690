"""What a step sees of an image and its label map: one random crop of both, resized, mirrored or not."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Generator, Tensor

TRIES = 10
RATIOS = (3 / 4, 4 / 3)  # width over height

Window = tuple[int, int, int, int]  # top, left, height, width in pixels


class Crops(NamedTuple):
    """Squares of RGB in 0..1, and the label of every pixel of theirs."""

    images: Float[Tensor, "image 3 side side"]
    labels: Int[Tensor, "image side side"]


def make_crops(
    images: Sequence[UInt8[Tensor, "3 _ _"]],
    maps: Sequence[UInt8[Tensor, "_ _"]],
    side: int,
    areas: tuple[float, float],
    generator: Generator,
) -> Crops:
    """A crop of ``side`` pixels of every image and its label map, every second one mirrored (COMUS, appendix B.2).

    Images are resized bilinearly, without smoothing where they shrink, and maps by nearest neighbour, as in the
    authors' code. ``areas`` are those of :func:`random_window`.
    """
    pixels, labels = [], []
    for image, labelled in zip(images, maps, strict=True):
        top, left, height, width = random_window((image.shape[1], image.shape[2]), areas, generator)
        flip = bool(torch.rand((), generator=generator) < 0.5)
        rows, columns = slice(top, top + height), slice(left, left + width)
        cut = F.interpolate(image[None, :, rows, columns].float(), (side, side), mode="bilinear")
        names = F.interpolate(labelled[None, None, rows, columns].float(), (side, side), mode="nearest")[:, 0]
        pixels.append(cut.flip(-1) if flip else cut)
        labels.append(names.flip(-1) if flip else names)
    return Crops(torch.cat(pixels) / 255, torch.cat(labels).long())


def random_window(size: tuple[int, int], areas: tuple[float, float], generator: Generator) -> Window:
    """A window in an image of ``size`` (height, width): top, left, height, width.

    Its area is drawn evenly between ``areas`` times the image's, the logarithm of its shape evenly between 3:4 and 4:3,
    and both again if it does not fit, up to 10 times; then it is the largest window in the middle with a legal shape.
    Areas above 1 therefore never zoom out: they make whole images more frequent (albumentations' rule, which COMUS
    used with 0.5 to 2).
    """
    height, width = size
    for _ in range(TRIES):
        draws = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
        area = height * width * (areas[0] + (areas[1] - areas[0]) * draws[0])
        ratio = math.exp(math.log(RATIOS[0]) + (math.log(RATIOS[1]) - math.log(RATIOS[0])) * draws[1])
        across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < across <= width and 0 < down <= height:
            return int(draws[2] * (height - down + 1)), int(draws[3] * (width - across + 1)), down, across
    across = min(width, max(1, round(height * RATIOS[1])))
    down = min(height, max(1, round(width / RATIOS[0])))
    return (height - down) // 2, (width - across) // 2, down, across
