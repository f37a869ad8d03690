"""K-means of every image's patches by themselves, batched on the device."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor


def kmeans(
    features: Float[Tensor, "image patch channel"], k: int, generator: Generator, iterations: int = 10
) -> Int[Tensor, "image patch"]:
    """K-means of every image's patches by themselves, on unit vectors, from ``k`` random patches as centres.

    A cluster that loses all its patches keeps its centre. Ties go to the lower index.
    """
    x = F.normalize(features, dim=-1)
    order = torch.rand(x.shape[:2], generator=generator, device=generator.device).argsort(1)[:, :k].to(x.device)
    centres = torch.gather(x, 1, order[..., None].expand(-1, -1, x.shape[-1]))
    for _ in range(iterations):
        owned = F.one_hot(_nearest(x, centres), k).to(x.dtype)
        counts = owned.sum(1)[..., None]
        centres = torch.where(counts > 0, owned.transpose(1, 2) @ x / counts.clamp(min=1), centres)
    return _nearest(x, centres)


def _nearest(x: Tensor, centres: Tensor) -> Tensor:
    return (2 * x @ centres.transpose(1, 2) - centres.square().sum(-1)[:, None]).argmax(-1)
