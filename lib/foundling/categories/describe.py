"""Objects → descriptors: one vector an object, from its crop seen by a frozen network.

The papers take the CLS token of the crop. A network whose training never touched its CLS token (those embedded here:
their objectives are made of patch tokens) says little through it; what its patch tokens are over the object, and how
much they differ there, is then the descriptor to take. Chosen on 500 training scenes with their true masks (128 px, 12
categories, spectral clustering, accuracy of scenes_odin and of two networks of random weights): CLS of COMUS's crop
22 % (19, 18); mean 24 % (24, 23), of grey crops 33 % (16, 16); "texture" of grey crops with the background painted over
52 % (20, 19), with the background kept 42 % (17, 19). Crops have 64 pixels there.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from pycocotools import mask as coco_mask
from torch import Tensor

from foundling.backbones import Backbone, extract
from foundling.backbones.cnn import cnn_facets
from foundling.backbones.extraction import PATCHES_A_BATCH, arithmetic
from foundling.backbones.prepare import Limits, read_ahead
from foundling.backbones.vit import Transformer, transformer_facets
from foundling.categories.crops import RECIPES, SIDE, Crop, Objects, as_bytes, check_images
from foundling.discovery.facets import PATCH_FACETS, check_choice, check_switch
from foundling.discovery.progress import progress as show_progress
from foundling.errors import ImageError, ParameterError
from foundling.types import Failure, Sample

DESCRIPTORS = ("cls", "mean", "texture")
BACKGROUNDS = ("keep", "mean")
PENDING_BATCHES = 4  # crops that wait for others of their size, in batches
ANY_NUMBER = 2**31  # of patches in a whole image: only its crops go through the network


@dataclass(frozen=True)
class _Plan:
    """What is the same for every object (see :func:`describe_objects`)."""

    backbone: Backbone
    recipe: str
    descriptor: str
    side: int
    facet: str
    block: int
    norm: str
    precision: str
    batch_size: int
    colour: bool
    background: str

    @property
    def asked(self) -> str:
        return "cls" if self.descriptor == "cls" else self.facet

    @property
    def channels(self) -> int:
        return self.backbone.channels * (2 if self.descriptor == "texture" else 1)


def describe_objects(
    backbone: Backbone,
    samples: Sequence[Sample],
    objects: Objects,
    recipe: str = "comus",
    descriptor: str = "cls",
    side: int = SIDE,
    *,
    facet: str = "tokens",
    block: int = -1,
    norm: str = "last",
    colour: bool = True,
    background: str = "keep",
    batch_size: int = 32,
    precision: str = "fp32",
    failures: list[Failure] | None = None,
    workers: int = 2,
    progress: bool = False,
) -> Float[np.ndarray, "object channel"]:
    """One descriptor an object, in float32 and in the order of ``objects``; nan where there is none.

    ``samples`` are the images that ``objects`` were found in. ``recipe`` cuts the objects out: ``"comus"`` (the tight
    box of the mask, ``side`` × ``side`` pixels) or ``"lost"`` (the box, its short side ``side`` pixels; descriptors
    of length 1), see :mod:`foundling.categories.crops`; sides are cut to a multiple of the patch size. ``descriptor``
    is ``"cls"``, the token of that name after the final norm (the papers), or ``"mean"``, the mean of the ``facet`` of
    the patches, weighted with how much of each belongs to the object's mask, or over the whole crop without a mask, or
    ``"texture"``, that mean and the deviation around it, each brought to length 1, one after the other.
    ``block``, ``norm`` and ``precision`` are those of :func:`foundling.backbones.extract`. Two more settings that are
    not in the papers: ``colour=False`` makes the images grey, and ``background="mean"`` paints what lies outside an
    object's mask in the network's mean colour.

    Each image is decoded once, by ``workers`` threads ahead of the network, and forgotten; crops of one size go through
    the network ``batch_size`` at a time. An object's descriptor does not depend on its batch but for rounding.

    An object that cannot be described (image unreadable, mask empty, box without a pixel) raises :class:`ImageError`,
    or, with a list in ``failures``, is appended to it, ``index`` being its row, and keeps nan. Raises
    :class:`ParameterError` at once for an impossible parameter, and for objects of other images than ``samples``.
    """
    plan = _Plan(backbone, recipe, descriptor, side, facet, block, norm, precision, batch_size, colour, background)
    _check(plan, samples, objects, workers)
    out = np.full((len(objects), plan.channels), np.nan, dtype=np.float32)
    failed: list[Failure] | None = None if failures is None else []
    with show_progress(len(objects), "describing", progress and len(objects) > 0, "object") as advance:
        for rows, batch in _batches(_crops(plan, samples, objects, failed, workers), plan):
            out[rows] = _described(plan, batch).cpu().numpy()
            advance(len(rows))
        advance(len(failed or ()))
    if failures is not None:
        failures += sorted(failed or (), key=lambda failure: failure.index)
    return out


def _check(plan: _Plan, samples: Sequence[Sample], objects: Objects, workers: int) -> None:
    check_choice("recipe", plan.recipe, tuple(RECIPES))
    check_choice("descriptor", plan.descriptor, DESCRIPTORS)
    check_choice("facet", plan.facet, PATCH_FACETS)
    check_choice("background", plan.background, BACKGROUNDS)
    check_switch("colour", plan.colour)
    for name, value in (("batch_size", plan.batch_size), ("workers", workers)):
        if value < 1:
            raise ParameterError(f"{name}={value}: must be at least 1")
    if plan.side < plan.backbone.patch_size:
        size = plan.backbone.patch_size
        raise ParameterError(f"side={plan.side}: a crop must hold one patch of {plan.backbone.name}, {size} pixels")
    extract(plan.backbone, (), (plan.asked,), block=plan.block, norm=plan.norm, precision=plan.precision)  # checks them
    check_images(samples, objects)


def _crops(
    plan: _Plan, samples: Sequence[Sample], objects: Objects, failures: list[Failure] | None, workers: int
) -> Iterator[tuple[int, Crop]]:
    """Row and crop of every object that has one, image by image."""
    order = np.argsort(objects.images, kind="stable")
    images, first = np.unique(objects.images[order], return_index=True)
    rows_of = np.split(order, first[1:])
    limits = Limits(plan.backbone.patch_size, None, ANY_NUMBER, False)
    unread: list[Failure] | None = None if failures is None else []
    for image in read_ahead((samples[i] for i in images), limits, workers, 2 * workers, unread):
        pixels = image.pixels if plan.colour else _grey(image.pixels)
        for row in rows_of[image.index].tolist():
            try:
                yield row, _crop(plan, pixels, objects, row)
            except ImageError as error:
                if failures is None:
                    raise
                failures.append(Failure(image.name, row, str(error)))
    for failure in unread or ():
        assert failures is not None
        failures += [Failure(failure.name, row, failure.error) for row in rows_of[failure.index].tolist()]


def _grey(pixels: UInt8[Tensor, "height width 3"]) -> UInt8[Tensor, "height width 3"]:
    return pixels.float().mean(2, keepdim=True).round().byte().expand(-1, -1, 3)


def _crop(plan: _Plan, pixels: UInt8[Tensor, "height width 3"], objects: Objects, row: int) -> Crop:
    """The crop of one object, its sides cut to multiples of the patch size; :class:`ImageError` if it has none."""
    encoded, network = objects.masks[row], plan.backbone
    mask = None if encoded is None else coco_mask.decode(as_bytes(encoded)).astype(bool)
    try:
        crop = RECIPES[plan.recipe](pixels, objects.boxes[row], mask, plan.side, network.mean, network.std)
    except ImageError as error:
        raise ImageError(f"{objects.names[row]}, object {objects.parts[row]}: {error}") from error
    height, width = (n // network.patch_size * network.patch_size for n in crop.pixels.shape[1:])
    inside = None if crop.inside is None else crop.inside[:height, :width]
    cut = crop.pixels[:, :height, :width]
    return Crop(cut if inside is None or plan.background == "keep" else cut * inside, inside)


def _batches(crops: Iterable[tuple[int, Crop]], plan: _Plan) -> Iterator[tuple[list[int], list[Crop]]]:
    """Batches of crops of one size: full ones as soon as they are full, the oldest when too many wait."""
    pending: dict[Any, list[tuple[int, Crop]]] = {}
    for row, crop in crops:
        shape = tuple(crop.pixels.shape)
        pending.setdefault(shape, []).append((row, crop))
        patches = shape[1] * shape[2] // plan.backbone.patch_size**2
        if len(pending[shape]) >= min(plan.batch_size, max(1, PATCHES_A_BATCH // patches)):
            yield _unzipped(pending.pop(shape))
        elif sum(map(len, pending.values())) >= PENDING_BATCHES * plan.batch_size:
            yield _unzipped(pending.pop(next(iter(pending))))
    for group in pending.values():
        yield _unzipped(group)


def _unzipped(group: list[tuple[int, Crop]]) -> tuple[list[int], list[Crop]]:
    return [row for row, _ in group], [crop for _, crop in group]


def _described(plan: _Plan, batch: list[Crop]) -> Float[Tensor, "object channel"]:
    backbone = plan.backbone
    pixels = torch.stack([crop.pixels for crop in batch]).to(backbone.device)
    with torch.inference_mode(), arithmetic(backbone.device, plan.precision):
        if backbone.family == "cnn":
            out = cnn_facets(backbone.network, pixels, (plan.asked,))
        else:
            assert isinstance(backbone.network, Transformer)
            block = plan.block % backbone.blocks
            out = transformer_facets(backbone.network, pixels, (plan.asked,), block, norm=plan.norm)
    found = out[plan.asked].float()
    if plan.descriptor != "cls":
        found = _pooled(found, _weights(batch, backbone.patch_size).to(found.device), plan.descriptor == "texture")
    return F.normalize(found, dim=1) if plan.recipe == "lost" else found


def _pooled(
    patches: Float[Tensor, "object patch channel"], weights: Float[Tensor, "object patch"], texture: bool
) -> Float[Tensor, "object pooled"]:
    mean = torch.einsum("op,opc->oc", weights, patches)
    if not texture:
        return mean
    variance = torch.einsum("op,opc->oc", weights, (patches - mean[:, None]).square())
    return torch.cat([F.normalize(mean, dim=1), F.normalize(variance.sqrt(), dim=1)], dim=1)


def _weights(batch: list[Crop], patch_size: int) -> Float[Tensor, "object patch"]:
    """How much each patch counts, adding up to 1: its share of the mask, or all alike where no mask is left."""
    whole = torch.ones(batch[0].pixels.shape[1:])
    inside = torch.stack([whole if crop.inside is None or not crop.inside.any() else crop.inside for crop in batch])
    cells = F.avg_pool2d(inside[:, None], patch_size).flatten(1)  # [object, patch]
    return cells / cells.sum(1, keepdim=True)
