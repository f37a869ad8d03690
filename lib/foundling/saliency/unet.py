"""A small U-Net (Ronneberger et al., 2015) for saliency: trained in minutes where BASNet takes hours."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from foundling.errors import ParameterError

STEM = "stem.0.weight"  # says how wide a network is
LEVELS = (1, 2, 3, 4, 4)  # channels of each level in widths; the first is half as large as the image, and so on
SMALLEST = 2 ** len(LEVELS)  # pixels of an image's side that leave one cell at the coarsest level


class Unet(nn.Module):
    """Five levels from half of the image's resolution to a thirty-second of it, and back; one map."""

    def __init__(self, width: int = 24) -> None:
        """Random parameters; ``width`` is the number of channels at half resolution. Raises ParameterError below 1."""
        super().__init__()
        if width < 1:
            raise ParameterError(f"width = {width}: a network has 1 channel or more")
        self.width = width
        channels = [times * width for times in LEVELS]
        self.stem = _unit(3, width, 2)
        self.down = nn.ModuleList(
            nn.Sequential(_unit(above, below, 2), _unit(below, below)) for above, below in pairwise(channels)
        )
        self.bottom = nn.Sequential(_unit(channels[-1], channels[-1]), _unit(channels[-1], channels[-1]))
        self.up = nn.ModuleList(_unit(below + above, above) for below, above in pairwise(channels[::-1]))
        self.out = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, images: Float[Tensor, "image 3 h w"]) -> Float[Tensor, "1 image h w"]:
        """The logits of its only map, as :class:`foundling.saliency.basnet.Basnet` gives its eight; images are
        normalised. Raises ParameterError for sides below 32."""
        size = images.shape[-2:]
        if min(size) < SMALLEST:
            raise ParameterError(f"{size[0]}×{size[1]} pixels: this network takes sides of {SMALLEST} and more")
        levels = [self.stem(images.contiguous(memory_format=torch.channels_last))]
        for step in self.down:
            levels.append(step(levels[-1]))
        x = levels.pop()
        x = x + self.bottom(x)
        for step in self.up:
            level = levels.pop()
            x = step(torch.cat([_resized(x, level.shape[-2:]), level], 1))
        return _resized(self.out(x), size).transpose(0, 1)


def _unit(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def _resized(x: Tensor, size: tuple[int, ...] | torch.Size) -> Tensor:
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=False)
