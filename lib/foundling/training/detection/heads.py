"""torchvision's proposals and heads on boxes, with losses as the settings say, and its way of images into a network.

Proposals and boxes are computed in float32 whatever the precision of the networks.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes

Boxes = list[Float[Tensor, "_ 4"]]


class FloatHead(RPNHead):
    """The head of the proposal network; what it says is in float32, whatever the precision of the networks."""

    def forward(self, maps: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        scores, deltas = super().forward(maps)
        return [part.float() for part in scores], [part.float() for part in deltas]


class Proposals(RegionProposalNetwork):
    """torchvision's proposal network, with its loss of boxes at ``beta``."""

    beta = 0.0

    def compute_loss(
        self, objectness: Tensor, pred_bbox_deltas: Tensor, labels: list[Tensor], regression_targets: Any
    ) -> tuple[Tensor, Tensor]:
        chosen = [torch.where(torch.cat(part))[0] for part in self.fg_bg_sampler(labels)]  # objects, others
        both, true = torch.cat(chosen), torch.cat(labels)
        deltas, wanted = pred_bbox_deltas[chosen[0]], torch.cat(regression_targets)[chosen[0]]
        box_loss = F.smooth_l1_loss(deltas, wanted, beta=self.beta, reduction="sum") / max(len(both), 1)
        return F.binary_cross_entropy_with_logits(objectness.flatten()[both], true[both]), box_loss


class Predictor(FastRCNNPredictor):
    """Scores of the classes and boxes for each; small at the start, as in Detectron2, and in float32."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__(width, classes + 1)
        nn.init.normal_(self.cls_score.weight, std=0.01)
        nn.init.normal_(self.bbox_pred.weight, std=0.001)
        nn.init.zeros_(self.cls_score.bias)
        nn.init.zeros_(self.bbox_pred.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scores, deltas = super().forward(x)
        return scores.float(), deltas.float()


class BoxHeads(RoIHeads):
    """torchvision's heads on boxes, with their loss of boxes at ``beta``."""

    beta = 0.0

    def forward(
        self, features: dict[str, Tensor], proposals: Boxes, image_shapes: Any, targets: Any = None
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        if not self.training:
            return super().forward(features, proposals, image_shapes, targets)
        proposals, _, labels, wanted = self.select_training_samples(proposals, targets)
        pooled = self.box_roi_pool(features, proposals, image_shapes)
        scores, deltas = self.box_predictor(self.box_head(pooled))
        return [], box_losses(scores, deltas, torch.cat(labels), torch.cat(wanted), self.beta)


def box_losses(
    scores: Float[Tensor, "box class"],
    deltas: Float[Tensor, "box coordinate"],
    labels: Int[Tensor, " box"],
    wanted: Float[Tensor, "box 4"],
    beta: float,
) -> dict[str, Tensor]:
    """The loss of classes, and of the boxes of those that are objects; both are means over all of them."""
    objects = torch.where(labels > 0)[0]
    chosen = deltas.unflatten(1, (-1, 4))[objects, labels[objects]]
    box_loss = F.smooth_l1_loss(chosen, wanted[objects], beta=beta, reduction="sum") / max(len(labels), 1)
    return {"loss_classifier": F.cross_entropy(scores, labels), "loss_box_reg": box_loss}


class Resizing(GeneralizedRCNNTransform):
    """torchvision's way of images into a network, but smoothed where they shrink, and at a size of its own in use."""

    def __init__(
        self,
        min_sizes: Sequence[int],
        test_size: int,
        max_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        cell: int,
        together: bool = False,
    ) -> None:
        """Shorter sides in training and in use, the longest side, colours; padded sides are multiples of ``cell``.

        With ``together`` one shorter side is drawn for all images of a batch, else for each: attention sees padding.
        """
        super().__init__(list(min_sizes), max_size, list(mean), list(std), size_divisible=cell)
        self.test_size, self.together, self._drawn = test_size, together, 0

    def forward(self, images: list[Tensor], targets: Any = None) -> Any:
        self._drawn = self.torch_choice(self.min_size) if self.training and self.together else 0
        return super().forward(images, targets)

    def resize(self, image: Tensor, target: Any = None) -> tuple[Tensor, Any]:
        height, width = image.shape[-2:]
        shorter = self._drawn or self.torch_choice(self.min_size) if self.training else self.test_size
        size = self.size_of(height, width, shorter)
        if size != (height, width):
            image = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
        if target is not None:
            target["boxes"] = resize_boxes(target["boxes"], [height, width], list(size))
        return image, target

    def size_of(self, height: int, width: int, shorter: int) -> tuple[int, int]:
        """What an image of that size is resized to so that its shorter side is ``shorter``, its longer in bounds."""
        scale = min(shorter / min(height, width), self.max_size / max(height, width))
        return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
