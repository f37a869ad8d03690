"""What is kept of overlapping masks: SOLOv2's point and matrix non-maximum suppression (Wang et al. 2020, §3.4)."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from foundling.errors import ParameterError


def point_nms(scores: Float[Tensor, "row column"]) -> Float[Tensor, "row column"]:
    """Scores of cells that are the largest in the square of themselves, the cells above and left, and between these.

    The others become 0; equal ones stay.
    """
    largest = F.max_pool2d(scores[None, None], 2, stride=1, padding=1)[0, 0, :-1, :-1]
    return torch.where(scores == largest, scores, 0.0)


def matrix_nms(
    masks: Bool[Tensor, "mask h w"],
    scores: Float[Tensor, " mask"],
    kernel: Literal["gaussian", "linear"] = "gaussian",
    sigma: float = 2.0,
) -> Float[Tensor, " mask"]:
    """Scores that fall where a better mask has the same place, all at once (Eq. 3 to 5).

    Mask j falls by the least, over all better i, of f(iou_ij) / f(c_i), where c_i is the largest IoU of i with a mask
    better than it: what is itself likely to go takes little from others. f(u) is exp(-``sigma`` u²), as in the
    published code, or 1 - u. Of equal scores the first in order is the better. Masks are in any order, and so is the
    result.
    """
    if kernel not in ("gaussian", "linear"):
        raise ParameterError(f"kernel is {kernel!r}: choose gaussian or linear")
    if not len(masks):
        return scores
    order = scores.argsort(descending=True, stable=True)
    iou = ious(masks[order]).triu(1)  # [better, worse]
    covered = iou.amax(0)[:, None]  # c of the better one
    if kernel == "gaussian":
        factors = torch.exp(-sigma * (iou.square() - covered.square()))
    else:
        factors = (1 - iou) / (1 - covered).clamp(min=torch.finfo(iou.dtype).eps)
    better = torch.ones_like(iou, dtype=torch.bool).triu(1)
    factors = torch.where(better, factors, 1.0).amin(0)
    return torch.empty_like(scores).scatter_(0, order, scores[order] * factors)


def ious(masks: Bool[Tensor, "mask h w"]) -> Float[Tensor, "mask mask"]:
    """IoU of all pairs; 0 for two empty masks."""
    flat = masks.flatten(1).float()
    shared, area = flat @ flat.T, flat.sum(1)
    return shared / (area[:, None] + area - shared).clamp(min=1)
