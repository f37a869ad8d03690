"""What SOLOv2 sees of a batch: images resized, mirrored, changed, with objects of other images pasted into them.

As FreeSOLO has it (Wang et al. 2022; its code): a weak view is resized and mirrored; a strong one is the same with
other colours and parts painted over, and then with objects of the weak view of another image pasted in. Masks follow
what moves, and what is pasted, not what is painted. All random numbers come from a generator on the CPU.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Generator, Tensor

from foundling.training.instance.images import MaskedBatch
from foundling.training.instance.losses import alike
from foundling.training.instance.settings import MASK_STRIDE, Solo
from foundling.training.instance.targets import Positives, assign, quartered
from foundling.training.views import augment, uniform

BLUR = 0.5  # probability
# probability, smallest and largest share of the image, smallest and largest height over width
ERASINGS = ((0.7, 0.05, 0.2, 0.3, 3.3), (0.5, 0.02, 0.2, 0.1, 6.0), (0.3, 0.02, 0.2, 0.05, 8.0))
TRIES = 10  # draws of a part before the image stays as it is


class View(NamedTuple):
    """One image in 0..1 and its masks, none empty; ``rows`` at its top have colours that count."""

    image: Float[Tensor, "3 h w"]
    masks: Bool[Tensor, "object h w"]
    rows: int


class SoloViews(NamedTuple):
    """The network's input in 0..1, padded on the right and at the bottom to one size, and what it is to say of it.

    Masks, and what is ``alike`` (None where no loss asks), are at a quarter of that size.
    """

    images: Float[Tensor, "image 3 h w"]
    inside: Bool[Tensor, "image 1 h w"]
    masks: list[Bool[Tensor, "_ r c"]]
    positives: list[Positives]
    alike: Bool[Tensor, "image 8 r c"] | None


def make_views(batch: MaskedBatch, settings: Solo, cell: int, generator: Generator) -> SoloViews:
    """The strong views of a batch, and with ``settings.weak_views`` the weak ones after them.

    Padded sides are multiples of ``cell`` pixels, itself a multiple of 4.
    """
    weak = [weak_view(image, masks, settings, generator) for image, masks in zip(*batch[:2], strict=True)]
    strong = [View(strong_image(v.image, settings, generator), v.masks, v.rows) for v in weak]
    if settings.copy_paste and len(weak) > 1:
        pairs = zip(strong, reversed(weak), strict=True)
        strong = [paste_some(view, source, settings.paste_cover, generator) for view, source in pairs]
    return finished([*strong, *weak] if settings.weak_views else strong, settings, cell)


def finished(views: list[View], settings: Solo, cell: int) -> SoloViews:
    """Views as one padded batch, with the cells that stand for their objects."""
    size = padded_size([v.image.shape[-2:] for v in views], cell)
    images = torch.stack([pad(v.image, size) for v in views])
    inside = torch.stack([pad(torch.ones_like(v.image[:1]), size) for v in views]) > 0
    masks, positives = [], []
    for view in views:
        small = quartered(view.masks, size)
        seen = small.flatten(1).any(1)  # what is too small for a cell of the masks is not to be found
        masks.append(small[seen])
        positives.append(assign(view.masks[seen], size, settings.grids, settings.scales, settings.centre))
    near = None
    if settings.pairwise_weight:
        counted = torch.stack([pad(torch.ones_like(v.image[:1, : v.rows]), size) for v in views])
        valid = F.avg_pool2d(counted, MASK_STRIDE)[:, 0] == 1
        near = alike(F.avg_pool2d(images, MASK_STRIDE), valid, settings.colour_likeness)
    return SoloViews(images, inside, masks, positives, near)


# Sizes


def fit(size: tuple[int, int], shorter: int, longest: int) -> tuple[int, int]:
    """Height and width scaled so that the shorter is ``shorter``, or the longer ``longest`` if that is less."""
    scale = min(shorter / min(size), longest / max(size))
    return max(1, int(size[0] * scale + 0.5)), max(1, int(size[1] * scale + 0.5))


def padded_size(sizes: Sequence[Sequence[int]], cell: int) -> tuple[int, int]:
    """Height and width that hold all of ``sizes``, multiples of ``cell``."""
    height, width = (math.ceil(max(size[axis] for size in sizes) / cell) * cell for axis in (0, 1))
    return height, width


def pad(image: Float[Tensor, "channel h w"], size: tuple[int, int]) -> Float[Tensor, "channel height width"]:
    """The image with zeros on the right and at the bottom."""
    return F.pad(image, (0, size[1] - image.shape[2], 0, size[0] - image.shape[1]))


def resize_image(image: Float[Tensor, "3 _ _"], size: tuple[int, int]) -> Float[Tensor, "3 h w"]:
    """Bilinear, smoothed first where it shrinks."""
    if tuple(image.shape[1:]) == size:
        return image
    return F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]


def resize_masks(masks: Bool[Tensor, "object _ _"], size: tuple[int, int]) -> Bool[Tensor, "object h w"]:
    """Masks of which every pixel is that nearest in the original."""
    if tuple(masks.shape[1:]) == size:
        return masks
    return F.interpolate(masks[:, None].to(torch.uint8), size, mode="nearest-exact")[:, 0] > 0


# Views


def weak_view(
    pixels: UInt8[Tensor, "3 height width"],
    masks: Bool[Tensor, "object height width"],
    settings: Solo,
    generator: Generator,
) -> View:
    """The image at one of the sizes, mirrored or not; masks of which nothing is left are dropped."""
    shorter = settings.min_sizes[int(torch.randint(len(settings.min_sizes), (), generator=generator))]
    mirrored = bool(torch.rand((), generator=generator) < 0.5)
    height = pixels.shape[1]
    size = fit((height, pixels.shape[2]), shorter, settings.max_size)
    image, masks = resize_image(pixels.float() / 255, size), resize_masks(masks, size)
    if mirrored:
        image, masks = image.flip(-1), masks.flip(-1)
    rows = max(0, size[0] - math.ceil(settings.bottom * size[0] / height))
    return View(image, masks[masks.flatten(1).any(1)], rows)


def strong_image(image: Float[Tensor, "3 h w"], settings: Solo, generator: Generator) -> Float[Tensor, "3 h w"]:
    """Other colours (those of Odin's views: saturation changes by 0.2, FreeSOLO's by 0.4), blur, parts painted over."""
    if settings.strength:
        blur = BLUR * settings.strength
        image = augment(image[None], generator, blur=blur, solarise=0.0, strength=settings.strength)[0]
    for probability, *ranges in ERASINGS if settings.erase else ():
        if float(torch.rand((), generator=generator)) < probability * settings.erase:
            image = erase(image, generator, *ranges)
    return image


def erase(
    image: Float[Tensor, "3 h w"], generator: Generator, least: float, most: float, low: float, high: float
) -> Float[Tensor, "3 h w"]:
    """The image with noise in a rectangle of a share ``least`` to ``most`` of it.

    Its height over its width is ``low`` to ``high``. The image stays as it is where ten draws give none that fits.
    """
    height, width = image.shape[1:]
    for _ in range(TRIES):
        share, place, top, left = uniform(generator, (4,)).tolist()
        area = (least + share * (most - least)) * height * width
        ratio = math.exp(math.log(low) + place * math.log(high / low))
        h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < h < height and 0 < w < width:
            y, x = int(top * (height - h + 1)), int(left * (width - w + 1))
            image = image.clone()
            image[:, y : y + h, x : x + w] = uniform(generator, (3, h, w)).to(image.device)
            return image
    return image


# Copy and paste (Ghiasi et al. 2021)


def paste_some(view: View, source: View, cover: float, generator: Generator) -> View:
    """``view`` with some objects of ``source``, from none to all, pasted in; see :func:`paste`."""
    count = int(torch.randint(len(source.masks) + 1, (), generator=generator))
    chosen = torch.randperm(len(source.masks), generator=generator)[:count]
    return paste(view, source, chosen.to(view.image.device).sort().values, cover) if count else view


def paste(view: View, source: View, chosen: Tensor, cover: float) -> View:
    """``view`` with the objects ``chosen`` of ``source``, which is stretched to its size, pasted over what it holds.

    An object that would cover the share ``cover`` or more of one that is there is not pasted. Those that are there lose
    what is covered of them; one of which nothing is left is dropped.
    """
    size = (view.image.shape[1], view.image.shape[2])
    image, pasted = resize_image(source.image, size), resize_masks(source.masks[chosen], size)
    there = view.masks.flatten(1).float()
    shares = pasted.flatten(1).float() @ there.T / there.sum(1).clamp(min=1)  # [pasted, there]
    pasted = pasted[pasted.flatten(1).any(1) & (shares < cover).all(1)]
    if not len(pasted):
        return view
    region = pasted.any(0)
    masks = torch.cat([view.masks & ~region, pasted])
    return View(torch.where(region, image, view.image), masks[masks.flatten(1).any(1)], view.rows)
