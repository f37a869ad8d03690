"""Objects, and the crops that describe them: how COMUS and LOST cut an object out of its image.

Neither blacks out what lies around the object inside its box. They differ in everything else: see :data:`RECIPES`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from pycocotools import mask as coco_mask
from torch import Tensor

from foundling.backbones.apply import normalise
from foundling.discovery.export import decode_mask, encode_mask, pixel_mask
from foundling.discovery.stream import Found
from foundling.errors import ImageError, ParameterError
from foundling.saliency.predict import squeeze
from foundling.types import Sample

SIDE = 256  # pixels, in both papers' code; LOST's text says 224
ELONGATED = 16  # the long side of a box that LOST's recipe takes, in short ones
MIN_AREA = 400  # pixels: COMUS drops masks that are not larger

Size = tuple[int, int]
RLE = dict[str, Any]


@dataclass(frozen=True)
class Objects:
    """Objects of a list of images, one row each, in any order.

    ``images`` are positions in that list and ``names`` the names of the images; ``parts`` tell the objects of one image
    apart (positions in its target, or among what a method found). ``boxes`` are in pixels of the original image.
    ``masks`` are COCO run lengths of the original image's size, or None where only a box is known.
    """

    images: Int[np.ndarray, " object"]
    names: tuple[str, ...]
    parts: Int[np.ndarray, " object"]
    boxes: Float[np.ndarray, "object 4"]
    scores: Float[np.ndarray, " object"]
    masks: tuple[RLE | None, ...]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Sequence[int] | Int[np.ndarray, " row"] | Bool[np.ndarray, " object"]) -> "Objects":
        """The objects of ``rows`` (positions, or a mask over all), in that order."""
        chosen = np.arange(len(self))[np.asarray(rows) if len(rows) else []].astype(np.int64)
        return Objects(
            self.images[chosen],
            tuple(self.names[i] for i in chosen),
            self.parts[chosen],
            self.boxes[chosen],
            self.scores[chosen],
            tuple(self.masks[i] for i in chosen),
        )


class _Row(NamedTuple):
    image: int
    name: str
    part: int
    box: Sequence[float] | Float[np.ndarray, " 4"]
    score: float
    mask: RLE | None


def objects_of_targets(samples: Sequence[Sample]) -> Objects:
    """Every annotated object of ``samples`` but crowds, with its mask where there is one: the truth as proposals.

    ``samples[images[i]].target.labels[parts[i]]`` is the class of object i.
    """
    rows = []
    for image, sample in enumerate(samples):
        target = sample.target
        for part in range(0 if target is None else len(target)):
            assert target is not None
            if not target.crowd[part]:
                mask = None if target.masks is None else target.masks[part]
                rows.append(_Row(image, sample.name, part, target.boxes[part], 1.0, mask))
    return _objects(rows)


def objects_of_found(found: Found, label: str, masks: bool = False, best: bool = True) -> Objects:
    """What the method ``label`` found, by default the best box of each image (LOST: one object an image).

    ``masks`` gives the objects the method's masks (on the original image's pixels) too, where it has any. Images that
    failed, or in which nothing was found, have no object. Raises :class:`ParameterError` for a label that was not run.
    """
    if label not in found.boxes:
        raise ParameterError(f"no results under {label!r}: choose one of {', '.join(found.boxes)}")
    rows = []
    for record in found.records:
        result = record["methods"][label]
        count = len(result["boxes"])
        chosen = [int(np.argmax(result["scores"]))] if best and count else range(count)
        for part in chosen:
            mask = None
            if masks and result["masks"]:
                patches = decode_mask(result["masks"][part])
                mask = encode_mask(pixel_mask(patches, record["patch_size"], record["seen"], record["size"]))
            row = _Row(record["index"], record["name"], part, result["boxes"][part], result["scores"][part], mask)
            rows.append(row)
    return _objects(rows)


def objects_of_masks(samples: Sequence[Sample], masks: Sequence[RLE | None], min_area: int = MIN_AREA) -> Objects:
    """One object an image from its saliency mask, all components together, in the tight box of them (COMUS, Alg. 1).

    ``masks`` are COCO run lengths of the original images' sizes, or None. A mask of ``min_area`` pixels or fewer is no
    object, as in the authors' code. Raises :class:`ParameterError` unless there is one mask (or None) an image.
    """
    if len(masks) != len(samples):
        raise ParameterError(
            f"{len(masks)} masks for {len(samples)} images: give one an image, None where there is none"
        )
    rows = []
    for image, (sample, mask) in enumerate(zip(samples, masks, strict=True)):
        if mask is not None and _area(mask) > min_area:
            x, y, width, height = coco_mask.toBbox(as_bytes(mask)).tolist()
            rows.append(_Row(image, sample.name, 0, [x, y, x + width, y + height], 1.0, mask))
    return _objects(rows)


def check_images(samples: Sequence[Sample], objects: Objects) -> None:
    """Raise :class:`ParameterError` unless ``objects`` were found in ``samples``, in this order."""
    for i in np.flatnonzero((objects.images < 0) | (objects.images >= len(samples)))[:1]:
        raise ParameterError(
            f"object {i} lies in image {objects.images[i]}, but there are {len(samples)} images: give those that the "
            "objects were found in"
        )
    for i, name in zip(objects.images, objects.names, strict=True):
        if samples[i].name != name:
            raise ParameterError(
                f"objects of {name!r} say that it is image {i}, which is {samples[i].name!r}: give the images that the "
                "objects were found in, in the same order"
            )


def _objects(rows: Sequence[_Row]) -> Objects:
    return Objects(
        np.array([row.image for row in rows], dtype=np.int64),
        tuple(row.name for row in rows),
        np.array([row.part for row in rows], dtype=np.int64),
        np.array([row.box for row in rows], dtype=np.float64).reshape(-1, 4),
        np.array([row.score for row in rows], dtype=np.float64),
        tuple(row.mask for row in rows),
    )


def as_bytes(mask: RLE) -> RLE:
    """Run lengths as pycocotools takes them, whether they were text (JSON) or bytes."""
    counts = mask["counts"]
    return {"size": mask["size"], "counts": counts.encode("ascii") if isinstance(counts, str) else counts}


def _area(mask: RLE) -> int:
    return int(coco_mask.area(as_bytes(mask)))


class Crop(NamedTuple):
    """An object's crop, normalised for the network, and how much of each pixel belongs to the object (0..1)."""

    pixels: Float[Tensor, "3 height width"]
    inside: Float[Tensor, "height width"] | None


