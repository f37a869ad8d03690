"""BASNet (Qin et al., CVPR 2019): an image to eight maps of what stands out in it, coarse to refined.

Parameters have the names and shapes of the published code's, so that its checkpoints, and those of MaskContrast, which
COMUS takes its saliency from, load as they are. ``width`` scales all channels: 64 is the published network.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from foundling.errors import ParameterError

WIDTH = 64  # of the published network
STRIDE = 32  # sides of images are multiples of it
STAGES = ((1, 3, 1), (2, 4, 2), (4, 6, 2), (8, 3, 2))  # of the encoder: width, blocks, stride; as in ResNet-34
DECODER = {  # stage: width of what it reads, of its two inner maps, of its output; from coarse to fine
    "6d": (16, 8, 8),
    "5d": (16, 8, 8),
    "4d": (16, 8, 4),
    "3d": (8, 4, 2),
    "2d": (4, 2, 1),
    "1d": (2, 1, 1),
}


class Units(nn.Module):
    """A network of units: 3×3 convolution, batch normalisation, ReLU; their names follow ``conv`` and ``bn``."""

    def add_unit(self, name: str, inputs: int, outputs: int, dilation: int = 1) -> None:
        self.add_module(f"conv{name}", nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation))
        self.add_module(f"bn{name}", nn.BatchNorm2d(outputs))

    def unit(self, name: str, x: Tensor) -> Tensor:
        return F.relu(self.get_submodule(f"bn{name}")(self.get_submodule(f"conv{name}")(x)))

    def add_stage(self, name: str, channels: tuple[int, int, int], dilations: tuple[int, int, int]) -> None:
        """Three units in a row: ``<name>_1``, ``<name>_m`` and ``<name>_2``; ``channels`` in, between, and out."""
        inputs, inner, outputs = channels
        self.add_unit(f"{name}_1", inputs, inner, dilations[0])
        self.add_unit(f"{name}_m", inner, inner, dilations[1])
        self.add_unit(f"{name}_2", inner, outputs, dilations[2])

    def stage(self, name: str, x: Tensor) -> Tensor:
        for part in ("1", "m", "2"):
            x = self.unit(f"{name}_{part}", x)
        return x


class Refinement(Units):
    """The refinement module: a small U-Net that adds a correction to a map of logits (§3.3)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(1, width, 3, padding=1)
        for level in range(1, 6):
            self.add_unit(str(level), width, width)
        for level in range(4, 0, -1):
            self.add_unit(f"_d{level}", 2 * width, width)
        self.conv_d0 = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, logits: Float[Tensor, "image 1 h w"]) -> Float[Tensor, "image 1 h w"]:
        x, skipped = self.conv0(logits), []
        for level in range(1, 5):
            skipped.append(self.unit(str(level), x))
            x = halved(skipped[-1])
        x = self.unit("5", x)
        for level in range(4, 0, -1):
            x = self.unit(f"_d{level}", torch.cat([enlarged(x, 2), skipped[level - 1]], 1))
        return logits + self.conv_d0(x)


class Basnet(Units):
    """The whole network: encoder, bridge, decoder with a side output at every stage, refinement (§3.2)."""

    def __init__(self, width: int = WIDTH) -> None:
        """Random parameters; ``width`` is the number of channels at full resolution. Raises ParameterError below 1."""
        super().__init__()
        if width < 1:
            raise ParameterError(f"width = {width}: a network has 1 channel or more ({WIDTH} as published)")
        self.width = width
        self.inconv = nn.Conv2d(3, width, 3, padding=1)
        self.inbn = nn.BatchNorm2d(width)
        inputs = width
        for number, (times, blocks, stride) in enumerate(STAGES, start=1):
            self.add_module(f"encoder{number}", residual_stage(inputs, times * width, blocks, stride))
            inputs = times * width
        for number in (5, 6):
            for block in (1, 2, 3):
                self.add_module(f"resb{number}_{block}", BasicBlock(inputs, inputs))
        self.add_stage("bg", (inputs, inputs, inputs), (2, 2, 2))
        self.outconvb = nn.Conv2d(inputs, 1, 3, padding=1)
        for name, (wide, inner, outputs) in DECODER.items():
            channels = (wide * width, inner * width, outputs * width)
            self.add_stage(name, channels, (1, 2, 2) if name == "6d" else (1, 1, 1))
            self.add_module(f"outconv{name[0]}", nn.Conv2d(outputs * width, 1, 3, padding=1))
        self.refunet = Refinement(width)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is None:  # those of the residual blocks, as in ResNet
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Float[Tensor, "image 3 h w"]) -> Float[Tensor, "map image h w"]:
        """The logits of eight maps, the refined one first, then from fine to coarse; images are normalised.

        Raises ParameterError for sides that are no multiples of 32.
        """
        if images.shape[-1] % STRIDE or images.shape[-2] % STRIDE or not images[0, 0].numel():
            height, width = images.shape[-2:]
            raise ParameterError(f"{width}×{height} pixels: this network takes sides that are multiples of {STRIDE}")
        levels = self.encode(images)
        x = self.stage("bg", levels[-1])
        maps = [enlarged(self.outconvb(x), STRIDE)]
        for name, level in zip(DECODER, reversed(levels), strict=True):
            if name != "6d":
                x = enlarged(x, 2)
            x = self.stage(name, torch.cat([x, level], 1))
            side = self.get_submodule(f"outconv{name[0]}")(x)
            maps.append(enlarged(side, images.shape[-1] // side.shape[-1]))
        maps.append(self.refunet(maps[-1]))
        return torch.cat(maps[::-1], 1).transpose(0, 1)

    def encode(self, images: Float[Tensor, "image 3 h w"]) -> list[Tensor]:
        """The maps of the six stages, fine to coarse: each half as large as the one before."""
        x, levels = F.relu(self.inbn(self.inconv(images))), []
        for number in range(1, len(STAGES) + 1):
            x = self.get_submodule(f"encoder{number}")(x)
            levels.append(x)
        for number in (5, 6):
            x = halved(x)
            for block in (1, 2, 3):
                x = self.get_submodule(f"resb{number}_{block}")(x)
            levels.append(x)
        return levels


def residual_stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    """A stage of a ResNet of basic blocks; where its shape changes, the shortcut of the first is a convolution."""
    shortcut = None
    if stride > 1 or inputs != outputs:
        shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
    first = BasicBlock(inputs, outputs, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(outputs, outputs) for _ in range(blocks - 1)))


def halved(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2, 2, ceil_mode=True)


def enlarged(x: Tensor, times: int) -> Tensor:
    return x if times == 1 else F.interpolate(x, scale_factor=times, mode="bilinear", align_corners=False)
