"""Position embeddings on another grid than the one they were trained on, resampled as DINO's code does it."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

OFFSET = 0.1  # DINO adds it to the target size, DINOv2 keeps it as interpolate_offset


def resample_positions(
    table: Float[Tensor, "1 position channel"], prefix: int, grid: tuple[int, int]
) -> Float[Tensor, "1 token channel"]:
    """The position embeddings ``table`` of a square training grid, for a grid of ``(rows, columns)`` patches.

    The first ``prefix`` rows (CLS) are kept as they are. The table is returned untouched if and only if the grid is the
    one it was trained on. Otherwise output patch ``i`` of ``n`` samples the table of side ``m`` at
    ``(i + 0.5) m / (n + 0.1) - 0.5`` with the cubic kernel (a = -0.75), indices clamped, without antialiasing: the
    offset is part of the scale and shifts every sample, so it matters even though the size would come out the same
    without it. DINO and DINOv2, ``interpolate_pos_encoding``.
    """
    side = math.isqrt(table.shape[1] - prefix)
    if grid == (side, side):
        return table
    square = table[:, prefix:].reshape(1, side, side, -1).permute(0, 3, 1, 2)  # [1, channel, side, side]
    scale = [(n + OFFSET) / side for n in grid]
    resized = F.interpolate(square, scale_factor=scale, mode="bicubic", align_corners=False)
    return torch.cat((table[:, :prefix], resized.flatten(2).transpose(1, 2)), dim=1)
