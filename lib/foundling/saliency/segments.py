"""A segmenter over many images: the box of what it sees, by the published rule; chunk by chunk, as discoveries are."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from foundling.backbones.apply import normalise
from foundling.backbones.prepare import Limits, read_ahead
from foundling.datasets.images import MAX_PIXELS
from foundling.discovery.chunks import Record, chunk_path, code_digest, files_of, read_chunk, remove_others, write_chunk
from foundling.discovery.export import encode_mask
from foundling.discovery.progress import progress as show_progress
from foundling.discovery.stream import Found, gathered
from foundling.errors import ParameterError
from foundling.saliency.segmenter import Segmenter
from foundling.types import Failure, Sample

LABEL = "segmenter"
THRESHOLD = 0.5
SMALLEST = 0.05  # side of the smallest box that counts, over the height of the mask
SOURCES = ("datasets/images.py", "backbones/*.py", "saliency/segment*.py")  # the code that boxes depend on
_LIMITS = Limits(patch_size=1, max_side=None, max_patches=MAX_PIXELS, keep_images=False)


def segment_box(
    mask: Float[np.ndarray, "h w"], threshold: float = THRESHOLD
) -> tuple[Float[np.ndarray, "4"], Bool[np.ndarray, "h w"], bool]:
    """The box of a soft mask, the pixels of its component, and whether there was one.

    Of the components (8-connected) of what lies above ``threshold``, the one whose *box* is largest, of equal ones the
    last; boxes of no more than (0.05 h)² pixels do not count. Without any, all of the image. So does the published
    code of box refinement; its paper (section 4) speaks of the largest component. Boxes are x0, y0, x1, y1 in pixels,
    the far corner exclusive.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats((mask > threshold).astype(np.uint8), connectivity=8)
    sides = stats[1:count, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]].astype(np.float64)
    areas = sides.prod(axis=1)
    if not (areas > (SMALLEST * mask.shape[0]) ** 2).any():
        return np.array([0, 0, mask.shape[1], mask.shape[0]], dtype=np.float64), np.ones(mask.shape, dtype=bool), False
    best = 1 + int(np.flatnonzero(areas == areas.max())[-1])
    corner = stats[best, [cv2.CC_STAT_LEFT, cv2.CC_STAT_TOP]].astype(np.float64)
    return np.concatenate([corner, corner + sides[best - 1]]), labels == best, True


def soft_mask(segmenter: Segmenter, pixels: UInt8[Tensor, "h w 3"]) -> Float[np.ndarray, "h w"]:
    """How far each pixel of an image belongs to an object, 0 to 1; the image is continued by its mirror image."""
    height, width = pixels.shape[:2]
    right, bottom = -width % segmenter.stride, -height % segmenter.stride
    images = pixels.to(segmenter.device).permute(2, 0, 1)[None].float() / 255
    images = normalise(images, segmenter.mean, segmenter.std)
    mode = "reflect" if right < width and bottom < height else "replicate"  # no mirror image is wider than the image
    padded = F.pad(images, (0, right, 0, bottom), mode=mode)
    with torch.inference_mode():
        logits: Tensor = segmenter(padded)[0, 0, :height, :width]
    return logits.float().sigmoid().cpu().numpy()


def discover_segments(
    segmenter: Segmenter,
    samples: Sequence[Sample],
    *,
    out: Path | None = None,
    label: str = LABEL,
    chunk: int = 64,
    progress: bool = True,
) -> Found:
    """One box and its mask an image, by ``segmenter``, in the form of :func:`foundling.discovery.discover_images`.

    Images keep their size. Masks are of pixels (``patch_size`` is 1); an image in which nothing is found has its whole
    as box, and the flag ``whole_image``. With ``out``, results are kept there and used again by a later call with the
    same segmenter, code and files; an image that cannot be read is a failure, and tried again. ``seconds`` is empty.

    Raises :class:`ParameterError` for a ``chunk`` below 1.
    """
    if chunk < 1:
        raise ParameterError(f"chunk={chunk}: must be at least 1 image")
    settings = {"segmenter": [segmenter.checksum, segmenter.backbone_checksum, segmenter.device.type], "label": label}
    settings["code"] = [code_digest(SOURCES)]
    samples, starts = list(samples), range(0, len(samples), chunk)
    records, failures = list[Record](), list[Failure]()
    with show_progress(len(samples), "segmenting", progress and bool(samples)) as advance:
        for start in starts:
            part = samples[start : start + chunk]
            file = None if out is None else chunk_path(out, start)
            header = {**settings, "files": files_of(part)} if file is not None else {}
            known = {record["index"]: record for record in (read_chunk(file, header) if file is not None else [])}
            todo = [i for i in range(start, start + len(part)) if i not in known]
            if todo:
                made = _look(segmenter, [samples[i] for i in todo], todo, label, failures)
                known |= {record["index"]: record for record in made}
                if file is not None:
                    write_chunk(file, header, [known[i] for i in sorted(known)])
            records += [known[i] for i in sorted(known)]
            advance(len(part))
    if out is not None and out.is_dir():
        remove_others(out, {chunk_path(out, start) for start in starts})
    return gathered(samples, [label], records, failures, {})


def _look(
    segmenter: Segmenter, samples: Sequence[Sample], positions: Sequence[int], label: str, failures: list[Failure]
) -> list[Record]:
    failed: list[Failure] = []
    records = []
    for item in read_ahead(samples, _LIMITS, 2, 8, failed):
        box, mask, found = segment_box(soft_mask(segmenter, item.pixels))
        result: dict[str, Any] = {"boxes": [box.tolist()], "scores": [1.0], "masks": [encode_mask(mask)]}
        result |= {"seed": None, "values": {}, "flags": [] if found else ["whole_image"]}
        size = list(item.original)
        where = {"size": size, "seen": size, "grid": size, "patch_size": 1}
        records.append({"name": item.name, "index": positions[item.index], **where, "methods": {label: result}})
    failures += [Failure(failure.name, positions[failure.index], failure.error) for failure in failed]
    return records
