"""SOLOv2 (Wang et al. 2020): a grid's cells say whether an object is there, and what filter draws its mask."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torchvision.models.detection.backbone_utils import BackboneWithFPN

from foundling.backbones.detectors import VitPyramid
from foundling.training.detection.bodies import Body, freeze_resnet, freeze_vit
from foundling.training.detection.networks import RESNET_CHANNELS
from foundling.training.instance.settings import MASK_STRIDE, Solo

FPN_CHANNELS = 256
PRIOR = 0.01  # what a cell's score is before training
GROUPS = 32  # of normalisation, as far as there are channels
POOL = "pool"  # the name of a pyramid's thinned last map

Said = tuple[list[Tensor], list[Tensor], Tensor]


class SoloNetwork(nn.Module):
    """A backbone with a pyramid, and SOLOv2's heads on its maps.

    ``cell`` is what the sides of its images are multiples of, in pixels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, settings: Solo, body: Body) -> None:
        super().__init__()
        self.grids = tuple(settings.grids)
        if settings.network == "vit":
            freeze_vit(body.network, settings.freeze_at)
            self.backbone: Any = VitPyramid(body.network, settings.channels, settings.strides, pool=False)
            self.cell = math.lcm(32, self.backbone.patch_size)
            used = len(settings.strides)
        else:
            freeze_resnet(body.network, settings.freeze_at, settings.norm, stages=4)
            stages = {f"layer{i + 1}": str(i) for i in range(4)}
            self.backbone = BackboneWithFPN(body.network, stages, list(RESNET_CHANNELS), FPN_CHANNELS)
            self.cell, used = 32, 4
        channels = self.backbone.out_channels
        self.head = InstanceHead(channels, settings.width, settings.depth, settings.kernel)
        self.masks = MaskBranch(channels, settings.mask_width, settings.kernel, used)
        self.register_buffer("mean", torch.tensor(body.mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(body.std).view(3, 1, 1), persistent=False)

    def forward(self, images: Float[Tensor, "image 3 h w"], inside: Bool[Tensor, "image 1 h w"]) -> Said:
        """What the cells say of images in 0..1, padded where not ``inside``; all of it in float32.

        For each grid the logits [image, S, S] and the filters [image, kernel, S, S]; and the mask features
        [image, kernel, h / 4, w / 4].
        """
        maps: dict[str, Tensor] = self.backbone((images - self.mean) / self.std * inside)
        features = self.masks([m for name, m in maps.items() if name != POOL])
        size = (images.shape[2] // MASK_STRIDE, images.shape[3] // MASK_STRIDE)
        if features.shape[2:] != size:
            features = resize(features, size)
        said = [self.head(m, grid) for m, grid in zip(evened(maps), self.grids, strict=True)]
        return [s[0].float() for s in said], [s[1].float() for s in said], features.float()


def evened(maps: dict[str, Tensor]) -> list[Tensor]:
    """The maps that grids are laid over: of a ResNet's five the first halved, the last as large as the one before."""
    if POOL not in maps:
        return list(maps.values())
    first, *middle, last = maps.values()
    halved = F.interpolate(first, scale_factor=0.5, mode="bilinear")
    return [halved, *middle, resize(last, middle[-1].shape[2:])]


class InstanceHead(nn.Module):
    """The two towers over each map, the same for all of them: scores and filters of the cells of its grid."""

    def __init__(self, channels: int, width: int, depth: int, kernel: int) -> None:
        super().__init__()
        self.kernels = _tower(channels + 2, width, depth)
        self.categories = _tower(channels, width, depth)
        self.kernel = nn.Conv2d(width, kernel, 3, padding=1)
        self.category = nn.Conv2d(width, 1, 3, padding=1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        nn.init.constant_(self.category.bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type]

    def forward(
        self, maps: Float[Tensor, "image channel h w"], grid: int
    ) -> tuple[Float[Tensor, "image s s"], Float[Tensor, "image kernel s s"]]:
        cells = resize(with_coordinates(maps), (grid, grid))
        return self.category(self.categories(cells[:, :-2]))[:, 0], self.kernel(self.kernels(cells))


class MaskBranch(nn.Module):
    """All maps brought to the finest one's size, added up, and mixed: what filters draw masks from."""

    def __init__(self, channels: int, width: int, kernel: int, maps: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.ModuleList(
                _step(channels + 2 * (level == maps - 1) if i == 0 else width, width) for i in range(max(level, 1))
            )
            for level in range(maps)
        )
        self.mix = nn.Sequential(nn.Conv2d(width, kernel, 1, bias=False), _norm(kernel), nn.ReLU())

    def forward(self, maps: list[Tensor]) -> Float[Tensor, "image kernel r c"]:
        """``maps`` are from fine to coarse; the coarsest is told where its cells are."""
        maps = [*maps[:-1], with_coordinates(maps[-1])]
        total: Any = 0
        for level, (branch, map_) in enumerate(zip(self.branches, maps, strict=True)):
            steps: Any = branch
            for i, step in enumerate(steps):
                map_ = step(map_)
                if level:
                    map_ = resize(map_, maps[level - 1 - i].shape[2:])
            total = total + map_
        return self.mix(total)


def with_coordinates(maps: Float[Tensor, "image channel h w"]) -> Float[Tensor, "image wider h w"]:
    """Maps with two channels more: x and y, from -1 to 1."""
    height, width = maps.shape[2:]
    y, x = (torch.linspace(-1, 1, n, device=maps.device, dtype=maps.dtype) for n in (height, width))
    places = torch.stack(torch.broadcast_tensors(x, y[:, None]))
    return torch.cat([maps, places.expand(len(maps), -1, -1, -1)], 1)


def resize(maps: Float[Tensor, "image channel _ _"], size: Any) -> Float[Tensor, "image channel h w"]:
    """Bilinear."""
    return F.interpolate(maps, tuple(size), mode="bilinear")


def _tower(channels: int, width: int, depth: int) -> nn.Sequential:
    return nn.Sequential(*(_step(width if i else channels, width) for i in range(depth)))


def _step(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1, bias=False), _norm(width), nn.ReLU())


def _norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(math.gcd(GROUPS, channels), channels)
