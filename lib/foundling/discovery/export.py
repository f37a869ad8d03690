"""Discoveries as COCO results, which pycocotools, FiftyOne and Detectron2 read; masks as COCO run lengths."""

import base64
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int
from pycocotools import mask as coco_mask

from foundling.types import ParameterError, Sample

if TYPE_CHECKING:
    from foundling.discovery.stream import Found

CATEGORY = 1  # discovery is class-agnostic: one category, "object"


def encode_mask(mask: Bool[np.ndarray, "rows columns"]) -> dict[str, Any]:
    """A mask as COCO run lengths that JSON can hold."""
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode("ascii")}


def decode_mask(encoded: dict[str, Any]) -> Bool[np.ndarray, "rows columns"]:
    """The mask that :func:`encode_mask` was given."""
    return coco_mask.decode({"size": encoded["size"], "counts": encoded["counts"].encode("ascii")}).astype(bool)


def encode_memberships(maps: Float[np.ndarray, "object rows columns"]) -> dict[str, Any]:
    """Maps of values from 0 to 1 in 255 steps, compressed, as JSON can hold them."""
    steps = np.rint(255 * maps).astype(np.uint8)
    return {"shape": list(steps.shape), "zlib": base64.b64encode(zlib.compress(steps.tobytes(), 9)).decode("ascii")}


def decode_memberships(encoded: dict[str, Any]) -> Float[np.ndarray, "object rows columns"]:
    """The maps that :func:`encode_memberships` was given, to half a step."""
    steps = np.frombuffer(zlib.decompress(base64.b64decode(encoded["zlib"])), np.uint8)
    return steps.reshape(encoded["shape"]).astype(np.float32) / 255


def pixel_mask(
    mask: Bool[np.ndarray, "rows columns"], patch_size: int, seen: Sequence[int], size: Sequence[int]
) -> Bool[np.ndarray, "height width"]:
    """A mask on the patch grid as one on the original image's pixels.

    ``seen`` is the height and width that the network saw, ``size`` that of the original image. A pixel belongs to the
    patch that its centre falls into.
    """
    rows, columns = patches_of_pixels(patch_size, seen, size)
    return mask[rows[:, None], columns]


def patches_of_pixels(
    patch_size: int, seen: Sequence[int], size: Sequence[int]
) -> tuple[Int[np.ndarray, " height"], Int[np.ndarray, " width"]]:
    """The patch row of each row of pixels, and the patch column of each column, as :func:`pixel_mask` has it."""
    rows, columns = (
        ((np.arange(original) + 0.5) * network / original // patch_size).astype(np.int64)
        for network, original in zip(seen, size, strict=True)
    )
    return rows, columns


def coco_results(found: "Found", samples: Sequence[Sample], label: str) -> list[dict[str, Any]]:
    """The boxes that ``label`` found, as a COCO results list: ``bbox`` is x, y, width, height in original pixels.

    ``samples`` are those that ``found`` was made from; they give the image ids. ``category_id`` is 1. Where the method
    gives masks, ``segmentation`` holds the run lengths of the mask in the original image. Boxes are clipped to the
    image. Images that failed have no entry. Raises :class:`ParameterError` for a label that was not run.
    """
    if label not in found.boxes:
        raise ParameterError(f"no results under {label!r}: choose one of {', '.join(found.boxes)}")
    return [
        entry
        for record in found.records
        for entry in _entries(record, record["methods"][label], samples[record["index"]].image_id)
    ]


def _entries(record: dict[str, Any], result: dict[str, Any], image_id: int) -> list[dict[str, Any]]:
    height, width = record["size"]
    entries = []
    for i, (box, score) in enumerate(zip(result["boxes"], result["scores"], strict=True)):
        x0, y0, x1, y1 = np.clip(box, 0, [width, height, width, height]).tolist()
        entry = {"image_id": image_id, "category_id": CATEGORY, "bbox": [x0, y0, x1 - x0, y1 - y0], "score": score}
        if result["masks"]:
            patches = decode_mask(result["masks"][i])
            pixels = pixel_mask(patches, record["patch_size"], record["seen"], record["size"])
            entry["segmentation"] = encode_mask(pixels)
        entries.append(entry)
    return entries
