"""Faster R-CNN from torchvision's parts: R50-C4 as Detectron2 has it, R50-FPN, and a ViT with a simple pyramid.

What differs from torchvision's own detectors: losses of boxes as the settings say (L1 in Detectron2), boxes cut out of
C4's map with half a cell's shift (``aligned``), and images that shrink are smoothed first.
"""

import math
from typing import Any

from jaxtyping import Float
from timm.layers import freeze_batch_norm_2d
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import TwoMLPHead
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.resnet import ResNet
from torchvision.ops import MultiScaleRoIAlign, roi_align

from foundling.backbones.detectors import VitPyramid
from foundling.training.detection.bodies import Body, freeze_resnet, freeze_vit
from foundling.training.detection.heads import Boxes, BoxHeads, FloatHead, Predictor, Proposals, Resizing
from foundling.training.detection.settings import Detector

RESNET_CHANNELS = (256, 512, 1024, 2048)  # of the stages of a ResNet-50
C4_STRIDE = 16
BOX_WEIGHTS = (10.0, 10.0, 5.0, 5.0)


def make_detector(settings: Detector, body: Body) -> GeneralizedRCNN:
    """The detector that ``settings`` describe on ``body``, its heads drawn by PyTorch's generator.

    Labels of torchvision's detectors start at 1; 0 is the background. Images are RGB in 0..1, of any size.
    """
    make = {"r50_c4": _c4, "r50_fpn": _fpn, "vit": _vit}[settings.network]
    backbone, pooler, head, width = make(settings, body.network)
    anchors = AnchorGenerator(tuple(map(tuple, settings.anchors)), (tuple(settings.ratios),) * len(settings.anchors))
    sizes, attentive = (settings.min_sizes, settings.test_size, settings.max_size), settings.network == "vit"
    return GeneralizedRCNN(
        backbone,
        _proposals(settings, backbone.out_channels, anchors),
        _boxes(settings, pooler, head, width),
        Resizing(*sizes, body.mean, body.std, _cell(backbone), together=attentive),
    )


def _proposals(settings: Detector, channels: int, anchors: AnchorGenerator) -> Proposals:
    candidates, kept = settings.rpn_candidates, (settings.rpn_proposals, settings.test_proposals)
    network = Proposals(
        anchors,
        FloatHead(channels, anchors.num_anchors_per_location()[0]),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=settings.rpn_samples,
        positive_fraction=0.5,
        pre_nms_top_n={"training": candidates, "testing": max(candidates // 2, kept[1])},
        post_nms_top_n={"training": kept[0], "testing": kept[1]},
        nms_thresh=0.7,
    )
    network.beta = settings.box_beta
    return network


def _boxes(settings: Detector, pooler: nn.Module, head: nn.Module, width: int) -> BoxHeads:
    heads = BoxHeads(
        pooler,
        head,
        Predictor(width, settings.classes),
        fg_iou_thresh=0.5,
        bg_iou_thresh=0.5,
        batch_size_per_image=settings.roi_samples,
        positive_fraction=settings.roi_positive,
        bbox_reg_weights=BOX_WEIGHTS,
        score_thresh=settings.score_threshold,
        nms_thresh=settings.nms_threshold,
        detections_per_img=settings.detections,
    )
    heads.beta = settings.box_beta
    return heads


# The three networks: the backbone, what cuts boxes out of its maps, the box head, and the head's width

Parts = tuple[Any, nn.Module, nn.Module, int]


def _stem(resnet: ResNet) -> nn.Sequential:
    stem = nn.Sequential()
    for name in ("conv1", "bn1", "relu", "maxpool"):
        stem.add_module(name, getattr(resnet, name))
    return stem


class C4(nn.Module):
    """A ResNet up to its third stage: one map of 16 pixels a cell."""

    def __init__(self, resnet: ResNet) -> None:
        super().__init__()
        self.stem = _stem(resnet)
        self.layer1, self.layer2, self.layer3 = resnet.layer1, resnet.layer2, resnet.layer3
        self.out_channels = RESNET_CHANNELS[2]

    def forward(self, images: Float[Tensor, "image 3 h w"]) -> dict[str, Tensor]:
        return {"0": self.layer3(self.layer2(self.layer1(self.stem(images))))}


class Res5Head(nn.Module):
    """The last stage of a ResNet on boxes cut out of its third, one norm more, and the mean over the box.

    Detectron2's ``Res5ROIHeadsExtraNorm`` as He et al. made it for fine-tuning (appendix D).
    """

    def __init__(self, stage: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.stage, self.norm = stage, norm

    def forward(self, boxes: Float[Tensor, "box channel r c"]) -> Float[Tensor, "box wide"]:
        return self.norm(self.stage(boxes)).mean((2, 3))


class Aligned(nn.Module):
    """RoIAlign on one map, as Detectron2 has it: cells' centres are half a cell inside, as many samples as it takes."""

    def __init__(self, size: int, stride: int) -> None:
        super().__init__()
        self.size, self.stride = size, stride

    def forward(self, maps: dict[str, Tensor], boxes: Boxes, sizes: Any) -> Float[Tensor, "box channel r c"]:
        return roi_align(maps["0"], boxes, self.size, 1 / self.stride, sampling_ratio=-1, aligned=True)


def _c4(settings: Detector, resnet: ResNet) -> Parts:
    width = RESNET_CHANNELS[3]
    norm: nn.Module = nn.BatchNorm2d(width)
    if settings.norm == "frozen":
        norm = freeze_batch_norm_2d(norm)
    freeze_resnet(resnet, settings.freeze_at, settings.norm, stages=3)
    return C4(resnet), Aligned(settings.pool, C4_STRIDE), Res5Head(resnet.layer4, norm), width


def _fpn(settings: Detector, resnet: ResNet) -> Parts:
    freeze_resnet(resnet, settings.freeze_at, settings.norm, stages=4)
    stages = {f"layer{i + 1}": str(i) for i in range(4)}
    backbone = BackboneWithFPN(resnet, stages, list(RESNET_CHANNELS), 256)
    return backbone, *_multi(settings, ["0", "1", "2", "3"], 256)


def _vit(settings: Detector, vit: VisionTransformer | Eva) -> Parts:
    freeze_vit(vit, settings.freeze_at)
    backbone = VitPyramid(vit, settings.channels, settings.strides, pool=False)
    names = [str(i) for i, stride in enumerate(settings.strides) if stride <= 32 or i == 0]
    return backbone, *_multi(settings, names, settings.channels)


def _multi(settings: Detector, names: list[str], channels: int) -> tuple[nn.Module, nn.Module, int]:
    pooler = MultiScaleRoIAlign(names, settings.pool, sampling_ratio=2)
    return pooler, TwoMLPHead(channels * settings.pool**2, settings.hidden), settings.hidden


def _cell(backbone: nn.Module) -> int:
    """What the sides of padded images are multiples of, in pixels."""
    if isinstance(backbone, VitPyramid):
        return math.lcm(32, backbone.patch_size)
    return 32
