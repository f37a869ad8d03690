"""What h is taught: which of its boxes stands for which box that was found, and how far they are apart (Eqs. 3 to 6).

The authors train with DETR's criterion, which this follows where it says more than the equations: boxes without a
counterpart cost only their class, with a small weight, and are not drawn to zero boxes.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_convert, generalized_box_iou, generalized_box_iou_loss

from foundling.training.refinement.boxes import NO_OBJECT, OBJECT

Pairs = tuple[Int[Tensor, " _"], Int[Tensor, " _"]]  # slots of h, and the targets that they stand for


class Weights(NamedTuple):
    """lambda 1, 2 and 3 of Eq. 6, and what a box without an object counts in the class loss."""

    classes: float
    l1: float
    giou: float
    no_object: float


class BoxLosses(NamedTuple):
    """L_cls, L_box and L_giou (Eqs. 3 to 5), not yet weighted."""

    classes: Float[Tensor, ""]
    l1: Float[Tensor, ""]
    giou: Float[Tensor, ""]

    def weighted(self, weights: Weights) -> "BoxLosses":
        """The terms of Eq. 6."""
        return BoxLosses(weights.classes * self.classes, weights.l1 * self.l1, weights.giou * self.giou)


def pair_costs(
    boxes: Float[Tensor, "slot 4"],
    logits: Float[Tensor, "slot 2"],
    targets: Float[Tensor, "target 4"],
    weights: Weights,
) -> Float[Tensor, "slot target"]:
    """What it costs that a box of h stands for a target, both as centres and sizes in 0..1.

    The terms of Eq. 6 with their weights; for the class, less the probability of an object (DETR, Eq. 1).
    """
    overlap = generalized_box_iou(box_convert(boxes, "cxcywh", "xyxy"), box_convert(targets, "cxcywh", "xyxy"))
    likely = logits.softmax(-1)[:, OBJECT, None]  # [slot, 1]
    return weights.l1 * torch.cdist(boxes, targets, p=1) - weights.giou * overlap - weights.classes * likely


@torch.no_grad()
def match_boxes(
    boxes: Float[Tensor, "image slot 4"],
    logits: Float[Tensor, "image slot 2"],
    targets: Sequence[Float[Tensor, "_ 4"]],
    weights: Weights,
) -> list[Pairs]:
    """For every image the cheapest way to give each target a box of h of its own (the Hungarian algorithm).

    Of more targets than boxes the first ones count, which are the surest (section 3.1).
    """
    pairs = []
    for own, said, wanted in zip(boxes.float(), logits.float(), targets, strict=True):
        costs = pair_costs(own, said, wanted[: len(own)].to(own), weights)
        slots, chosen = linear_sum_assignment(costs.nan_to_num().cpu().numpy())  # of nan the loss will tell
        pairs.append((torch.from_numpy(slots).to(boxes.device), torch.from_numpy(chosen).to(boxes.device)))
    return pairs


def box_losses(
    boxes: Float[Tensor, "image slot 4"],
    logits: Float[Tensor, "image slot 2"],
    targets: Sequence[Float[Tensor, "_ 4"]],
    pairs: Sequence[Pairs],
    no_object: float,
    count: float | int,
) -> BoxLosses:
    """Eqs. 3 to 5 for matched boxes, all as centres and sizes in 0..1; 0 without an image.

    The class loss is the mean over all boxes of h, those without a target weighted with ``no_object``. The others are
    sums over all pairs, by ``count``, the number of targets (DETR's, with several processes: their mean number).
    """
    if not len(boxes):
        nothing = boxes.sum() + logits.sum()
        return BoxLosses(nothing, nothing, nothing)
    image = torch.cat([torch.full_like(slots, i) for i, (slots, _) in enumerate(pairs)])
    slot = torch.cat([slots for slots, _ in pairs])
    wanted = torch.cat([t[chosen] for t, (_, chosen) in zip(targets, pairs, strict=True)]).to(boxes)
    named = torch.full(logits.shape[:2], NO_OBJECT, device=logits.device)
    named[image, slot] = OBJECT
    classes = F.cross_entropy(logits.transpose(1, 2), named, logits.new_tensor([1.0, no_object]))
    matched = boxes[image, slot]
    l1 = (matched - wanted).abs().sum() / count
    corners = (box_convert(b, "cxcywh", "xyxy") for b in (matched, wanted))
    giou = generalized_box_iou_loss(*corners, reduction="sum", eps=0.0) / count
    return BoxLosses(classes, l1, giou)
