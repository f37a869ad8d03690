"""Boxes as h writes them: numbers that no one reads, centres and sizes in 0..1, corners in pixels."""

import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.ops import box_convert

NUMBERS = 6  # of a box: centre, width and height, and a logit each for object and no object
OBJECT, NO_OBJECT = 0, 1


def decode(
    numbers: Float[Tensor, "image numbers"],
) -> tuple[Float[Tensor, "image slot 4"], Float[Tensor, "image slot 2"]]:
    """h's output as boxes and logits: six numbers a box, one box after the other (section 3.1, and the code).

    The first four go through a sigmoid: centre x and y, width and height, as shares of the image. The others are the
    logits of object and no object.
    """
    slots = numbers.unflatten(1, (-1, NUMBERS))  # [image, slot, 6]
    return slots[..., :4].sigmoid(), slots[..., 4:]


def to_corners(
    boxes: Float[Tensor, "*boxes 4"], height: float | int = 1, width: float | int = 1
) -> Float[Tensor, "*boxes 4"]:
    """Centres and sizes in 0..1 as (x0, y0, x1, y1) of an image of ``height`` by ``width`` pixels, cut to it."""
    corners = box_convert(boxes, "cxcywh", "xyxy").clamp(0, 1)
    return corners * corners.new_tensor([width, height, width, height])


def from_corners(
    boxes: Float[Tensor, "*boxes 4"], height: float | int, width: float | int
) -> Float[Tensor, "*boxes 4"]:
    """(x0, y0, x1, y1) in pixels of an image of ``height`` by ``width`` as centres and sizes in 0..1."""
    return box_convert(boxes / boxes.new_tensor([width, height, width, height]), "xyxy", "cxcywh")


def object_scores(logits: Float[Tensor, "*slots 2"]) -> Float[Tensor, "*slots"]:
    """How likely each box holds an object, 0 to 1."""
    return logits.softmax(-1)[..., OBJECT]


def surest(boxes: Float[Tensor, "image slot 4"], logits: Float[Tensor, "image slot 2"]) -> Float[Tensor, "image 4"]:
    """The box of each image that most likely holds an object (the first of equals)."""
    best = object_scores(logits).argmax(1)
    return boxes[torch.arange(len(boxes), device=boxes.device), best]
