"""The control that learned features must beat: the colours of a patch and how much they vary, and nothing more."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from foundling.discovery.lost import lost, lost_facets
from foundling.types import Discovery, ParameterError, PatchFeatures


def colour_lost(features: PatchFeatures, k: int = 100) -> list[Discovery]:
    """LOST on colours instead of a network's features: the control for what an easy picture gives away.

    Needs the ``images`` facet; patches are those of the network (see :func:`colour_features`). ``k`` as for
    :func:`lost`. Returns one :class:`Discovery` an image. Raises :class:`ParameterError` for ``k`` below 1.
    """
    colour_lost_facets(k)
    return lost(with_colour_keys(features), k)


def colour_lost_facets(k: int = 100) -> tuple[str, ...]:
    """The pictures; raises :class:`ParameterError` if ``k`` is not legal."""
    lost_facets(k)
    return ("images",)


def with_colour_keys(features: PatchFeatures) -> PatchFeatures:
    """The same images, grid and sizes with colours (see :func:`colour_features`) in place of the network's keys.

    Needs the ``images`` facet.
    """
    pictures = features.facet("images")
    keys = torch.cat([colour_features([picture], features.patch_size).facet("keys") for picture in pictures])
    return replace(features, keys=keys)


def colour_features(
    images: Sequence[Image.Image], patch_size: int = 8, names: Sequence[str] | None = None
) -> PatchFeatures:
    """Features of six numbers a patch: mean and standard deviation of its red, green and blue, centred per image.

    ``images`` must all have one size; ``patch_size`` is in pixels; ``names`` default to the images' positions. A patch
    that reaches over the right or bottom edge is described by its pixels inside the image. Values are in 0..1 before
    the image's own mean over patches is taken off, which gives methods that look for the sign of a product their
    signs. Because nothing is learned, what LOST finds with them is what colour alone explains.

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
    mean, deviation = patch_moments(pixels, patch_size)
    rows, columns = mean.shape[-2:]
    keys = torch.cat([mean, deviation], 1).flatten(2).transpose(1, 2)  # [image, patch, 6]
    sizes = torch.tensor([[i.height, i.width] for i in images])
    return PatchFeatures(
        grid=(rows, columns),
        patch_size=patch_size,
        image_sizes=sizes,
        original_sizes=sizes,
        names=names,
        indices=tuple(range(len(images))),
        keys=keys - keys.mean(1, keepdim=True),
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
