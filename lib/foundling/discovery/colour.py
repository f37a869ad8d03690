"""The control that learned features must beat: the colours of a patch and how much they vary, and nothing more."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from foundling.discovery.facets import check_switch
from foundling.discovery.lost import lost, lost_facets
from foundling.discovery.tokencut import tokencut, tokencut_facets
from foundling.types import Discovery, ParameterError, PatchFeatures


def colour_lost(features: PatchFeatures, k: int = 100, deviation: bool = True, centre: bool = True) -> list[Discovery]:
    """LOST on colours instead of a network's features: the control for what an easy picture gives away.

    Needs the ``images`` facet; patches are those of the network (see :func:`colour_features`, also for ``deviation``
    and ``centre``). ``k`` as for :func:`lost`. Returns one :class:`Discovery` an image. Raises :class:`ParameterError`
    for ``k`` below 1 or a setting that is neither true nor false.
    """
    colour_lost_facets(k, deviation, centre)
    return lost(with_colour_keys(features, deviation, centre), k)


def colour_lost_facets(k: Any = 100, deviation: Any = True, centre: Any = True) -> tuple[str, ...]:
    """The pictures; raises :class:`ParameterError` if a setting is not legal."""
    lost_facets(k)
    check_switch("deviation", deviation)
    check_switch("centre", centre)
    return ("images",)


def colour_tokencut(
    features: PatchFeatures, tau: float | int = 0.2, deviation: bool = True, centre: bool = True
) -> list[Discovery]:
    """TokenCut on colours: as :func:`colour_lost`, ``tau`` as for :func:`tokencut`."""
    colour_tokencut_facets(tau, deviation, centre)
    return tokencut(with_colour_keys(features, deviation, centre), tau)


def colour_tokencut_facets(tau: Any = 0.2, deviation: Any = True, centre: Any = True) -> tuple[str, ...]:
    """The pictures; raises :class:`ParameterError` if a setting is not legal."""
    tokencut_facets(tau)
    check_switch("deviation", deviation)
    check_switch("centre", centre)
    return ("images",)


def with_colour_keys(features: PatchFeatures, deviation: bool = True, centre: bool = True) -> PatchFeatures:
    """The same images, grid and sizes with colours (see :func:`colour_features`) in place of the network's keys.

    Needs the ``images`` facet.
    """
    pictures = features.facet("images")
    keys = [colour_features([i], features.patch_size, None, deviation, centre).facet("keys") for i in pictures]
    return replace(features, keys=torch.cat(keys))


def colour_features(
    images: Sequence[Image.Image],
    patch_size: int = 8,
    names: Sequence[str] | None = None,
    deviation: bool = True,
    centre: bool = True,
) -> PatchFeatures:
    """Features of six numbers a patch: mean and standard deviation of its red, green and blue, centred per image.

    ``images`` must all have one size; ``patch_size`` is in pixels; ``names`` default to the images' positions. A patch
    that reaches over the right or bottom edge is described by its pixels inside the image. Values are in 0..1 before
    the image's own mean over patches is taken off, which gives methods that look for the sign of a product their
    signs. Without ``deviation`` there are only the three means; without ``centre`` nothing is taken off. Because
    nothing is learned, what LOST finds with them is what colour alone explains.

    Returns features whose only facet is ``keys``.
    Raises ParameterError for no images, sizes that differ, a patch size below 1 or a wrong number of names.
    """
    if patch_size < 1:
        raise ParameterError(f"patch_size is {patch_size}: choose at least 1 pixel")
    if not images:
        raise ParameterError("colour_features needs at least one image")
    if other := sorted({f"{i.width}x{i.height}" for i in images} - {f"{images[0].width}x{images[0].height}"}):
        raise ParameterError(
            f"images of one batch must have one size, but there are {images[0].width}x{images[0].height} and "
            f"{other[0]} pixels: pass images of each size by themselves"
        )
    names = tuple(map(str, range(len(images)))) if names is None else tuple(names)
    if len(names) != len(images):
        raise ParameterError(f"{len(names)} names for {len(images)} images: give one name an image, or none")
    pixels = torch.from_numpy(np.stack([np.asarray(i.convert("RGB")) for i in images])).permute(0, 3, 1, 2) / 255
    mean, spread = patch_moments(pixels, patch_size)
    rows, columns = mean.shape[-2:]
    maps = torch.cat([mean, spread], 1) if deviation else mean
    keys = maps.flatten(2).transpose(1, 2)  # [image, patch, 6 or 3]
    sizes = torch.tensor([[i.height, i.width] for i in images])
    return PatchFeatures(
        grid=(rows, columns),
        patch_size=patch_size,
        image_sizes=sizes,
        original_sizes=sizes,
        names=names,
        indices=tuple(range(len(images))),
        keys=keys - keys.mean(1, keepdim=True) if centre else keys,
    )


def patch_moments(
    pixels: Float[Tensor, "image channel h w"], patch_size: int
) -> tuple[Float[Tensor, "image channel rows columns"], Float[Tensor, "image channel rows columns"]]:
    """Mean and (population) standard deviation of every patch, over its pixels inside the image."""
    height, width = pixels.shape[-2:]
    pad = (0, -width % patch_size, 0, -height % patch_size)

    def sums(x: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(x, pad), patch_size)

    inside = sums(torch.ones_like(pixels[:1, :1]))  # the share of each patch that is image
    mean = sums(pixels) / inside
    spread = F.interpolate(mean, scale_factor=patch_size, mode="nearest")[..., :height, :width]
    return mean, (sums((pixels - spread).square()) / inside).sqrt()
