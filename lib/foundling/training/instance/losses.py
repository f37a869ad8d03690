"""SOLOv2's losses, and those of BoxInst that FreeSOLO has in place of the masks' own (Tian et al. 2021, §3).

Projections see of a mask no more than its box and its profiles: a coarse mask will do. Where exactly the border is, the
colours say: neighbours of like colour are to be both inside or both outside.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

ALPHA, GAMMA = 0.25, 2.0  # of the focal loss
DILATION = 2  # cells between a cell and its neighbours
OFFSETS = [(y, x) for y in (-DILATION, 0, DILATION) for x in (-DILATION, 0, DILATION) if (y, x) != (0, 0)]
WHITE = (0.95047, 1.0, 1.08883)  # D65
TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))


class MaskLosses(NamedTuple):
    """The parts of the masks' loss, means over the positive cells, before they are weighted."""

    dice: Float[Tensor, ""]
    projection: Float[Tensor, ""]
    average: Float[Tensor, ""]
    pairwise: Float[Tensor, ""]


def category_loss(
    logits: Sequence[Float[Tensor, "image _ _"]], cells: Sequence[Bool[Tensor, "image _ _"]]
) -> Float[Tensor, ""]:
    """The focal loss of all cells of all grids, over the number of those that stand for an object, and one."""
    said, true = (torch.cat([part.flatten() for part in parts]) for parts in (logits, cells))
    loss = sigmoid_focal_loss(said, true.to(said.dtype), alpha=ALPHA, gamma=GAMMA, reduction="sum")
    return loss / (true.sum() + 1)


def dice_loss(a: Float[Tensor, "mask pixel"], b: Float[Tensor, "mask pixel"]) -> Float[Tensor, " mask"]:
    """1 - 2 |ab| / (|a²| + |b²|): for maps of 0..1; 0 for two equal masks, 1 where they share nothing."""
    return 1 - 2 * (a * b).sum(1) / (a.square().sum(1) + b.square().sum(1) + 1e-5)


def projection_loss(
    masks: Float[Tensor, "mask h w"], targets: Float[Tensor, "mask h w"], mean: bool = False
) -> Float[Tensor, " mask"]:
    """The Dice losses of the largest values in each row, and in each column, added; or of the means there."""

    def along(x: Tensor, axis: int) -> Tensor:
        return x.mean(axis) if mean else x.amax(axis)

    return dice_loss(along(masks, 1), along(targets, 1)) + dice_loss(along(masks, 2), along(targets, 2))


def pairwise_loss(
    logits: Float[Tensor, "mask h w"], targets: Bool[Tensor, "mask h w"], alike: Bool[Tensor, "mask 8 h w"]
) -> Float[Tensor, ""]:
    """-log P(a cell and a neighbour are both inside or both outside), the mean over the pairs that count.

    These begin in the box of the target (the rows and columns that it has cells in) and are ``alike``. No pair: 0.
    """
    inside, outside = F.logsigmoid(logits), F.logsigmoid(-logits)
    both_in = inside[:, None] + neighbours(inside)
    both_out = outside[:, None] + neighbours(outside)
    counts = alike & box_of(targets)[:, None]
    return -(torch.logaddexp(both_in, both_out) * counts).sum() / counts.sum().clamp(min=1)


def box_of(masks: Bool[Tensor, "mask h w"]) -> Bool[Tensor, "mask h w"]:
    """The cells whose row and whose column the mask has cells in."""
    return masks.any(2, keepdim=True) & masks.any(1, keepdim=True)


def mask_losses(
    logits: Sequence[Float[Tensor, "_ h w"]],
    targets: Sequence[Bool[Tensor, "_ h w"]],
    alike: Sequence[Bool[Tensor, "_ 8 h w"]] | None,
) -> MaskLosses:
    """The losses of the masks of the positive cells of each grid; 0 where there are none.

    Dice is a mean over all cells. The others are means over each grid that has positive cells, and then over these
    grids: one with few counts as much as one with many, as in FreeSOLO. Without ``alike`` there is no pairwise loss.
    """
    rows = []
    for i, (said, true) in enumerate(zip(logits, targets, strict=True)):
        if len(said):
            masks, wanted = said.sigmoid(), true.float()
            pairs = pairwise_loss(said, true, alike[i]) if alike is not None else said.new_zeros(())
            box, profile = projection_loss(masks, wanted).mean(), projection_loss(masks, wanted, mean=True).mean()
            rows.append(torch.stack([dice_loss(masks.flatten(1), wanted.flatten(1)).sum(), box, profile, pairs]))
    if not rows:
        return MaskLosses(*logits[0].new_zeros(4))
    parts = torch.stack(rows)
    return MaskLosses(parts[:, 0].sum() / sum(map(len, logits)), *parts[:, 1:].mean(0))


# Colours


def alike(
    images: Float[Tensor, "image 3 h w"], valid: Bool[Tensor, "image h w"], likeness: float
) -> Bool[Tensor, "image 8 h w"]:
    """Which of a cell's eight neighbours have a colour like its own: exp(-distance / 2) in Lab is ``likeness`` or more.

    ``images`` are RGB in 0..1. A neighbour beyond the border, or not ``valid``, is never alike, nor is a cell that is
    not ``valid``.
    """
    lab = rgb_to_lab(images)
    there = neighbours(lab.flatten(0, 1)).unflatten(0, lab.shape[:2])  # [image, 3, 8, h, w]
    near = torch.exp(-0.5 * (lab[:, :, None] - there).norm(dim=1)) >= likeness
    return near & valid[:, None] & (neighbours(valid.float()) > 0)


def neighbours(maps: Float[Tensor, "map h w"]) -> Float[Tensor, "map 8 h w"]:
    """The values of the eight cells around each, two rows and columns apart; 0 beyond the border."""
    height, width = maps.shape[1:]
    padded = F.pad(maps, (DILATION,) * 4)
    starts = [(DILATION + y, DILATION + x) for y, x in OFFSETS]
    return torch.stack([padded[:, y : y + height, x : x + width] for y, x in starts], 1)


def rgb_to_lab(images: Float[Tensor, "image 3 h w"]) -> Float[Tensor, "image 3 h w"]:
    """sRGB in 0..1 as CIELAB (D65): lightness in 0..100, a, b."""
    linear = torch.where(images > 0.04045, ((images.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4, images / 12.92)
    white = torch.tensor(WHITE, device=images.device).view(3, 1, 1)
    matrix = torch.tensor(TO_XYZ, device=images.device)
    xyz = torch.einsum("ij,njhw->nihw", matrix, linear) / white
    f = torch.where(xyz > 0.008856, xyz.clamp(min=0.008856) ** (1 / 3), 7.787 * xyz + 16 / 116)
    x, y, z = f.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)
