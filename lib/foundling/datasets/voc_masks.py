"""The segmentation part of PASCAL VOC: the instances of an image as masks, each with its class and its box."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from pycocotools import mask as rle_codec

from foundling.datasets.base import Problems
from foundling.datasets.images import image_size
from foundling.datasets.index_masks import read_labels
from foundling.errors import ImageError
from foundling.types import VOID, Target

MAPS, AUGMENTED_MAPS = "SegmentationClass", "SegmentationClassAug"  # folders of label maps


def mask_target(home: Path, image: str, classes: int, problems: Problems) -> Target | None:
    """The instances of ``SegmentationObject``, each of the class that most of its pixels have in ``SegmentationClass``.

    Pixels of :data:`VOID` belong to nobody. A class number is one more than the label; of two equally frequent the
    lower is taken. Boxes enclose the masks. ``None``, and a problem, if a file is missing, damaged or of another size
    than the image.
    """
    name = f"{image}.jpg"
    try:
        size = image_size(home / "JPEGImages" / name)
        objects = read_labels(home / "SegmentationObject" / f"{image}.png")
        kinds = read_labels(home / MAPS / f"{image}.png")
    except ImageError as error:
        problems["image whose masks cannot be read (dropped)"].append(str(error))
        return None
    if not objects.shape == kinds.shape == size:
        sizes = ", ".join(f"{shape[1]}×{shape[0]}" for shape in (size, objects.shape, kinds.shape))
        problems["image whose masks have another size (dropped)"].append(f"{name} ({sizes})")
        return None
    numbers = [int(number) for number in np.flatnonzero(np.bincount(objects.ravel())) if number not in (0, VOID)]
    kind = {number: _majority(kinds[objects == number], classes) for number in numbers}
    lost = [number for number in numbers if kind[number] is None]
    problems["instance without a class that VOC has (dropped)"] += [f"{name} (number {number})" for number in lost]
    return _assemble(objects, {number: label for number, label in kind.items() if label is not None})


def _majority(kinds: UInt8[np.ndarray, " pixel"], classes: int) -> int | None:
    """The label that most pixels have; ``None`` if all are background, void or numbers beyond ``classes``."""
    counts = np.bincount(kinds, minlength=VOID + 1)[1 : classes + 1]
    return int(counts.argmax()) if counts.any() else None


def _assemble(objects: UInt8[np.ndarray, "h w"], labels: dict[int, int]) -> Target:
    masks: list[dict[str, Any]] = []
    for number in labels:
        rle = rle_codec.encode(np.asfortranarray(objects == number, dtype=np.uint8))
        masks.append({"size": list(objects.shape), "counts": rle["counts"].decode("ascii")})
    boxes = np.reshape([rle_codec.toBbox(rle) for rle in masks], (-1, 4)).astype(np.float64)  # x, y, width, height
    boxes[:, 2:] += boxes[:, :2]
    none = np.zeros(len(masks), dtype=bool)
    return Target(boxes, np.array(list(labels.values()), dtype=np.int64), none, none, none, masks)
