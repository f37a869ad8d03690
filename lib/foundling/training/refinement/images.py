"""What refinement is trained on: images of any size, nothing else; and the squares that a step sees of them."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Generator, Tensor
from torch.utils import data

from foundling.datasets.images import read_image
from foundling.errors import DataMissing, ImageError, ParameterError
from foundling.training.reading import ReadSet
from foundling.training.running import spread_over
from foundling.training.semantic.views import random_window
from foundling.types import Sample


class Plain(NamedTuple):
    """One image, and what was wrong with those it stands in for."""

    pixels: UInt8[Tensor, "3 height width"]
    problems: tuple[str, ...] = ()


class PlainImages(data.Dataset[Plain]):
    """Images as they are; the next readable one stands in for one that cannot be read."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples
        told = [[sample.name, _bytes(sample.path), sample.orient] for sample in samples]
        self.identity = f"{len(samples)} images ({hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]})"

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Plain:
        problems: list[str] = []
        for i in range(index, index + len(self)):
            sample = self.samples[i % len(self)]
            try:
                pixels = np.array(read_image(sample.path, orient=sample.orient))
            except ImageError as error:
                problems.append(str(error))
                continue
            return Plain(torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), tuple(problems))
        raise DataMissing(f"none of the {len(self)} images can be read; the first: {problems[0]}")


def _bytes(path: Path) -> int | None:
    """The length of a file: images of other sizes may bear the same names."""
    try:
        return path.stat().st_size
    except OSError:
        return None


class PlainBatch(NamedTuple):
    """Images of one step on the device, of any size, in a list."""

    images: list[UInt8[Tensor, "3 _ _"]]


class PlainSet(ReadSet):
    """The images of a run; ``held`` are those that it only looks at."""

    batch = PlainBatch

    def __init__(self, source: Any, held: Any, device: torch.device | str = "cpu", workers: int = 0) -> None:
        super().__init__(source, device, workers)
        self.held = held
        self.identity = f"{source.identity}, {len(held)} held out ({held.identity})" if len(held) else source.identity


def split(samples: Sequence[Sample], held_out: int, batch: int) -> tuple[PlainImages, PlainImages]:
    """The images that are trained on, and ``held_out`` others that lie evenly among them.

    Raises ParameterError if there are too few.
    """
    if len(samples) < batch + held_out:
        raise ParameterError(
            f"batch = {batch} and held_out = {held_out} are more than there are images ({len(samples)}): lower them, "
            "or give more images"
        )
    held = set(spread_over(len(samples), held_out)) if held_out else set()
    trained = [sample for i, sample in enumerate(samples) if i not in held]
    return PlainImages(trained), PlainImages([samples[i] for i in sorted(held)])


def random_squares(
    images: Sequence[UInt8[Tensor, "3 _ _"]], side: int, areas: tuple[float, float], generator: Generator
) -> Float[Tensor, "image 3 side side"]:
    """A random crop of each image as a square of ``side`` pixels, every second one mirrored; RGB in 0..1.

    ``areas`` are the smallest and largest share of the image in its crop, see
    :func:`foundling.training.semantic.views.random_window`.
    """
    squares = []
    for image in images:
        top, left, height, width = random_window((image.shape[1], image.shape[2]), areas, generator)
        flip = bool(torch.rand((), generator=generator) < 0.5)
        square = squeezed(image[:, top : top + height, left : left + width], side)
        squares.append(square.flip(-1) if flip else square)
    return torch.stack(squares)


def squeezed(image: UInt8[Tensor, "3 height width"], side: int) -> Float[Tensor, "3 side side"]:
    """A whole image as a square of ``side`` pixels (bicubic, smoothed where it shrinks, as Pillow's); RGB in 0..1."""
    resized = F.interpolate(image[None].float() / 255, (side, side), mode="bicubic", antialias=True)
    return resized[0].clamp(0, 1)
