"""What can be seen of a refinement without labels: whether h and the boxes found agree, and how far f has moved."""

from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torchvision.ops import box_iou

from foundling.training.refinement.boxes import surest, to_corners
from foundling.training.refinement.networks import BoxNetwork
from foundling.training.refinement.sources import Source


def overlaps(
    boxes: Float[Tensor, "image slot 4"],
    logits: Float[Tensor, "image slot 2"],
    found: Sequence[Float[Tensor, "_ 4"]],
    side: int,
) -> Float[Tensor, " found"]:
    """The IoU of h's surest box with the first box found (pixels of a square), for each image that has one."""
    kept = [i for i, one in enumerate(found) if len(one)]
    if not kept:
        return boxes.new_zeros(0)
    own = to_corners(surest(boxes[kept], logits[kept]), side, side)
    return torch.cat([box_iou(own[n, None], found[i][:1].to(own))[0] for n, i in enumerate(kept)])


def covers(found: Float[Tensor, "box 4"], side: int) -> bool:
    """Whether the first box found is all of a square image."""
    return bool(len(found) and found[0].tolist() == [0, 0, side, side])


@torch.no_grad()
def look_at(
    source: Source, frozen: Source, head: BoxNetwork, batches: Iterable[Float[Tensor, "_ 3 side side"]]
) -> dict[str, float]:
    """What is seen of some images (normalised squares), with h in evaluation mode.

    ``agreement``: the mean IoU of h's surest box with the box found through f, over the images that have one;
    ``covering``: the share of images whose box is all of them; ``drift``: the mean square by which f's output (a ViT's
    CLS token) differs from what it was. All are means over images; 0 where there is nothing to measure.
    """
    agreements: list[Tensor] = []
    whole: list[bool] = []
    drifts: list[Tensor] = []
    for views in batches:
        seen, before = source.look(views, True), frozen.look(views, True)
        found = source.discover(seen)
        side = views.shape[-1]
        boxes, logits = head(seen.map)
        agreements.append(overlaps(boxes, logits, found, side))
        whole += [covers(one, side) for one in found]
        if seen.output is not None and before.output is not None:
            drifts.append(F.mse_loss(seen.output, before.output, reduction="none").flatten(1).mean(1))
    return {
        "agreement": mean(torch.cat(agreements)),
        "covering": sum(whole) / len(whole),
        "drift": mean(torch.cat(drifts)) if drifts else 0.0,
    }


def mean(values: Float[Tensor, " value"]) -> float:
    """The mean; 0 of nothing."""
    return float(values.mean()) if len(values) else 0.0
