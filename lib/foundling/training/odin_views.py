"""Views for Odin (appendix A.1): two random windows of an image, the view that spans both, and masks carried along.

Windows are ``(x0, y0, x1, y1)`` as fractions of whatever they are cut from. Everything is batched and drawn from a
generator that the caller seeds, so that a training step is a function of its images and its number.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Generator, Tensor
from torchvision.ops import roi_align

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GREY = (0.299, 0.587, 0.114)


class Views(NamedTuple):
    """Two augmented views, the spanning view, and where the windows lie in the spanning view."""

    span: Float[Tensor, "image 3 s s"]
    images: tuple[Float[Tensor, "image 3 p p"], Float[Tensor, "image 3 p p"]]
    windows: tuple[Float[Tensor, "image 4"], Float[Tensor, "image 4"]]
    flips: tuple[Bool[Tensor, " image"], Bool[Tensor, " image"]]


def uniform(generator: Generator, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> Tensor:
    """Uniform numbers of the given shape between ``low`` and ``high``."""
    return low + (high - low) * torch.rand(shape, generator=generator)


def sample_windows(count: int, generator: Generator, min_area: float = 0.08) -> Float[Tensor, "image 4"]:
    """Random windows of area U[min_area, 1] and log-uniform aspect 3/4..4/3, sides clipped to the image."""
    area = uniform(generator, (count,), min_area, 1.0)
    aspect = torch.exp(uniform(generator, (count,), -1.0, 1.0) * torch.log(torch.tensor(4 / 3)))
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    x0, y0 = uniform(generator, (count,)) * (1 - width), uniform(generator, (count,)) * (1 - height)
    return torch.stack([x0, y0, x0 + width, y0 + height], 1)


def spanning_window(first: Float[Tensor, "image 4"], second: Float[Tensor, "image 4"]) -> Float[Tensor, "image 4"]:
    """The smallest window that contains both."""
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    return torch.cat([low[:, :2], high[:, 2:]], 1)


def relative(window: Float[Tensor, "image 4"], frame: Float[Tensor, "image 4"]) -> Float[Tensor, "image 4"]:
    """``window`` in fractions of ``frame``."""
    origin, size = frame[:, :2], frame[:, 2:] - frame[:, :2]
    return (window - origin.repeat(1, 2)) / size.repeat(1, 2)


def crop(
    maps: Float[Tensor, "image channel r c"], windows: Float[Tensor, "image 4"], side: int
) -> Float[Tensor, "image channel side side"]:
    """Cut a window out of every map and resize it to ``side``; each output cell averages what it covers."""
    rows, columns = maps.shape[-2:]
    scale = torch.tensor([columns, rows, columns, rows], dtype=maps.dtype)
    boxes = torch.cat([torch.arange(len(maps), dtype=maps.dtype)[:, None], windows * scale], 1)
    return roi_align(maps, boxes, side, sampling_ratio=2, aligned=True)


def flip(maps: Float[Tensor, "image ..."], flips: Bool[Tensor, " image"]) -> Float[Tensor, "image ..."]:
    """Mirror the last axis of those images that ``flips`` names."""
    return torch.where(flips.view(-1, *[1] * (maps.ndim - 1)), maps.flip(-1), maps)


def carry_masks(
    masks: Float[Tensor, "image mask r c"],
    window: Float[Tensor, "image 4"],
    flips: Bool[Tensor, " image"],
    side: int,
) -> Float[Tensor, "image mask cell"]:
    """Masks of the spanning view as masks of one view: cut, flipped, resized to its ``side`` x ``side`` grid (§3.1).

    A cell belongs to the mask that covers most of it (the first of equals), so that masks stay disjoint and exhaustive.
    """
    share = flip(crop(masks, window, side), flips).flatten(2)
    return F.one_hot(share.argmax(1), masks.shape[1]).movedim(-1, 1).to(masks.dtype)


def make_views(
    images: UInt8[Tensor, "image 3 h w"],
    generator: Generator,
    span_side: int,
    view_side: int,
    min_area: float,
    strength: float = 1.0,
) -> Views:
    """Draw the three views of a batch; ``images`` are RGB, sides are in pixels, ``strength`` is that of the colours."""
    pixels, count = images.float() / 255, len(images)
    boxes = [sample_windows(count, generator, min_area) for _ in range(2)]
    frame = spanning_window(*boxes)
    flips = [uniform(generator, (count,)) < 0.5 for _ in range(2)]
    views = []
    for i in range(2):
        view = flip(crop(pixels, boxes[i], view_side), flips[i])
        views.append(normalise(augment(view, generator, (1.0, 0.1)[i], (0.0, 0.2)[i], strength)))
    windows = [relative(box, frame) for box in boxes]
    span = normalise(crop(pixels, frame, span_side))
    return Views(span, (views[0], views[1]), (windows[0], windows[1]), (flips[0], flips[1]))


def normalise(images: Float[Tensor, "image 3 h w"]) -> Float[Tensor, "image 3 h w"]:
    """RGB in 0..1 to the network's input."""
    return (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def augment(
    images: Float[Tensor, "image 3 h w"], generator: Generator, blur: float, solarise: float, strength: float = 1.0
) -> Float[Tensor, "image 3 h w"]:
    """Colour jitter (p 0.8), grey (p 0.2), blur and solarisation with the given probabilities (appendix A.1).

    ``strength`` (0..1) scales the jitter's ranges and the probabilities of grey and solarisation. The jitter's parts
    come in one order (brightness, contrast, saturation, hue), where the paper shuffles them.
    """
    count = len(images)

    def draw(spread: float, centre: float = 0.0) -> Tensor:
        return uniform(generator, (count, 1, 1, 1), centre - spread, centre + spread)

    def chance(p: float) -> Tensor:
        return draw(0.5, 0.5) < p

    jittered = (images + draw(0.4 * strength)).clamp(0, 1)
    mean = jittered.mean((1, 2, 3), keepdim=True)
    jittered = (mean + (jittered - mean) * draw(0.4 * strength, 1.0)).clamp(0, 1)
    jittered = turn_colours(jittered, draw(0.2 * strength, 1.0).flatten(), draw(0.1 * strength).flatten())
    images = torch.where(chance(0.8), jittered, images)
    images = torch.where(chance(0.2 * strength), _grey(images), images)
    images = torch.where(chance(blur), _blur(images, draw(0.95, 1.05).flatten() * images.shape[-1] / 224), images)
    return torch.where(chance(solarise * strength) & (images >= 0.5), 1 - images, images)


def turn_colours(
    images: Float[Tensor, "image 3 h w"], saturation: Float[Tensor, " image"], hue: Float[Tensor, " image"]
) -> Float[Tensor, "image 3 h w"]:
    """Scale the chroma and turn the hue (in turns) about the grey axis, in the YIQ plane; clipped to 0..1."""
    to_yiq = torch.tensor([GREY, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)])
    c, s = saturation * torch.cos(2 * torch.pi * hue), saturation * torch.sin(2 * torch.pi * hue)
    zero, one = torch.zeros_like(c), torch.ones_like(c)
    turn = torch.stack([one, zero, zero, zero, c, -s, zero, s, c], 1).view(-1, 3, 3)
    matrix = torch.linalg.inv(to_yiq) @ turn @ to_yiq
    return torch.einsum("bij,bjhw->bihw", matrix, images).clamp(0, 1)


def _grey(images: Float[Tensor, "image 3 h w"]) -> Float[Tensor, "image 3 h w"]:
    return (images * torch.tensor(GREY).view(3, 1, 1)).sum(1, keepdim=True).expand_as(images)


def _blur(images: Float[Tensor, "image 3 h w"], sigma: Float[Tensor, " image"]) -> Float[Tensor, "image 3 h w"]:
    """Gaussian blur with one sigma (pixels) an image, 23/224 of the side wide."""
    count, _, side, _ = images.shape
    reach = max(1, round(23 / 224 * side / 2))
    offset = torch.arange(-reach, reach + 1)
    kernel = torch.exp(-0.5 * (offset / sigma[:, None].clamp(min=1e-3)) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0)[:, None, None]
    planes = F.pad(images.reshape(1, count * 3, side, side), (reach,) * 4, mode="reflect")
    rows = F.conv2d(planes, kernel, groups=count * 3)
    return F.conv2d(rows, kernel.transpose(-1, -2), groups=count * 3).view_as(images)
