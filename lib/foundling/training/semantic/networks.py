"""The networks of semantic segmentation: torchvision's DeepLabv3 on a ResNet-50, a U-Net, a light head on a ViT."""

from collections.abc import Sequence
from typing import Any

import timm
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models import resnet50
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.segmentation.deeplabv3 import DeepLabHead

from foundling.errors import ParameterError
from foundling.training.detection.bodies import Body, named_body
from foundling.training.semantic.settings import Semantic

DEEPEST = 2048  # channels of a ResNet-50's last stage
DETAIL_STRIDE = 4
DROPOUT = 0.1  # of the light head; DeepLab's is torchvision's, 0.5


class Segmenter(nn.Module):
    """An encoder and a head: the logits of every class at every pixel of normalised images."""

    encoder: nn.Module
    head: nn.Module

    def logits(self, images: Float[Tensor, "image 3 h w"]) -> Float[Tensor, "image class r c"]:
        """At the resolution of the head."""
        raise NotImplementedError

    def forward(self, images: Float[Tensor, "image 3 h w"]) -> Float[Tensor, "image class h w"]:
        """At that of the images (bilinear), in float32."""
        coarse = self.logits(images).float()
        return F.interpolate(coarse, images.shape[-2:], mode="bilinear", align_corners=False)

    def freeze_encoder(self) -> None:
        """The encoder stays as it is, its normalisation too."""
        self.encoder.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Segmenter":
        super().train(mode)
        if not any(p.requires_grad for p in self.encoder.parameters()):
            self.encoder.eval()
        return self


class DeepLab(Segmenter):
    """DeepLabv3 (Chen et al., 2017): the last stage of a dilated ResNet-50, atrous pooling; no auxiliary head."""

    def __init__(self, resnet: nn.Module, classes: int, output_stride: int) -> None:
        """``resnet`` is a ResNet-50 without a classifier, whose weights are taken."""
        super().__init__()
        dilated: Any = resnet50(replace_stride_with_dilation=[False, output_stride < 16, output_stride < 32])
        dilated.fc = nn.Identity()
        dilated.load_state_dict(resnet.state_dict())
        self.encoder = IntermediateLayerGetter(dilated, {"layer4": "out"})
        self.head = DeepLabHead(DEEPEST, classes)

    def logits(self, images: Float[Tensor, "image 3 h w"]) -> Float[Tensor, "image class r c"]:
        return self.head(self.encoder(images)["out"])


class VitSegmenter(Segmenter):
    """A ViT, and a head on the tokens of its last block, enlarged, beside what two convolutions see of the image."""

    def __init__(self, vit: Any, classes: int, channels: int, detail: int) -> None:
        super().__init__()
        self.encoder, self.head = vit, LightHead(vit.embed_dim, classes, channels, detail)

    def logits(self, images: Float[Tensor, "image 3 h w"]) -> Float[Tensor, "image class r c"]:
        encoder: Any = self.encoder
        maps: list[Tensor] = encoder.forward_intermediates(images, indices=1, norm=True, intermediates_only=True)
        return self.head(maps[0], images)


class UnetSegmenter(Segmenter):
    """A convolutional network of timm's, and a U-Net's way back up (Ronneberger et al., 2015) over its maps."""

    def __init__(self, body: Body, classes: int, channels: int) -> None:
        super().__init__()
        features: Any = timm.create_model(body.architecture, pretrained=False, features_only=True, **body.options)
        features.load_state_dict(body.network.state_dict())
        self.encoder, self.head = features, Decoder(features.feature_info.channels(), classes, channels)

    def logits(self, images: Float[Tensor, "image 3 h w"]) -> Float[Tensor, "image class r c"]:
        return self.head(self.encoder(images.contiguous(memory_format=torch.channels_last)))


