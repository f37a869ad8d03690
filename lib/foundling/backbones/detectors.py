"""A network trained here as the backbone of torchvision's detectors.

    backbone = torchvision_backbone("RUN.safetensors")
    detector = torchvision.models.detection.MaskRCNN(backbone, num_classes=2)

(or FasterRCNN, or whatever is built from a GeneralizedRCNN: the detectors' normalisation is ImageNet's by default, and
so is that of networks trained here). Every backbone gives five maps of 256 channels, named as torchvision's own:
``0`` to ``3`` from fine to coarse, each half as fine as the one before, and ``pool``.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from timm.layers import LayerNorm2d, freeze_batch_norm_2d
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from foundling.backbones.transfer import Trained, fill, is_common_resnet, make_timm, read_trained
from foundling.errors import WeightsError

CHANNELS = 256
STRIDES = (4, 8, 16, 32)  # pixels a cell


def torchvision_backbone(file: str | Path, frozen_norm: bool = True) -> nn.Module:
    """The network in ``file``, and a feature pyramid on top, for torchvision's detectors; in training mode.

    A ResNet becomes torchvision's own ``resnet_fpn_backbone``, the other networks of stages :class:`StagesPyramid` and
    a ViT :class:`VitPyramid`. From RUN_dense.safetensors, what training here uses of a pyramid is loaded: all lateral
    convolutions and the finest output. The rest of the pyramid is random, drawn by PyTorch's generator. All parameters
    are free to train. With ``frozen_norm``, batch normalisation is a fixed affine map, as is usual where a GPU holds
    few images.

    Raises WeightsError as :func:`foundling.backbones.transfer.load_timm`, and if the pyramid in the file does not fit.
    """
    trained = read_trained(file)
    body: Any = make_timm(trained, {})
    pyramid: Any
    if is_common_resnet(trained):
        norm = FrozenBatchNorm2d if frozen_norm else nn.BatchNorm2d
        pyramid = resnet_fpn_backbone(
            backbone_name=trained.architecture, weights=None, norm_layer=norm, trainable_layers=5
        )
        fill(pyramid.body, trained.backbone, trained)
    elif isinstance(body, VisionTransformer):
        pyramid = VitPyramid(body)
    else:
        pyramid = StagesPyramid(freeze_batch_norm_2d(body) if frozen_norm else body)
    if trained.pyramid:
        _fill_pyramid(pyramid, trained)
    network: nn.Module = pyramid.train()
    return network


class StagesPyramid(nn.Module):
    """A network of stages (Swin, any ResNet of timm's) and a feature pyramid over those of 4 to 32 pixels a cell."""

    def __init__(self, body: Any) -> None:
        """``body`` is a timm model that says its stages' strides."""
        super().__init__()
        self.body, self.out_channels = body, CHANNELS
        self.levels, channels = pyramid_stages(body)
        self.fpn = FeaturePyramidNetwork(channels, CHANNELS, extra_blocks=LastLevelMaxPool())

    def forward(self, images: Float[Tensor, "image 3 h w"]) -> dict[str, Tensor]:
        """Five maps of normalised images."""
        maps = stage_maps(self.body, images, self.levels)
        result: dict[str, Tensor] = self.fpn({str(level): m for level, m in enumerate(maps)})
        return result


class VitPyramid(nn.Module):
    """A ViT and the simple feature pyramid over its last map (Li et al. 2022, ViTDet, §3).

    For patches of 16 pixels the maps have 4, 8, 16 and 32 pixels a cell, and 64 for ``pool``. Other patch sizes give
    their size times the powers of two that come nearest.
    """

    def __init__(
        self, body: Any, channels: int = CHANNELS, strides: Sequence[int] = STRIDES, pool: bool = True
    ) -> None:
        """``body`` is a ViT of timm's; the maps have ``channels``, and ``strides`` pixels a cell."""
        super().__init__()
        self.body, self.out_channels, self.pool = body, channels, pool
        self.patch_size = int(body.patch_embed.patch_size[0])
        doublings = [round(math.log2(self.patch_size / stride)) for stride in strides]
        self.scales = nn.ModuleList(_scale(body.embed_dim, channels, times) for times in doublings)

    def forward(self, images: Float[Tensor, "image 3 h w"]) -> dict[str, Tensor]:
        """The maps of normalised images."""
        last: Any = self.body.forward_intermediates(images, indices=1, norm=True, intermediates_only=True)
        maps = {str(level): scale(last[0]) for level, scale in enumerate(self.scales)}
        if self.pool:
            maps["pool"] = F.max_pool2d(maps[str(len(maps) - 1)], kernel_size=1, stride=2)
        return maps


def _scale(width: int, channels: int, doublings: int) -> nn.Sequential:
    """From a ViT's map to one of ``channels`` with 2 ** ``doublings`` as many cells a side, or so much fewer."""
    layers: list[nn.Module] = []
    for _ in range(doublings):
        layers += [nn.ConvTranspose2d(width, width // 2, 2, 2), LayerNorm2d(width // 2), nn.GELU()]
        width //= 2
    layers += [nn.MaxPool2d(2) for _ in range(-doublings)]
    layers += [nn.Conv2d(width, channels, 1, bias=False), LayerNorm2d(channels)]
    return nn.Sequential(*layers, nn.Conv2d(channels, channels, 3, padding=1, bias=False), LayerNorm2d(channels))


def _fill_pyramid(network: Any, trained: Trained) -> None:
    """Load the pyramid that was trained; what a detector adds to it stays as it is."""
    given, own = trained.pyramid, network.fpn.state_dict() if hasattr(network, "fpn") else {}
    other = [name for name in given if name not in own or given[name].shape != own[name].shape]
    if other:
        raise WeightsError(
            f"{trained.file}: its feature pyramid does not fit a {trained.architecture} ({', '.join(other[:3])}): "
            "export it again with `foundling train`, or give RUN.safetensors, which has none"
        )
    network.fpn.load_state_dict({**own, **given})


def pyramid_stages(body: Any) -> tuple[list[int], list[int]]:
    """Which stages of a timm model a pyramid stands on, those of 4 to 32 pixels a cell, and their channels."""
    levels = [i for i, stage in enumerate(body.feature_info) if stage["reduction"] in STRIDES]
    return levels, [body.feature_info[i]["num_chs"] for i in levels]


def stage_maps(body: Any, images: Float[Tensor, "image 3 h w"], levels: list[int]) -> list[Tensor]:
    """The maps of these stages of a timm model, fine to coarse, as a pyramid is given them.

    Transformers leave the inner stages unnormalised; here they are normalised too. What a LayerNorm multiplies and adds
    after that, the pyramid's 1x1 convolution can do.
    """
    maps: list[Tensor] = body.forward_intermediates(images, indices=levels, norm=True, intermediates_only=True)
    if not hasattr(body, "norm"):
        return maps
    return [*(_norm_channels(m) for m in maps[:-1]), maps[-1]]


def _norm_channels(maps: Float[Tensor, "image channel r c"]) -> Float[Tensor, "image channel r c"]:
    return F.layer_norm(maps.movedim(1, -1), maps.shape[1:2]).movedim(-1, 1)