def window(box: Float[np.ndarray, " 4"], mask: Bool[np.ndarray, "h w"] | None, size: Size) -> tuple[int, int, int, int]:
    """Rows and columns (top, bottom, left, right; ends exclusive) of an object in an image of ``size``.

    The tight box of its mask, or without one its box rounded to whole pixels and clipped to the image. Raises
    :class:`ImageError` if that holds no pixel, or the mask is of another size than the image.
    """
    if mask is not None:
        if mask.shape != size:
            raise ImageError(
                f"its mask is {mask.shape[1]}×{mask.shape[0]} pixels and its image {size[1]}×{size[0]}: "
                "make masks at the original image's size"
            )
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            raise ImageError("its mask is empty: leave the object out")
        return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    if not np.isfinite(box).all():
        raise ImageError(f"its box {box.tolist()} is not finite: leave the object out")
    x0, y0, x1, y1 = np.rint(box).clip(0, [size[1], size[0]] * 2).astype(int).tolist()
    if x1 <= x0 or y1 <= y0:
        text = ", ".join(f"{value:g}" for value in box)
        raise ImageError(f"its box ({text}) holds no pixel of an image of {size[1]}×{size[0]}: leave the object out")
    return y0, y1, x0, x1


def comus_crop(
    image: UInt8[Tensor, "height width 3"],
    box: Float[np.ndarray, " 4"],
    mask: Bool[np.ndarray, "height width"] | None,
    side: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> Crop:
    """COMUS (Sec. 3.1): the tight box without a margin, resized to ``side`` × ``side``, its aspect not kept.

    As the authors' code does it: OpenCV's bilinear on 8-bit pixels, which does not smooth before it shrinks, and then
    the normalisation. Raises :class:`ImageError` as :func:`window`.
    """
    top, bottom, left, right = window(box, mask, (image.shape[0], image.shape[1]))
    pixels = torch.from_numpy(squeeze(image[top:bottom, left:right].numpy(), side)).permute(2, 0, 1)[None].float() / 255
    inside = None if mask is None else _covered(mask[top:bottom, left:right], (side, side))
    return Crop(normalise(pixels, mean, std)[0], inside)


def lost_crop(
    image: UInt8[Tensor, "height width 3"],
    box: Float[np.ndarray, " 4"],
    mask: Bool[np.ndarray, "height width"] | None,
    side: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> Crop:
    """LOST (Sec. 3.3, the authors' clustering code): the normalised box, its short side resized to ``side``.

    Bicubic without antialiasing, aspect kept, the long side rounded down; the paper says 224 × 224 instead. The box is
    the object's own, whatever its mask. Raises :class:`ImageError` as :func:`window`, and for a box more than 16 times
    as long as it is wide, of which the resized crop might not fit into memory.
    """
    if mask is not None:
        window(box, mask, (image.shape[0], image.shape[1]))  # refuses a mask that is empty or of another size
    top, bottom, left, right = window(box, None, (image.shape[0], image.shape[1]))
    sides = sorted((bottom - top, right - left))
    if sides[1] > ELONGATED * sides[0]:
        raise ImageError(
            f"its box of {right - left}×{bottom - top} pixels is more than {ELONGATED} times as long as it is wide: "
            "leave the object out, or take recipe='comus'"
        )
    cut = normalise(image[top:bottom, left:right].permute(2, 0, 1)[None].float() / 255, mean, std)
    size = lost_size((bottom - top, right - left), side)
    pixels = F.interpolate(cut, size, mode="bicubic", align_corners=False, antialias=False)[0]
    inside = None if mask is None else _covered(mask[top:bottom, left:right], size)
    return Crop(pixels, inside)


def lost_size(size: Size, side: int) -> Size:
    """Height and width of a crop of ``size`` after LOST's resizing."""
    height, width = size
    return (side, side * width // height) if height <= width else (side * height // width, side)


def _covered(mask: Bool[np.ndarray, "h w"], size: Size) -> Float[Tensor, "height width"]:
    """How much of each pixel of the resized crop the mask covers."""
    return F.interpolate(torch.from_numpy(mask.astype(np.float32))[None, None], size, mode="area")[0, 0]


RECIPES: dict[str, Callable[..., Crop]] = {"comus": comus_crop, "lost": lost_crop}
