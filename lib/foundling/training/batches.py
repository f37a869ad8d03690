"""What an objective is given at every step."""

from typing import NamedTuple

from jaxtyping import Int, UInt8
from torch import Tensor


class Batch(NamedTuple):
    """Images of one step on the device, RGB, square; ``indices`` are their positions in the training set."""

    images: UInt8[Tensor, "image 3 side side"]
    indices: Int[Tensor, " image"]
