"""BASNet's loss: every map is to agree with the mask pixel by pixel, patch by patch, and as a whole (§3.4)."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

WINDOW, SIGMA = 11, 1.5  # of SSIM: the side of its patch in pixels, and the spread of the weights in it
C1, C2 = 0.01**2, 0.03**2


class Parts(NamedTuple):
    """The three parts of the loss of each map."""

    bce: Float[Tensor, " map"]
    ssim: Float[Tensor, " map"]
    iou: Float[Tensor, " map"]


def saliency_loss(logits: Float[Tensor, "map image h w"], masks: Float[Tensor, "image h w"]) -> Parts:
    """Binary cross-entropy, 1 - SSIM and 1 - IoU of each map with the masks (0 or 1), means over images (Eq. 2).

    The sum of all is what the published code minimises, every map with the same weight.
    """
    target = masks.expand_as(logits)
    maps = logits.sigmoid()
    bce = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean((1, 2, 3))
    return Parts(bce, 1 - structural_similarity(maps, target).mean((1, 2, 3)), 1 - soft_iou(maps, target).mean(1))


def structural_similarity(
    a: Float[Tensor, "map image h w"], b: Float[Tensor, "map image h w"]
) -> Float[Tensor, "map image h w"]:
    """SSIM of the patches around each pixel (Eq. 4); beyond the edge both are 0."""
    place = torch.arange(WINDOW, device=a.device, dtype=a.dtype) - WINDOW // 2
    weights = torch.exp(-place.square() / (2 * SIGMA**2))
    weights = weights / weights.sum()

    def mean(x: Tensor) -> Tensor:
        rows = F.conv2d(x.flatten(0, 1)[:, None], weights.view(1, 1, -1, 1), padding=(WINDOW // 2, 0))
        return F.conv2d(rows, weights.view(1, 1, 1, -1), padding=(0, WINDOW // 2)).view_as(x)

    mean_a, mean_b = mean(a), mean(b)
    variance_a, variance_b = mean(a * a) - mean_a.square(), mean(b * b) - mean_b.square()
    covariance = mean(a * b) - mean_a * mean_b
    likeness = (2 * mean_a * mean_b + C1) * (2 * covariance + C2)
    return likeness / ((mean_a.square() + mean_b.square() + C1) * (variance_a + variance_b + C2))


def soft_iou(a: Float[Tensor, "map image h w"], b: Float[Tensor, "map image h w"]) -> Float[Tensor, "map image"]:
    """The IoU of two maps of 0..1 (Eq. 5); 0 where one of them is empty."""
    both = (a * b).sum((2, 3))
    return both / (a.sum((2, 3)) + b.sum((2, 3)) - both).clamp_min(torch.finfo(a.dtype).tiny)
