"""Networks that give a feature at every place of an image, their heads, and slow copies that follow them."""

import copy
import difflib
import math
from collections.abc import Mapping
from typing import Any, TypeVar

import timm
import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.layers.attention import Attention
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torchvision.ops import FeaturePyramidNetwork

from foundling.backbones.detectors import CHANNELS, STRIDES, pyramid_stages, stage_maps
from foundling.errors import ParameterError

Network = TypeVar("Network", bound=nn.Module)


class DenseNetwork(nn.Module):
    """f: images to a map of features h.

    A ViT gives its patch tokens after the last norm. A network of stages (ResNet, Swin) has a feature pyramid on top,
    and gives the pyramid's finest level, four pixels a cell (§3.1).
    """

    def __init__(self, backbone: Any) -> None:
        """``backbone`` is a timm model without a classifier: a ViT, or one that says its stages' strides."""
        super().__init__()
        self.backbone = backbone
        self.fpn: FeaturePyramidNetwork | None = None
        self.levels: list[int] = []
        if isinstance(backbone, VisionTransformer):
            self.stride, self.channels = int(backbone.patch_embed.patch_size[0]), int(backbone.embed_dim)
            return
        self.levels, channels = pyramid_stages(backbone)
        self.fpn = FeaturePyramidNetwork(channels, CHANNELS)
        del self.fpn.layer_blocks[1:]  # of the coarser levels: nothing reads them
        self.stride, self.channels = STRIDES[0], CHANNELS

    def forward(self, images: Float[Tensor, "image 3 h w"]) -> Float[Tensor, "image channel rows columns"]:
        """h = f(v) of normalised images, on a grid of ``h / stride`` rows (rounded up where there is a pyramid)."""
        if self.fpn is not None:
            return finest_level(self.fpn, stage_maps(self.backbone, images, self.levels))
        rows, columns = images.shape[-2] // self.stride, images.shape[-1] // self.stride
        tokens: Tensor = self.backbone.forward_features(images)[:, self.backbone.num_prefix_tokens :]
        return tokens.transpose(1, 2).unflatten(-1, (rows, columns))

    def image_features(self, images: Float[Tensor, "image 3 h w"]) -> Float[Tensor, "image channel"]:
        """One vector an image, of the backbone's own width: the CLS token, or the mean of the last stage."""
        vectors: Tensor = self.backbone(images)
        return vectors


def finest_level(
    fpn: FeaturePyramidNetwork, maps: list[Float[Tensor, "image _ _ _"]]
) -> Float[Tensor, "image channel rows columns"]:
    """The finest output of a feature pyramid over ``maps`` (fine to coarse), without computing the coarser outputs."""
    summed = fpn.get_result_from_inner_blocks(maps[-1], -1)
    for level in range(len(maps) - 2, -1, -1):
        lateral = fpn.get_result_from_inner_blocks(maps[level], level)
        summed = lateral + F.interpolate(summed, size=lateral.shape[-2:], mode="nearest")
    return fpn.get_result_from_layer_blocks(summed, 0)


def make_network(architecture: str, options: Mapping[str, Any], seed: int) -> DenseNetwork:
    """A network with random parameters drawn from ``seed``; it takes images of any size.

    ``architecture`` is a timm name of a ViT, a ResNet or a Swin (``vit_small_patch16_224``, ``resnet50``,
    ``swin_tiny_patch4_window7_224``). ``options`` go to timm, as in
    ``{"img_size": 96, "patch_size": 8, "depth": 4}``.

    Raises ParameterError if timm has no such network, does not know an option, or the network is of no such kind.
    """
    if not timm.is_model(architecture):
        near = ", ".join(difflib.get_close_matches(architecture, timm.list_models(), 3, cutoff=0.4))
        raise ParameterError(
            f"architecture {architecture!r} is no network of timm's: use a ViT, a ResNet or a Swin"
            + (f" (near this name: {near})" if near else "")
        )
    family = timm.model_entrypoint(architecture).__module__.rpartition(".")[2]
    if family not in _FAMILIES:
        raise ParameterError(
            f"architecture {architecture!r} is none that is trained here: use a ViT, a ResNet or a Swin"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            backbone = timm.create_model(
                architecture, pretrained=False, num_classes=0, **(_FAMILIES[family] | dict(options))
            )
        except (TypeError, ValueError, AssertionError) as error:
            raise ParameterError(
                f"options {dict(options)} do not fit the architecture {architecture!r}: {error}"
            ) from error
        return DenseNetwork(backbone)


# What lets images have any size. Stochastic depth would make a step depend on more than its number.
_FAMILIES: dict[str, dict[str, Any]] = {
    "vision_transformer": {"dynamic_img_size": True},
    "swin_transformer": {"strict_img_size": False, "drop_path_rate": 0.0},
    "resnet": {},
}


def fit_to_device(module: nn.Module, device: torch.device, processes: int = 1) -> None:
    """Move ``module`` to the device it is trained on, in place, and give it the form that it needs there.

    On a CPU, PyTorch's fused attention is slower than plain products over the few patches of small images, so ViTs do
    without it. On the GPUs of several ``processes``, batch statistics are those of all of them, as the paper's
    cross-replica batch normalisation has it. Where there is a feature pyramid, the network is convolutional, or a Swin
    that ends in convolutions: these are faster with channels last.
    """
    if device.type == "cpu":
        for part in module.modules():
            if isinstance(part, Attention):
                part.fused_attn = False  # type: ignore[misc]
    if processes > 1 and device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(module)
    if any(isinstance(part, FeaturePyramidNetwork) for part in module.modules()):
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    module.to(device)


def check_sides(settings: Any, network: DenseNetwork, *names: str) -> None:
    """Raises ParameterError if one of the named sides is no multiple of the network's cells."""
    for name in names:
        if (side := getattr(settings, name)) % network.stride:
            raise ParameterError(
                f"{name} = {side} must be a multiple of {network.stride}, the pixels of one feature of "
                f"{settings.architecture}: use {max(side // network.stride, 1) * network.stride}"
            )


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """A projector or predictor as BYOL and DetCon have it: two layers, batch normalisation between, no last bias."""
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.BatchNorm1d(hidden), nn.ReLU(inplace=True), nn.Linear(hidden, outputs, bias=False)
    )


def slow_copy(network: Network) -> Network:
    """A copy that the optimiser leaves alone, to be moved by :func:`follow`."""
    return copy.deepcopy(network).requires_grad_(False)


@torch.no_grad()
def follow(slow: nn.Module, fast: nn.Module, rate: float, statistics_rate: float | None = None) -> None:
    """Eq. 6-7: slow <- (1 - rate) slow + rate fast, for parameters and for running statistics.

    ``statistics_rate`` is the rate of the running statistics where it is another one. Counters are copied.
    """
    theirs = dict(fast.named_buffers())
    for mine, leader in zip(slow.parameters(), fast.parameters(), strict=True):
        mine.lerp_(leader.to(mine.dtype), rate)
    for name, value in slow.named_buffers():
        if value.is_floating_point():
            value.lerp_(theirs[name], rate if statistics_rate is None else statistics_rate)
        else:
            value.copy_(theirs[name])


def target_rate(step: int, steps: int, decay: float) -> float:
    """lambda_xi at a step of ``steps``: from 1 - ``decay`` down to 0 on BYOL's cosine."""
    return (1 - decay) * (1 + math.cos(math.pi * step / steps)) / 2
