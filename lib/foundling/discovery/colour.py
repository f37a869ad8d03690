"""The control that learned features must beat: the colours of a patch and how much they vary, and nothing more."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from foundling.discovery.facets import check_choice, check_switch
from foundling.discovery.lost import lost, lost_facets
from foundling.discovery.spectral import KS, spectral_facets, spectral_masks
from foundling.discovery.tokencut import tokencut, tokencut_facets
from foundling.types import Discovery, ParameterError, PatchFeatures

SPACES = {"rgb": 1e-6, "lab": 1e-4}  # colour space -> a deviation over the image that is no more than rounding


def colour_lost(
    features: PatchFeatures,
    k: int = 100,
    deviation: bool = True,
    centre: bool = True,
    space: str = "rgb",
    scale: bool = False,
) -> list[Discovery]:
    """LOST on colours instead of a network's features: the control for what an easy picture gives away.

    Needs the ``images`` facet; patches are those of the network. ``k`` as for :func:`lost`, the other settings as for
    :func:`colour_features`. Returns one :class:`Discovery` an image. Raises :class:`ParameterError` for a setting that
    is not legal.
    """
    colour_lost_facets(k, deviation=deviation, centre=centre, space=space, scale=scale)
    return lost(with_colour_keys(features, deviation=deviation, centre=centre, space=space, scale=scale), k)


def colour_lost_facets(k: Any = 100, **colours: Any) -> tuple[str, ...]:
    """The pictures; raises :class:`ParameterError` if a setting is not legal."""
    lost_facets(k)
    return colour_facets(**colours)


def colour_tokencut(
    features: PatchFeatures,
    tau: float | int = 0.2,
    deviation: bool = True,
    centre: bool = True,
    space: str = "rgb",
    scale: bool = False,
) -> list[Discovery]:
    """TokenCut on colours: as :func:`colour_lost`, ``tau`` as for :func:`tokencut`."""
    colour_tokencut_facets(tau, deviation=deviation, centre=centre, space=space, scale=scale)
    return tokencut(with_colour_keys(features, deviation=deviation, centre=centre, space=space, scale=scale), tau)


def colour_tokencut_facets(tau: Any = 0.2, **colours: Any) -> tuple[str, ...]:
    """The pictures; raises :class:`ParameterError` if a setting is not legal."""
    tokencut_facets(tau)
    return colour_facets(**colours)


def colour_spectral(
    features: PatchFeatures,
    ks: Sequence[int] = KS,
    deviation: bool = True,
    centre: bool = True,
    space: str = "rgb",
    scale: bool = False,
    seed: int = 0,
) -> list[Discovery]:
    """Spectral masks of colours: as :func:`colour_lost`, ``ks`` and ``seed`` as for :func:`spectral_masks`."""
    colour_spectral_facets(ks, seed=seed, deviation=deviation, centre=centre, space=space, scale=scale)
    described = with_colour_keys(features, deviation=deviation, centre=centre, space=space, scale=scale)
    return spectral_masks(described, ks, seed=seed)


def colour_spectral_facets(ks: Any = KS, seed: Any = 0, **colours: Any) -> tuple[str, ...]:
    """The pictures; raises :class:`ParameterError` if a setting is not legal."""
    spectral_facets(ks, seed=seed)
    return colour_facets(**colours)


def colour_facets(deviation: Any = True, centre: Any = True, space: Any = "rgb", scale: Any = False) -> tuple[str, ...]:
    """The pictures; raises :class:`ParameterError` if a setting of :func:`colour_features` is not legal."""
    for setting, value in (("deviation", deviation), ("centre", centre), ("scale", scale)):
        check_switch(setting, value)
    check_choice("space", space, tuple(SPACES))
    if scale and not centre:
        raise ParameterError(
            "scale is true and centre is false: what is scaled is centred first, so set centre to true"
        )
    return ("images",)


def with_colour_keys(features: PatchFeatures, **colours: Any) -> PatchFeatures:
    """The same images, grid and sizes with colours in place of the network's keys.

    Needs the ``images`` facet; ``colours`` are the settings of :func:`colour_features`.
    """
    pictures = features.facet("images")
    keys = [colour_features([i], features.patch_size, **colours).facet("keys") for i in pictures]
    return replace(features, keys=torch.cat(keys))


def colour_features(
    images: Sequence[Image.Image],
    patch_size: int = 8,
    names: Sequence[str] | None = None,
    deviation: bool = True,
    centre: bool = True,
    space: str = "rgb",
    scale: bool = False,
) -> PatchFeatures:
    """Features of six numbers a patch: mean and standard deviation of its red, green and blue, centred per image.

    ``images`` must all have one size; ``patch_size`` is in pixels; ``names`` default to the images' positions. A patch
    that reaches over the right or bottom edge is described by its pixels inside the image. Values are in 0..1 before
    the image's own mean over patches is taken off, which gives methods that look for the sign of a product their
    signs. Without ``deviation`` there are only the three means; without ``centre`` nothing is taken off. ``space`` is
    "rgb" or "lab" (CIELAB: lightness in 0..100, a, b). With ``scale`` each number is divided by its own deviation over
    the patches of the image, so that all weigh the same; one that does not vary stays 0. Because nothing is learned,
    what LOST finds with them is what colour alone explains.

    Returns features whose only facet is ``keys``.
    Raises ParameterError for no images, sizes that differ, a patch size below 1, a wrong number of names, or a setting
    that is not legal, such as ``scale`` without ``centre``.
    """
    colour_facets(deviation, centre, space, scale)
    _check(images, patch_size, names)
    mean, spread = patch_moments(torch.stack([_pixels(image, space) for image in images]), patch_size)
    maps = torch.cat([mean, spread], 1) if deviation else mean
    keys = maps.flatten(2).transpose(1, 2)  # [image, patch, 6 or 3]
    if centre:
        keys = keys - keys.mean(1, keepdim=True)
    if scale:
        over = keys.std(1, correction=0, keepdim=True)
        keys = torch.where(over > SPACES[space], keys / over, 0)
    sizes = torch.tensor([[i.height, i.width] for i in images])
    return PatchFeatures(
        grid=(mean.shape[2], mean.shape[3]),
        patch_size=patch_size,
        image_sizes=sizes,
        original_sizes=sizes,
        names=tuple(map(str, range(len(images)))) if names is None else tuple(names),
        indices=tuple(range(len(images))),
        keys=keys,
    )


def _check(images: Sequence[Image.Image], patch_size: int, names: Sequence[str] | None) -> None:
    if patch_size < 1:
        raise ParameterError(f"patch_size is {patch_size}: choose at least 1 pixel")
    if not images:
        raise ParameterError("colour_features needs at least one image")
    if other := sorted({f"{i.width}x{i.height}" for i in images} - {f"{images[0].width}x{images[0].height}"}):
        raise ParameterError(
            f"images of one batch must have one size, but there are {images[0].width}x{images[0].height} and "
            f"{other[0]} pixels: pass images of each size by themselves"
        )
    if names is not None and len(names) != len(images):
        raise ParameterError(f"{len(names)} names for {len(images)} images: give one name an image, or none")


def _pixels(image: Image.Image, space: str) -> Float[Tensor, "3 h w"]:
    """The colours of every pixel: RGB in 0..1, or CIELAB."""
    rgb = np.array(image.convert("RGB"), dtype=np.float32) / 255
    if space == "rgb":
        return torch.from_numpy(rgb).permute(2, 0, 1)
    # to linear light here: given sRGB, OpenCV looks Lab up in a coarse table, where no grey is quite grey
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return torch.from_numpy(cv2.cvtColor(linear.astype(np.float32), cv2.COLOR_LRGB2LAB)).permute(2, 0, 1)


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
