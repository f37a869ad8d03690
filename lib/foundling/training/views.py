"""Views of images (Odin, appendix A.1) and masks carried along; batched, on the images' device.

Windows are ``(x0, y0, x1, y1)`` as fractions of whatever they are cut from. All random numbers are drawn on the CPU
from a generator that the caller seeds: a training step is a function of its images and its number, on every device.
"""

import functools
import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Generator, Tensor

from foundling.backbones import apply

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GREY = (0.299, 0.587, 0.114)
JITTER_PROBABILITY, GREY_PROBABILITY = 0.8, 0.2
BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.4, 0.4, 0.2, 0.1
BLUR_PROBABILITY, SOLARISE_PROBABILITY = (1.0, 0.1), (0.0, 0.2)  # of T1 and T2
BLUR_WIDTH, BLUR_SIGMA, BLUR_SIDE = 23, (0.1, 2.0), 224  # pixels of an image so many pixels wide


class Views(NamedTuple):
    """Two augmented views, the spanning view if it was asked for, and where the views lie.

    ``windows`` are fractions of the spanning view, or of the whole image where there is no spanning view.
    """

    images: tuple[Float[Tensor, "image 3 p p"], Float[Tensor, "image 3 p p"]]
    windows: tuple[Float[Tensor, "image 4"], Float[Tensor, "image 4"]]
    flips: tuple[Bool[Tensor, " image"], Bool[Tensor, " image"]]
    span: Float[Tensor, "image 3 s s"] | None


def make_views(
    images: UInt8[Tensor, "image 3 h w"],
    generator: Generator,
    view_side: int,
    span_side: int | None,
    min_area: float = 0.08,
    strength: float = 1.0,
) -> Views:
    """Draw two views of every image, from T1 and T2 of appendix A.1, and the smallest window that contains both.

    ``images`` are RGB; sides are in pixels, and whatever is smaller is enlarged. No spanning view is made where
    ``span_side`` is None. ``strength`` (0..1) is that of the changes of colour, see :func:`augment`. The result is
    normalised.
    """
    pixels, count = images.float() / 255, len(images)
    boxes = [sample_windows(count, generator, min_area) for _ in range(2)]
    flips = [uniform(generator, (count,)) < 0.5 for _ in range(2)]
    views = []
    for box, flip, blur, solarise in zip(boxes, flips, BLUR_PROBABILITY, SOLARISE_PROBABILITY, strict=True):
        view = crop(pixels, box, view_side, flip)
        views.append(normalise(augment(view, generator, blur, solarise, strength)))
    span = None
    if span_side is not None:
        frame = spanning_window(*boxes)
        span = normalise(crop(pixels, frame, span_side))
        boxes = [relative(box, frame) for box in boxes]
    device = images.device
    return Views(
        (views[0], views[1]),
        (boxes[0].to(device), boxes[1].to(device)),
        (flips[0].to(device), flips[1].to(device)),
        span,
    )


@functools.cache
def warn_if_enlarged(image_side: int, view_side: int) -> None:
    """Warn, once, where views have more pixels than whole images: they show no more than these."""
    if image_side < view_side:
        warnings.warn(
            f"images {image_side} pixels wide are enlarged to views of {view_side} (bicubic): "
            "train on larger images, or on smaller views",
            stacklevel=3,
        )


# Windows


