"""Entries of a COCO results list, read with care: their masks, their boxes, their numbers."""

import math
from numbers import Real
from typing import Any

from pycocotools import mask as coco_mask

from foundling.errors import ParameterError

Result = dict[str, Any]


def mask_of(result: Result, number: int, size: tuple[int, ...] | None) -> Result:
    """The mask of result ``number`` with its box, area and what breaks ties; ``size`` is that of its image's masks.

    Raises :class:`ParameterError` for a result without run lengths and for a mask of another size.
    """
    mask = result.get("segmentation")
    if not isinstance(mask, dict) or not isinstance(mask.get("counts"), str | bytes) or "size" not in mask:
        raise ParameterError(f"result {number} has no segmentation in run lengths (RLE): add it, or measure bbox")
    if size is not None and tuple(mask["size"]) != size:
        raise ParameterError(
            f"result {number} has a mask of {'×'.join(map(str, mask['size']))} pixels, but image_id "
            f"{result['image_id']} was annotated with {'×'.join(map(str, size))}: give it in annotated pixels"
        )
    counts = mask["counts"].encode("ascii") if isinstance(mask["counts"], str) else mask["counts"]
    exact = {"size": list(mask["size"]), "counts": counts}
    box = coco_mask.toBbox(exact).tolist()
    return {"segmentation": exact, "bbox": box, "area": int(coco_mask.area(exact)), "tie": counts}


def box_of(result: Result, number: int) -> Result:
    """The box of result ``number`` (x, y, width, height) with its area and what breaks ties.

    Raises :class:`ParameterError` for anything but four finite numbers, sides not negative.
    """
    box = result.get("bbox")
    if not isinstance(box, list | tuple) or len(box) != 4 or not all(map(is_finite, box)) or min(box[2:]) < 0:
        raise ParameterError(f"result {number} has the bbox {box!r}: give x, y, width, height in pixels")
    exact = [float(part) for part in box]
    return {"bbox": exact, "area": exact[2] * exact[3], "tie": tuple(exact)}


def is_finite(number: Any) -> bool:
    """Whether this is a finite number."""
    return isinstance(number, Real) and math.isfinite(number)
