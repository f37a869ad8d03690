"""Features of a convolutional network: its last stage, normalised as a whole (LOST, Sec. 4.1 and its code)."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from foundling.backbones.load import Backbone
from foundling.backbones.registry import CNN_FACETS
from foundling.types import PatchFeatures


def cnn_facets(
    network: nn.Module, pixels: Float[Tensor, "image 3 height width"], facets: Collection[str]
) -> dict[str, Tensor]:
    """The last stage of ``network`` as ``keys`` and as ``tokens`` (the same numbers: a CNN has no attention).

    The map of each image, ``[patch, channel]``, is standardised with one mean and one biased variance over all its
    entries (eps 1e-5): after a ReLU every dot product would be positive, and LOST would find nothing.
    """
    maps = network(pixels).flatten(2).transpose(1, 2)  # [image, patch, channel]
    whole = F.layer_norm(maps.float(), maps.shape[1:], eps=1e-5)
    return {name: whole for name in CNN_FACETS if name in facets}


def as_it_left_relu(backbone: Backbone, features: PatchFeatures, facet: str) -> PatchFeatures:
    """``features`` of ``backbone`` without the standardisation of :func:`cnn_facets`, made for LOST's products.

    The map of each image comes back up to a positive factor, which directions do not see: its smallest entry was a zero
    of the last ReLU. Features of a transformer are returned as they are. Raises :class:`ParameterError` for a facet
    that was not extracted.
    """
    if backbone.family != "cnn":
        return features
    standard = features.facet(facet)
    changed: dict[str, Any] = {facet: standard - standard.amin((1, 2), keepdim=True)}
    return replace(features, **changed)