def uniform(generator: Generator, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> Float[Tensor, "..."]:
    """Uniform numbers of the given shape between ``low`` and ``high``, on the CPU."""
    return low + (high - low) * torch.rand(shape, generator=generator)


def sample_windows(
    count: int, generator: Generator, min_area: float = 0.08, max_area: float = 1.0
) -> Float[Tensor, "image 4"]:
    """Windows of area U[min_area, max_area] and log-uniform aspect 3/4..4/3, on the CPU.

    Sides that are too long are clipped to the image, as DetCon does; others draw again.
    """
    area = uniform(generator, (count,), min_area, max_area)
    aspect = torch.exp(uniform(generator, (count,), -1.0, 1.0) * torch.log(torch.tensor(4 / 3)))
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    x0, y0 = uniform(generator, (count,)) * (1 - width), uniform(generator, (count,)) * (1 - height)
    return torch.stack([x0, y0, x0 + width, y0 + height], 1)


def whole(count: int) -> Float[Tensor, "image 4"]:
    """Windows that hold all of their images."""
    return torch.tensor([[0.0, 0.0, 1.0, 1.0]]).expand(count, -1)


def spanning_window(first: Float[Tensor, "image 4"], second: Float[Tensor, "image 4"]) -> Float[Tensor, "image 4"]:
    """The smallest window that contains both."""
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    return torch.cat([low[:, :2], high[:, 2:]], 1)


def relative(window: Float[Tensor, "image 4"], frame: Float[Tensor, "image 4"]) -> Float[Tensor, "image 4"]:
    """``window`` in fractions of ``frame``."""
    origin, size = frame[:, :2], frame[:, 2:] - frame[:, :2]
    return (window - origin.repeat(1, 2)) / size.repeat(1, 2)


# Resampling. It is separable: a matrix for the rows and one for the columns of every image.


def crop(
    images: Float[Tensor, "image channel h w"],
    windows: Float[Tensor, "image 4"],
    side: int,
    flips: Bool[Tensor, " image"] | None = None,
) -> Float[Tensor, "image channel side side"]:
    """Cut a window out of every image, mirror it if its flip says so, and resize it to ``side`` pixels.

    Bicubic, over a wider reach where it shrinks, so that nothing aliases (Pillow's BICUBIC). Images have values 0..1,
    and so has the result.
    """
    return _resample(images, windows, side, flips, _bicubic).clamp(0, 1)


def carry_masks(
    masks: Float[Tensor, "image mask r c"],
    windows: Float[Tensor, "image 4"],
    flips: Bool[Tensor, " image"],
    side: int,
) -> Float[Tensor, "image mask side side"]:
    """Masks of the spanning view as masks of one view: cut, flipped, resized to its ``side`` x ``side`` grid (§3.1).

    ``masks`` are 0 or 1. A cell belongs to the mask that covers most of it (the first of equals): where masks were
    disjoint and exhaustive they stay so, and none has part of a cell.
    """
    share = _resample(masks, windows, side, flips, _coverage)
    return torch.zeros_like(share).scatter_(1, share.argmax(1, keepdim=True), 1.0)


def _resample(
    maps: Tensor,
    windows: Tensor,
    side: int,
    flips: Tensor | None,
    weights: Callable[[Tensor, Tensor, int], Tensor],
) -> Tensor:
    x0, y0, x1, y1 = windows.to(maps.device, maps.dtype).unbind(1)
    rows, columns = maps.shape[-2:]
    step = (torch.arange(side, device=maps.device, dtype=maps.dtype) + 0.5) / side
    down, across = ((high - low)[:, None] for low, high in ((y0, y1), (x0, x1)))
    vertical = weights((y0[:, None] + step * down) * rows, down * rows / side, rows)
    horizontal = weights((x0[:, None] + step * across) * columns, across * columns / side, columns)
    if flips is not None:
        horizontal = torch.where(flips.to(maps.device)[:, None, None], horizontal.flip(1), horizontal)
    return _multiply(vertical, maps, horizontal)


def _multiply(
    vertical: Float[Tensor, "image row r"],
    maps: Float[Tensor, "image channel r c"],
    horizontal: Float[Tensor, "image column c"],
) -> Float[Tensor, "image channel row column"]:
    """Resample the rows and the columns of every image with its two matrices, in full precision."""
    with torch.autocast(maps.device.type, enabled=False):
        across = maps.flatten(1, 2) @ horizontal.transpose(1, 2)
        return vertical[:, None] @ across.unflatten(1, maps.shape[1:3])


def _bicubic(centre: Tensor, scale: Tensor, length: int) -> Tensor:
    """Keys' kernel (a = -1/2) around every output pixel's ``centre``, ``scale`` input pixels wide or one if less."""
    pixel = torch.arange(length, device=centre.device, dtype=centre.dtype) + 0.5
    x = ((pixel - centre[..., None]) / scale.clamp(min=1)[..., None]).abs()
    near, far = (1.5 * x - 2.5) * x**2 + 1, ((2.5 - 0.5 * x) * x - 4) * x + 2
    weights = torch.where(x < 1, near, torch.where(x < 2, far, 0.0))
    return weights / weights.sum(-1, keepdim=True)


def _coverage(centre: Tensor, scale: Tensor, length: int) -> Tensor:
    """The share of every output cell that every input cell covers."""
    start = torch.arange(length, device=centre.device, dtype=centre.dtype)
    low, high = (centre - scale / 2)[..., None], (centre + scale / 2)[..., None]
    return (torch.minimum(high, start + 1) - torch.maximum(low, start)).clamp(min=0) / scale[..., None]


# Colours


def normalise(images: Float[Tensor, "image 3 h w"]) -> Float[Tensor, "image 3 h w"]:
    """RGB in 0..1 to the network's input."""
    return apply.normalise(images, MEAN, STD)


def augment(
    images: Float[Tensor, "image 3 h w"], generator: Generator, blur: float, solarise: float, strength: float = 1.0
) -> Float[Tensor, "image 3 h w"]:
    """Jitter (p 0.8, its four changes in an order of every image's own), grey (p 0.2), blur, solarisation (A.1).

    ``images`` are RGB in 0..1; ``blur`` and ``solarise`` are probabilities; ``strength`` (0..1) scales the jitter's
    ranges and the probabilities of grey and solarisation, 1 is the paper's.
    """
    count, images = len(images), images.clone()
    jittered = uniform(generator, (count,)) < JITTER_PROBABILITY
    order = torch.rand(count, 4, generator=generator).argsort(1)
    amounts = uniform(generator, (count, 4), -strength, strength) * torch.tensor(
        (BRIGHTNESS, CONTRAST, SATURATION, HUE)
    )
    for place in range(4):
        for i, change in enumerate((brighten, change_contrast, saturate, turn_hue)):
            _apply(images, jittered & (order[:, place] == i), change, amounts[:, i])
    _apply(images, uniform(generator, (count,)) < GREY_PROBABILITY * strength, grey)
    blurred, sigma = uniform(generator, (count,)) < blur, uniform(generator, (count,), *BLUR_SIGMA)
    _apply(images, blurred, blur_images, sigma * images.shape[-1] / BLUR_SIDE)
    _apply(images, uniform(generator, (count,)) < solarise * strength, invert_bright)
    return images


def _apply(
    images: Tensor, chosen: Bool[Tensor, " image"], change: Callable[..., Tensor], *amounts: Float[Tensor, " image"]
) -> None:
    """Change the chosen images in place; ``chosen`` and ``amounts`` are on the CPU, so that no device is waited for."""
    index = chosen.nonzero().flatten()
    if len(index):
        there = index.to(images.device)
        images[there] = change(images[there], *(a[index].to(images.device)[:, None, None, None] for a in amounts))


def brighten(
    images: Float[Tensor, "image 3 h w"], amount: Float[Tensor, "image 1 1 1"]
) -> Float[Tensor, "image 3 h w"]:
    """Add ``amount``; clipped to 0..1."""
    return (images + amount).clamp(0, 1)


def change_contrast(
    images: Float[Tensor, "image 3 h w"], amount: Float[Tensor, "image 1 1 1"]
) -> Float[Tensor, "image 3 h w"]:
    """Scale the differences from each channel's mean by 1 + ``amount``; clipped to 0..1."""
    mean = images.mean((2, 3), keepdim=True)
    return (mean + (images - mean) * (1 + amount)).clamp(0, 1)


def saturate(
    images: Float[Tensor, "image 3 h w"], amount: Float[Tensor, "image 1 1 1"]
) -> Float[Tensor, "image 3 h w"]:
    """Scale the saturation (of hue, saturation, value) by 1 + ``amount``, up to 1."""
    value, least = images.amax(1, keepdim=True), images.amin(1, keepdim=True)
    most = torch.where(value > least, value / (value - least), 1.0)
    return (value - (value - images) * torch.minimum(1 + amount, most)).clamp(0, 1)


def turn_hue(
    images: Float[Tensor, "image 3 h w"], amount: Float[Tensor, "image 1 1 1"]
) -> Float[Tensor, "image 3 h w"]:
    """Turn the hue (of hue, saturation, value) by ``amount`` turns."""
    red, green, blue = images.unbind(1)
    value, least = images.amax(1), images.amin(1)
    chroma = value - least
    # How far the hue lies from the strongest channel's, in sixths of a turn.
    sixths = torch.where(
        value == red, green - blue, torch.where(value == green, blue - red + 2 * chroma, red - green + 4 * chroma)
    )
    sixths = sixths / torch.where(chroma > 0, chroma, 1.0) + 6 * amount[:, 0]
    place = sixths[:, None] + torch.tensor([5, 3, 1], device=images.device).view(3, 1, 1)
    place -= 6 * (place / 6).floor()
    return value[:, None] - chroma[:, None] * torch.minimum(place, 4 - place).clamp(0, 1)


def grey(images: Float[Tensor, "image 3 h w"]) -> Float[Tensor, "image 3 h w"]:
    """The luma in all three channels."""
    luma = torch.tensor(GREY, device=images.device, dtype=images.dtype).view(3, 1, 1)
    return (images * luma).sum(1, keepdim=True).expand_as(images)


def invert_bright(images: Float[Tensor, "image 3 h w"]) -> Float[Tensor, "image 3 h w"]:
    """Solarisation: values of one half and more are inverted."""
    return torch.where(images >= 0.5, 1 - images, images)


def blur_images(
    images: Float[Tensor, "image 3 h w"], sigma: Float[Tensor, "image 1 1 1"]
) -> Float[Tensor, "image 3 h w"]:
    """Gaussian blur, ``sigma`` in pixels; the kernel has 23 pixels at a side of 224 and is cut at the border."""
    height, width = images.shape[-2:]
    rows = _gaussian(sigma[:, 0], height)
    columns = rows if height == width else _gaussian(sigma[:, 0], width)
    return _multiply(rows, images, columns)


def _gaussian(sigma: Float[Tensor, "image 1 1"], length: int) -> Float[Tensor, "image length length"]:
    reach = max(1, BLUR_WIDTH * length // BLUR_SIDE // 2)
    at = torch.arange(length, device=sigma.device)
    apart = (at[:, None] - at)[None]
    weights = torch.exp(-0.5 * (apart / sigma) ** 2) * (apart.abs() <= reach)
    return weights / weights.sum(-1, keepdim=True)
