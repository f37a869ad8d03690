"""Segments that no network makes, on a network's patch grid: what overlap measures without anything learned."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from foundling.discovery.colour import colour_features
from foundling.discovery.kmeans import generators, kmeans_levels
from foundling.types import PatchFeatures, WeightsError

CONTROLS = {
    "grid": "k rectangles",
    "colour_mean": "mean colours of patches",
    "colour_mean_centred": "the same less their mean over the image",
    "colour": "mean colours of patches and their deviations",
    "colour_centred": "the same less their mean over the image",
    "colour_position": "mean colours, deviations, rows and columns of patches, all in 0..1",
}  # all but the first clustered by k-means, on unit vectors as features are


def control_levels(
    label: str, features: PatchFeatures, ks: Sequence[int], iterations: int, seed: int
) -> Int[np.ndarray, "image level rows columns"]:
    """The segments of one of :data:`CONTROLS` in the pictures (the facet ``images``) of ``features``."""
    if label == "grid":
        return np.broadcast_to(grid_levels(features.grid, ks), (len(features), len(ks), *features.grid))
    deviation, centre = not label.startswith("colour_mean"), label.endswith("_centred")
    pictures = features.facet("images")
    x = colour_features(pictures, features.patch_size, features.names, deviation, centre).facet("keys")
    if label == "colour_position":
        places = torch.cartesian_prod(*(torch.linspace(0, 1, n) for n in features.grid))  # in the order of patches
        x = torch.cat([x, places.expand(len(x), -1, -1)], -1)
    return feature_levels(features, x, ks, iterations, seed)


def feature_levels(
    features: PatchFeatures,
    x: Float[Tensor, "image patch channel"],
    ks: Sequence[int],
    iterations: int,
    seed: int,
) -> Int[np.ndarray, "image level rows columns"]:
    """The clusters of ``x``, one vector a patch of ``features``, for each of ``ks``.

    Raises :class:`WeightsError` where a vector is not finite.
    """
    if not torch.isfinite(x).all():
        raise WeightsError(
            f"{features.names[0]} or an image of its batch has features that are not finite: the weights are damaged, "
            "or their precision does not suffice (use fp32)"
        )
    levels = kmeans_levels(x, ks, generators(features.names, seed), iterations)
    return levels.cpu().numpy().reshape(*levels.shape[:2], *features.grid)


def grid_levels(grid: tuple[int, int], ks: Sequence[int]) -> Int[np.ndarray, "level rows columns"]:
    """For each k, the cells of ``grid`` (rows, columns) in k rectangles of nearly equal size, as square as k allows."""
    rows, columns = grid
    levels = []
    for k in ks:
        down = max(n for n in range(1, int(k**0.5) + 1) if k % n == 0)
        across = k // down
        levels.append((np.arange(rows) * down // rows)[:, None] * across + np.arange(columns) * across // columns)
    return np.stack(levels)
