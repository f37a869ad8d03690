"""Ways to follow the objects of a video from its first mask: by a network's features, and the controls beside it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from foundling.backbones import Backbone, extract
from foundling.backbones.cnn import as_it_left_relu
from foundling.backbones.registry import IMAGENET_STD
from foundling.datasets.images import read_image
from foundling.datasets.index_masks import read_labels
from foundling.discovery.colour import patch_moments
from foundling.discovery.facets import PATCH_FACETS, check_choice
from foundling.discovery.propagation import DINO_RULE, Rule, decide, first_labels, frame_size, propagate
from foundling.errors import ImageError, ParameterError
from foundling.types import Video

DINO_STD = (0.228, 0.224, 0.225)  # of DINO's evaluation code on DAVIS, where every other code has 0.229

Describe = Callable[[Iterable[Image.Image]], Iterator[Float[Tensor, "cell channel"]]]


class Tracker(NamedTuple):
    """A way to follow objects.

    ``settings`` (as JSON has them) say all that its masks depend on; ``run`` gives the masks of a video, of which the
    first is the one that was given.
    """

    settings: dict[str, Any]
    run: Callable[[Video], UInt8[np.ndarray, "frame h w"]]


def network_tracker(
    backbone: Backbone,
    facet: str = "tokens",
    block: int = -1,
    short_side: int | None = 480,
    rule: Rule = DINO_RULE,
    batch_size: int = 4,
    precision: str = "fp32",
) -> Tracker:
    """Label propagation on the features of a network (a control, if its weights are random).

    ``facet`` is one of keys, queries, values, tokens; ``block``, ``batch_size`` (frames) and ``precision`` are those of
    :func:`foundling.backbones.extract`; ``short_side`` is the height or width in pixels at which frames are described,
    ``None`` their own (see :func:`foundling.discovery.propagation.frame_size`). A network that was trained with
    ImageNet's normalisation gets that of DINO's evaluation code, which differs in one digit. Of a CNN, its last stage
    as it leaves the last ReLU.

    Raises :class:`ParameterError` for a facet, block or precision that the network does not have.
    """
    check_choice("facet", facet, PATCH_FACETS)
    if backbone.std == IMAGENET_STD:
        backbone = replace(backbone, std=DINO_STD)
    options: dict[str, Any] = {"facets": (facet,), "block": block, "batch_size": batch_size, "precision": precision}
    extract(backbone, (), **options)  # checks them: it reads nothing before it is iterated over

    def describe(frames: Iterable[Image.Image]) -> Iterator[Float[Tensor, "cell channel"]]:
        for features in extract(backbone, frames, **options):  # in order, since all frames have one size
            yield from as_it_left_relu(backbone, features, facet).facet(facet)

    settings = {
        "tracker": "network",
        "backbone": [backbone.name, backbone.checksum, backbone.device.type],
        "facet": facet,
        "block": block % backbone.blocks,
        "precision": precision,
    }
    return feature_tracker(settings, describe, backbone.patch_size, short_side, rule)


def colour_tracker(
    cell: int = 8, centred: bool = True, short_side: int | None = 480, rule: Rule = DINO_RULE, device: str = "cpu"
) -> Tracker:
    """The control that learned features must beat: the same propagation on the colours of patches.

    Six numbers describe a patch of ``cell`` pixels, mean and standard deviation of red, green and blue; ``centred``
    takes the frame's own mean over patches off, which spreads them over all directions.
    """
    if cell < 1:
        raise ParameterError(f"cell={cell}: choose at least 1 pixel")

    def describe(frames: Iterable[Image.Image]) -> Iterator[Float[Tensor, "cell channel"]]:
        for frame in frames:
            pixels = torch.from_numpy(np.array(frame)).to(device).permute(2, 0, 1)[None] / 255
            colours = torch.cat(patch_moments(pixels, cell), 1)[0].flatten(1).T
            yield colours - colours.mean(0) if centred else colours

    return feature_tracker({"tracker": "colour", "centred": centred}, describe, cell, short_side, rule)


def still_tracker() -> Tracker:
    """The control of no tracking at all: every frame gets the first mask."""

    def run(video: Video) -> UInt8[np.ndarray, "frame h w"]:
        mask = read_labels(video.annotations[0])
        return np.repeat(mask[None], len(video), axis=0)

    return Tracker({"tracker": "still"}, run)


def feature_tracker(
    settings: dict[str, Any], describe: Describe, cell: int, short_side: int | None = 480, rule: Rule = DINO_RULE
) -> Tracker:
    """Label propagation on any features, such as those of a network in training.

    ``describe`` turns frames (all of one size, a multiple of ``cell`` pixels) into features, frame by frame, of every
    cell, row by row; ``settings`` say all that these depend on. Raises :class:`ParameterError` for a ``short_side`` of
    less than a cell.
    """
    if short_side is not None and short_side < cell:
        raise ParameterError(f"short_side={short_side}: must be at least one cell, {cell} pixels")

    def run(video: Video) -> UInt8[np.ndarray, "frame h w"]:
        return _follow(video, describe, cell, short_side, rule)

    return Tracker({**settings, "cell": cell, "short_side": short_side, "rule": asdict(rule)}, run)


@torch.inference_mode()
def _follow(
    video: Video, describe: Describe, cell: int, short_side: int | None, rule: Rule
) -> UInt8[np.ndarray, "frame h w"]:
    mask = read_labels(video.annotations[0])
    height, width = frame_size((mask.shape[0], mask.shape[1]), cell, short_side)
    first = first_labels(mask, (height // cell, width // cell), video.objects)
    masks = [mask]
    for labels in propagate(describe(_frames(video, mask.shape, (height, width))), first, rule):
        masks.append(decide(labels, cell, (mask.shape[0], mask.shape[1])))
    return np.stack(masks)


def _frames(video: Video, stored: tuple[int, ...], size: tuple[int, int]) -> Iterator[Image.Image]:
    """The frames, resized as DINO's code does (OpenCV, bilinear); their files must have the first mask's size."""
    for path in video.frames:
        pixels = np.array(read_image(path))
        if pixels.shape[:2] != stored:
            raise ImageError(
                f"{path}: {pixels.shape[1]}×{pixels.shape[0]} pixels, but the first mask of the video, "
                f"{video.annotations[0]}, has {stored[1]}×{stored[0]}: frames and masks must have one size"
            )
        yield Image.fromarray(cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_LINEAR))
