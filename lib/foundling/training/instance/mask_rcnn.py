"""Mask R-CNN as a task of the training loop: the detector of :mod:`foundling.training.detection`, with masks."""

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import maskrcnn_loss
from torchvision.ops import MultiScaleRoIAlign

from foundling.training.detection.bodies import Body
from foundling.training.detection.heads import BoxHeads, Resizing, box_losses
from foundling.training.detection.networks import BOX_WEIGHTS, make_detector
from foundling.training.detection.task import DetectorTask
from foundling.training.instance.images import MaskedBatch
from foundling.training.instance.settings import METHOD, MaskRcnn
from foundling.training.instance.targets import boxes_of
from foundling.training.instance.views import resize_masks
from foundling.training.running import Run
from foundling.training.tuning import about

TargetedImages = list[tuple[Tensor, dict[str, Tensor]]]


class MaskRcnnTask(DetectorTask):
    """Mask R-CNN and its five losses."""

    def make_detector(self) -> nn.Module:
        settings: Any = self.settings  # a MaskRcnn
        return make_mask_rcnn(settings, self.body)

    def make_views(self, batch: MaskedBatch, generator: Generator) -> TargetedImages:  # type: ignore[override]
        """Images in 0..1, every second one mirrored, with masks, tight boxes and labels as torchvision has them."""
        flips = (torch.rand(len(batch.images), generator=generator) < 0.5).tolist()
        views = []
        for pixels, masks, labels, flip in zip(*batch, flips, strict=True):
            image = pixels.float() / 255
            if flip:
                image, masks = image.flip(-1), masks.flip(-1)
            views.append((image, {"boxes": boxes_of(masks), "labels": labels + 1, "masks": masks}))
        return views

    def about(self, run: Run) -> dict[str, Any]:
        return about(self.body, self.classes, run, METHOD)


def make_mask_rcnn(settings: MaskRcnn, body: Body) -> nn.Module:
    """The network that ``settings`` describe on ``body``, its heads drawn by PyTorch's generator.

    Raises ParameterError if its engine is not installed, or cannot do what ``settings`` say.
    """
    if settings.engine == "detectron2":
        from foundling.training.instance.detectron2_masks import Detectron2Masks

        return Detectron2Masks(settings, body)
    return add_masks(make_detector(settings, body), settings)


def add_masks(detector: GeneralizedRCNN, settings: MaskRcnn) -> GeneralizedRCNN:
    """``detector`` with a mask head; its box heads and its resizing are changed for such that know of masks."""
    boxes, old = detector.roi_heads, detector.transform
    names, channels = boxes.box_roi_pool.featmap_names, detector.backbone.out_channels
    heads = MaskHeads(
        boxes.box_roi_pool,
        boxes.box_head,
        boxes.box_predictor,
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=settings.roi_samples,
        positive_fraction=settings.roi_positive,
        bbox_reg_weights=BOX_WEIGHTS,
        score_thresh=settings.score_threshold,
        nms_thresh=settings.nms_threshold,
        detections_per_img=settings.detections,
        mask_roi_pool=MultiScaleRoIAlign(names, settings.mask_pool, sampling_ratio=2),
        mask_head=MaskRCNNHeads(channels, (settings.mask_width,) * settings.mask_depth, 1),
        mask_predictor=FloatMasks(settings.mask_width, settings.mask_width, settings.classes + 1),
    )
    heads.beta = settings.box_beta
    detector.roi_heads = heads
    detector.transform = ResizingMasks(
        settings.min_sizes, settings.test_size, settings.max_size, old.image_mean, old.image_std, old.size_divisible
    )
    return detector


class FloatMasks(MaskRCNNPredictor):
    """Masks of each class; what it says is in float32, whatever the precision of the networks."""

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = super().forward(x)
        return logits.float()


class MaskHeads(BoxHeads):
    """The box heads, and in training the loss of the masks of the boxes that are objects."""

    def forward(
        self, features: dict[str, Tensor], proposals: list[Tensor], image_shapes: Any, targets: Any = None
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        if not self.training:
            return super().forward(features, proposals, image_shapes, targets)
        proposals, matched, labels, wanted = self.select_training_samples(proposals, targets)
        pooled = self.box_roi_pool(features, proposals, image_shapes)
        scores, deltas = self.box_predictor(self.box_head(pooled))
        losses = box_losses(scores, deltas, torch.cat(labels), torch.cat(wanted), self.beta)
        objects = [torch.where(those > 0)[0] for those in labels]
        boxes = [those[rows] for those, rows in zip(proposals, objects, strict=True)]
        logits = self.mask_predictor(self.mask_head(self.mask_roi_pool(features, boxes, image_shapes)))
        masks = [target["masks"].to(logits) for target in targets]
        rows = [those[chosen] for those, chosen in zip(matched, objects, strict=True)]
        return [], {**losses, "loss_mask": maskrcnn_loss(logits, boxes, masks, _labels(targets), rows)}


def _labels(targets: list[dict[str, Tensor]]) -> list[Tensor]:
    return [target["labels"] for target in targets]


class ResizingMasks(Resizing):
    """The detector's way of images into its network, masks with them."""

    def resize(self, image: Float[Tensor, "3 h w"], target: Any = None) -> tuple[Tensor, Any]:
        masks: Bool[Tensor, "object h w"] | None = None if target is None else target.pop("masks")
        image, target = super().resize(image, target)
        if masks is not None:
            target["masks"] = resize_masks(masks, (image.shape[1], image.shape[2]))
        return image, target
