"""Is a run collapsing? What the features of a fixed set of images vary with.

A collapsed network gives every patch the same feature, or one that only says where the patch is, or only which image
it is from: its loss may look well all the same.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from foundling.backbones.apply import evaluating
from foundling.training.networks import DenseNetwork
from foundling.training.views import normalise

COLLAPSED = 0.01  # a feature variance below this is called a collapse
AT_ONCE = 32  # images


class Spread(NamedTuple):
    """What the directions of patch features vary with.

    ``feature_variance`` is 0 if all are the same and 1 if they point everywhere. ``by_position`` and ``by_image`` are
    the shares (0..1) of it that the place in the image and the image explain; the rest is what tells a patch from
    others of its image and of its place. Both are nan where there is no variance.
    """

    feature_variance: float
    by_position: float
    by_image: float


def decompose(features: Float[Tensor, "image channel rows columns"]) -> Spread:
    """The two-way decomposition of the variance of patch features (analysis of variance without replication).

    With x[i, p] the feature of image i at place p, scaled to length 1, and means m (over all), m[p] (over images) and
    m[i] (over places), the sum of squares about m falls into three parts::

        total    = mean over i, p of |x[i, p] - m|²     = 1 - |m|²
        position = mean over p    of |m[p] - m|²
        image    = mean over i    of |m[i] - m|²

    and a rest. Returns total, position / total and image / total.
    """
    x = F.normalize(features.float().flatten(2), dim=1)
    mean = x.mean((0, 2), keepdim=True)
    total, position, image = (
        float((part - mean).square().sum(1).mean()) for part in (x, x.mean(0, keepdim=True), x.mean(2, keepdim=True))
    )
    if total < 1e-9:  # of rounding
        return Spread(0.0, float("nan"), float("nan"))
    return Spread(total, position / total, image / total)


@torch.no_grad()
def watch(network: DenseNetwork, images: UInt8[Tensor, "image 3 side side"]) -> Spread:
    """:func:`decompose` the features that ``network``, in evaluation mode, has for ``images`` (on its device)."""
    side = max(network.stride, images.shape[-1] // network.stride * network.stride)
    with evaluating(network):
        maps = [network(prepare(part, side)).float() for part in images.split(AT_ONCE)]
    return decompose(torch.cat(maps))


def prepare(images: UInt8[Tensor, "image 3 h w"], side: int) -> Float[Tensor, "image 3 side side"]:
    """RGB images as a network's input of ``side`` pixels."""
    pixels = images.float() / 255
    if images.shape[-2:] != (side, side):
        pixels = F.interpolate(pixels, (side, side), mode="bicubic", antialias=True).clamp(0, 1)
    return normalise(pixels)
