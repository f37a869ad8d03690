"""What everyone does who asks a network: images in its scale, and evaluation mode for the time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, nn


def normalise(
    images: Float[Tensor, "image 3 h w"], mean: Sequence[float], std: Sequence[float]
) -> Float[Tensor, "image 3 h w"]:
    """RGB in 0..1 to a network's input: less ``mean``, over ``std``, channel by channel."""
    centre, scale = (torch.tensor(x, device=images.device, dtype=images.dtype).view(3, 1, 1) for x in (mean, std))
    return (images - centre) / scale


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Evaluation mode for the time of the block; the mode that the network was in comes back."""
    before = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(before)
