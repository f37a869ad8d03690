"""What a source of saliency says of a set of images: one mask an image, or none."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from foundling.discovery.chunks import Record
from foundling.discovery.export import decode_mask, encode_mask, pixel_mask
from foundling.errors import ParameterError
from foundling.types import Failure


@dataclass(frozen=True)
class SaliencyMasks:
    """One mask an image, in the pixels of the original image.

    ``masks`` are COCO RLE dicts; ``None`` where nothing stands out, or the image failed (then ``sizes``, its height and
    width, are 0, and it is among ``failures``). ``source`` says where they come from.
    """

    source: str
    names: tuple[str, ...]
    sizes: Int[np.ndarray, "image 2"]
    masks: tuple[dict[str, Any] | None, ...]
    failures: tuple[Failure, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def mask(self, i: int) -> Bool[np.ndarray, "height width"]:
        """The pixels of image ``i`` that stand out: none where there is no mask."""
        encoded = self.masks[i]
        return np.zeros(tuple(self.sizes[i]), dtype=bool) if encoded is None else decode_mask(encoded)


def agreement(sources: Sequence[SaliencyMasks], least: float = 0.5) -> SaliencyMasks:
    """What most of several sources say of each image, where they agree: masks to train a network on.

    A pixel is in the mask if more than half of the sources have it. An image has none if the mean IoU of two sources'
    masks is below ``least``, its mask would be empty, or it failed in any of the sources, whose failures it keeps.
    (DeepUSPS, which COMUS' saliency goes back to, likewise makes one mask of several unsupervised ones; how differs.)

    Raises :class:`ParameterError` for fewer than two sources, or sources of different images or sizes of these.
    """
    if len(sources) < 2:
        raise ParameterError(f"agreement takes two sources of saliency or more, and got {len(sources)}")
    first = sources[0]
    if any(other.names != first.names for other in sources):
        raise ParameterError("the sources are of different images: make them of the same samples")
    every = np.stack([source.sizes for source in sources])  # [source, image, 2]
    read = np.asarray(every.all(axis=(0, 2)))
    if (other := np.flatnonzero(read & (every != every[0]).any(axis=(0, 2)))).size:
        raise ParameterError(f"{first.names[other[0]]}: the sources' masks are of different sizes: make them anew")
    failures = {failure.index: failure for source in sources for failure in source.failures}
    masks: list[dict[str, Any] | None] = [None] * len(first)
    for i in np.flatnonzero(read).tolist():
        votes = np.stack([source.mask(i) for source in sources])
        flat = votes.reshape(len(votes), -1).astype(np.float64)
        shared, areas = flat @ flat.T, flat.sum(1)
        pairs = np.triu_indices(len(flat), 1)
        overlaps = shared[pairs] / np.maximum(areas[:, None] + areas - shared, 1)[pairs]
        mask = votes.mean(0) > 0.5
        masks[i] = encode_mask(mask) if mask.any() and overlaps.mean() >= least else None
    label = " and ".join(source.source for source in sources)
    told = tuple(failures[i] for i in sorted(failures))
    return SaliencyMasks(label, first.names, np.where(read[:, None], first.sizes, 0), tuple(masks), told)


def union_mask(record: Record, label: str) -> dict[str, Any] | None:
    """All that the method ``label`` found in one image (a record of ``discover_images``) as one mask in its pixels.

    Methods that give boxes alone are taken at their boxes. ``None`` if they found nothing.
    """
    result, size = record["methods"][label], record["size"]
    pixels = np.zeros(size, dtype=bool)
    for mask in result["masks"]:
        pixels |= pixel_mask(decode_mask(mask), record["patch_size"], record["seen"], size)
    for box in () if result["masks"] else result["boxes"]:
        pixels |= box_mask(box, size)
    return encode_mask(pixels) if pixels.any() else None


def box_mask(box: list[float], size: list[int]) -> Bool[np.ndarray, "height width"]:
    """The pixels of an image of ``size`` whose centres lie in a box."""
    inside = [
        (low <= np.arange(side) + 0.5) & (np.arange(side) + 0.5 < high)
        for low, high, side in zip(box[1::-1], box[:1:-1], size, strict=True)
    ]
    return np.outer(*inside)
