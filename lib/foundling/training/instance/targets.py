"""Which cells of SOLOv2's grids stand for which object (Wang et al. 2020, §3.2; FreeSOLO's code)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torchvision.ops import masks_to_boxes

from foundling.training.instance.settings import MASK_STRIDE


class Positives(NamedTuple):
    """The cells of one image that stand for an object, grid by grid; a cell that two objects claim is there twice."""

    level: Int[Tensor, " positive"]
    row: Int[Tensor, " positive"]
    column: Int[Tensor, " positive"]
    object: Int[Tensor, " positive"]

    def to(self, device: torch.device) -> "Positives":
        """The same on another device."""
        return Positives(*(part.to(device) for part in self))


def assign(
    masks: Bool[Tensor, "object h w"],
    size: tuple[int, int],
    grids: Sequence[int],
    scales: Sequence[Sequence[float]],
    centre: float = 0.2,
) -> Positives:
    """The cells that stand for each of ``masks``, none of them empty.

    ``size`` (height, width; at least that of the masks) is what a grid of S x S cells is laid over. An object is on
    every grid whose ``scales`` hold the root of the area of its box, both ends included, so that it may be on two. Its
    cells there are those that its box, shrunk to the share ``centre`` around the mask's centre of mass, reaches into,
    at most the 3 x 3 around the centre's own.
    """
    boxes, centres = boxes_of(masks), centres_of(masks)
    sides = boxes[:, 2:] - boxes[:, :2]
    extent = sides.prod(1).sqrt()
    height, width = size
    shape = torch.tensor([width, height], device=masks.device)
    found = []
    for level, (grid, (low, high)) in enumerate(zip(grids, scales, strict=True)):
        chosen = torch.nonzero((extent >= low) & (extent <= high)).flatten()

        def cell(points: Float[Tensor, "object 2"], grid: int = grid) -> Int[Tensor, "object 2"]:
            return (points / shape * grid).floor().long().clamp(0, grid - 1)

        middle, half = centres[chosen], sides[chosen] * centre / 2
        own, first, last = cell(middle), cell(middle - half), cell(middle + half)
        first, last = torch.maximum(first, own - 1), torch.minimum(last, own + 1)
        steps = torch.arange(-1, 2, device=masks.device)
        row, column = (own[:, axis, None, None] + step for axis, step in ((1, steps[:, None]), (0, steps[None])))
        inside = (row >= first[:, 1, None, None]) & (row <= last[:, 1, None, None])
        inside = inside & (column >= first[:, 0, None, None]) & (column <= last[:, 0, None, None])  # [object, 3, 3]
        which, i, j = torch.nonzero(inside, as_tuple=True)
        rows, columns = row[which, i, 0], column[which, 0, j]
        found.append((torch.full_like(which, level), rows, columns, chosen[which]))
    return Positives(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def boxes_of(masks: Bool[Tensor, "object h w"]) -> Float[Tensor, "object 4"]:
    """The tight boxes of masks that are not empty, ends exclusive."""
    if not len(masks):
        return torch.zeros(0, 4, device=masks.device)
    boxes = masks_to_boxes(masks)
    boxes[:, 2:] += 1
    return boxes


def centres_of(masks: Bool[Tensor, "object h w"]) -> Float[Tensor, "object 2"]:
    """The centres of mass (x, y), pixels counted from their middles (FreeSOLO: from their corners)."""
    weights = masks.float()
    height, width = masks.shape[1:]
    area = weights.sum((1, 2))
    x = weights.sum(1) @ (torch.arange(width, device=masks.device) + 0.5) / area
    y = weights.sum(2) @ (torch.arange(height, device=masks.device) + 0.5) / area
    return torch.stack([x, y], 1)


def quartered(masks: Bool[Tensor, "object h w"], size: tuple[int, int]) -> Bool[Tensor, "object r c"]:
    """Masks at a quarter of ``size`` (height and width, multiples of 4), to which they are padded.

    A cell is inside where half of its pixels are.
    """
    padded = F.pad(masks.float(), (0, size[1] - masks.shape[2], 0, size[0] - masks.shape[1]))
    return F.avg_pool2d(padded[:, None], MASK_STRIDE)[:, 0] >= 0.5


def cell_maps(positives: Sequence[Positives], grids: Sequence[int]) -> list[Bool[Tensor, "image _ _"]]:
    """For each grid, which cells stand for an object in each of the images that ``positives`` are of."""
    maps = []
    for level, grid in enumerate(grids):
        cells = torch.zeros(len(positives), grid, grid, dtype=torch.bool, device=positives[0].level.device)
        for image, those in enumerate(positives):
            here = those.level == level
            cells[image, those.row[here], those.column[here]] = True
        maps.append(cells)
    return maps