class Decoder(nn.Module):
    """From the coarsest map to the finest: enlarged (bilinearly), beside the encoder's of that size, a convolution."""

    def __init__(self, widths: Sequence[int], classes: int, channels: int) -> None:
        """``widths`` are the encoder's, from the finest map; its own are ``channels``, twice as many, and so on."""
        super().__init__()
        own = [channels * (level + 1) for level in range(len(widths) - 1)]
        below = [*own[1:], widths[-1]]
        self.up = nn.ModuleList(
            nn.Sequential(*_convolution(coarse + beside, width))
            for coarse, beside, width in zip(below, widths[:-1], own, strict=True)
        )
        self.name = nn.Conv2d(channels, classes, 1)

    def forward(self, maps: Sequence[Float[Tensor, "image _ _ _"]]) -> Float[Tensor, "image class rows columns"]:
        found = maps[-1]
        for level in range(len(self.up) - 1, -1, -1):
            beside = maps[level]
            found = F.interpolate(found, beside.shape[-2:], mode="bilinear", align_corners=False)
            found = self.up[level](torch.cat([found, beside], 1))
        return self.name(found)


class LightHead(nn.Module):
    """Two convolutions over tokens, the second dilated; if it is to see details, those of the image at 4 pixels a cell
    and the tokens, bilinearly enlarged, are mixed by a third.

    Batch normalisation, as in DeepLab's head.
    """

    def __init__(self, width: int, classes: int, channels: int, detail: int) -> None:
        super().__init__()
        self.tokens = nn.Sequential(
            *_convolution(width, channels, size=1),
            *_convolution(channels, channels),
            *_convolution(channels, channels, dilation=2),
        )
        self.detail = nn.Sequential(*_convolution(3, detail, 2), *_convolution(detail, detail, 2)) if detail else None
        self.mix = nn.Sequential(*_convolution(channels + detail, channels)) if detail else None
        self.name = nn.Sequential(nn.Dropout(DROPOUT), nn.Conv2d(channels, classes, 1))

    def forward(
        self, tokens: Float[Tensor, "image width r c"], images: Float[Tensor, "image 3 h w"]
    ) -> Float[Tensor, "image class rows columns"]:
        maps = self.tokens(tokens)
        if self.detail is not None and self.mix is not None:
            size = [side // DETAIL_STRIDE for side in images.shape[-2:]]
            maps = F.interpolate(maps, size, mode="bilinear", align_corners=False)
            maps = self.mix(torch.cat([maps, self.detail(images)], 1))
        return self.name(maps)


def _convolution(before: int, after: int, stride: int = 1, dilation: int = 1, size: int = 3) -> tuple[nn.Module, ...]:
    around = dilation * (size // 2)
    convolution = nn.Conv2d(before, after, size, stride, around, dilation, bias=False)
    return convolution, nn.BatchNorm2d(after), nn.ReLU()


def load_encoder(settings: Semantic) -> Body:
    """The encoder that ``settings`` name, with its weights.

    Raises WeightsError for weights that are missing, damaged, or of another kind of network.
    """
    return named_body(settings.network, settings.weights)


def make_segmenter(settings: Semantic, body: Body, classes: int) -> Segmenter:
    """The segmenter of ``classes`` (background among them) that ``settings`` describe; its head is drawn by PyTorch's
    generator.

    Raises ParameterError for sides that are no multiples of a ViT's patches.
    """
    if settings.network == "deeplab_r50":
        network: Segmenter = DeepLab(body.network, classes, settings.output_stride)
    elif settings.network == "unet":
        network = UnetSegmenter(body, classes, settings.channels)
    else:
        patch = int(body.network.patch_embed.patch_size[0])
        for name in ("side", "test_side"):
            if (side := getattr(settings, name)) % patch:
                raise ParameterError(
                    f"{name} = {side} must be a multiple of {patch}, the patch size of {settings.weights}"
                )
        network = VitSegmenter(body.network, classes, settings.channels, settings.detail)
    if settings.backbone_rate == 0:
        network.freeze_encoder()
    return network
