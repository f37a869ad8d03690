"""The matrix of products of all pairs of patches, made in pieces: it is symmetric, and too large to keep."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

BLOCK = 256  # rows made at a time: they stay in the processor's cache


def upper_blocks(
    left: Float[Tensor, "image patch channel"], right: Float[Tensor, "image patch channel"]
) -> Iterator[tuple[int, int, Float[Tensor, "image row column"]]]:
    """The upper triangle of the matrix left · right, which must be symmetric, block of rows by block of rows.

    Yields ``start, stop, products``, where ``products`` are those of patches start..stop with patches start..end.
    """
    patches = left.shape[1]
    for start in range(0, patches, BLOCK):
        stop = min(start + BLOCK, patches)
        yield start, stop, torch.bmm(left[:, start:stop], right[:, start:].transpose(1, 2))
