"""A saliency network over many images: as COMUS uses it, chunk by chunk, so that an interrupted run goes on."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from foundling.backbones.apply import normalise
from foundling.backbones.prepare import Limits, Prepared, read_ahead
from foundling.datasets.images import MAX_PIXELS
from foundling.discovery.chunks import Record, chunk_path, code_digest, files_of, read_chunk, remove_others, write_chunk
from foundling.discovery.export import encode_mask
from foundling.discovery.progress import progress as show_progress
from foundling.errors import ParameterError
from foundling.saliency.masks import SaliencyMasks
from foundling.saliency.network import SaliencyNetwork
from foundling.types import Failure, Sample

THRESHOLD = 0.5
SCALES = ("image", "batch")
SOURCES = ("datasets/images.py", "saliency/*.py")  # the code that masks depend on
_LIMITS = Limits(patch_size=1, max_side=None, max_patches=MAX_PIXELS, keep_images=False)


def predict_masks(
    network: SaliencyNetwork,
    samples: Sequence[Sample],
    *,
    scale: str = "image",
    out: Path | None = None,
    batch_size: int = 8,
    chunk: int = 64,
    progress: bool = True,
) -> SaliencyMasks:
    """What ``network`` finds salient in each image (COMUS, Alg. 1 step 1).

    An image is resized to the network's square (bilinear, its shape is not kept); the refined map is stretched to
    0..1, over the ``"image"`` or, as in the published code, over its ``"batch"`` of ``batch_size`` (5 for VOC and 10
    for COCO there: a mask then depends on the images beside it); what lies above 0.5 is salient, and is brought to the
    size of the image by nearest neighbour. With ``out``, results are kept there and used again, as those of
    :func:`foundling.discovery.discover_images`; an image that cannot be read is a failure, and tried again.

    Raises :class:`ParameterError` for another ``scale``, and a ``batch_size`` or ``chunk`` below 1.
    """
    if scale not in SCALES:
        raise ParameterError(f"scale is {scale!r}: choose one of {', '.join(SCALES)}")
    for name, value in {"batch_size": batch_size, "chunk": chunk}.items():
        if value < 1:
            raise ParameterError(f"{name}={value}: must be at least 1")
    settings: dict[str, Any] = {"scale": scale, "code": code_digest(SOURCES)}
    settings["network"] = [network.checksum, network.network.width, network.side, network.device.type]
    if scale == "batch":
        settings["batch_size"] = batch_size
        chunk = math.ceil(chunk / batch_size) * batch_size
    samples, starts = list(samples), range(0, len(samples), chunk)
    records, failures = list[Record](), list[Failure]()
    with show_progress(len(samples), "saliency", progress and bool(samples)) as advance:
        for start in starts:
            part = samples[start : start + chunk]
            records += _chunk(network, part, start, out, settings, batch_size, failures)
            advance(len(part))
    if out is not None and out.is_dir():
        remove_others(out, {chunk_path(out, start) for start in starts})
    return _gathered(f"network {network.checksum}", samples, records, failures)


def _chunk(
    network: SaliencyNetwork,
    part: Sequence[Sample],
    start: int,
    out: Path | None,
    settings: dict[str, Any],
    batch_size: int,
    failures: list[Failure],
) -> list[Record]:
    """The records of one chunk, as far as possible from its file in ``out``."""
    file, header, known = None, dict[str, Any](), dict[int, Record]()
    if out is not None:
        file, header = chunk_path(out, start), {**settings, "files": files_of(part)}
        known = {record["index"]: record for record in read_chunk(file, header)}
    todo = [i for i in range(start, start + len(part)) if i not in known]
    if todo and settings["scale"] == "batch":  # each image with those that were beside it
        known, todo = {}, list(range(start, start + len(part)))
    if todo:
        made = _look(network, [part[i - start] for i in todo], todo, settings["scale"], batch_size, failures)
        known |= {record["index"]: record for record in made}
        if file is not None:
            write_chunk(file, header, [known[i] for i in sorted(known)])
    return [known[i] for i in sorted(known)]


def _gathered(
    source: str, samples: Sequence[Sample], records: Sequence[Record], failures: Sequence[Failure]
) -> SaliencyMasks:
    sizes, masks = np.zeros((len(samples), 2), dtype=np.int64), list[dict[str, Any] | None]([None] * len(samples))
    for record in records:
        sizes[record["index"]], masks[record["index"]] = record["size"], record["mask"]
    names = tuple(sample.name for sample in samples)
    return SaliencyMasks(source, names, sizes, tuple(masks), tuple(failures))


def _look(
    network: SaliencyNetwork,
    samples: Sequence[Sample],
    positions: Sequence[int],
    scale: str,
    batch_size: int,
    failures: list[Failure],
) -> list[Record]:
    failed: list[Failure] = []
    records = []
    for batch in _batches(read_ahead(samples, _LIMITS, 2, 2 * batch_size, failed), batch_size):
        squares = np.stack([squeeze(item.pixels.numpy(), network.side) for item in batch])
        for item, mask in zip(batch, salient(refined_maps(network, squares), scale), strict=True):
            pixels = enlarge(mask, item.original)
            found = encode_mask(pixels) if pixels.any() else None
            record = {"name": item.name, "index": positions[item.index], "size": list(item.original), "mask": found}
            records.append(record)
    failures += [Failure(failure.name, positions[failure.index], failure.error) for failure in failed]
    return records


def _batches(items: Iterator[Prepared], size: int) -> Iterator[list[Prepared]]:
    batch: list[Prepared] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def squeeze(pixels: UInt8[np.ndarray, "height width 3"], side: int) -> UInt8[np.ndarray, "side side 3"]:
    """An image as a square: bilinear, without smoothing before it shrinks, as OpenCV does it in the published code."""
    return np.asarray(cv2.resize(pixels, (side, side), interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def refined_maps(
    network: SaliencyNetwork, squares: UInt8[np.ndarray, "image side side 3"]
) -> Float[Tensor, "image side side"]:
    """The network's refined map of each square, 0 to 1."""
    images = torch.from_numpy(squares).to(network.device).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        return network.network(normalise(images, network.mean, network.std))[0].float().sigmoid().cpu()


def salient(maps: Float[Tensor, "image side side"], scale: str = "image") -> Bool[np.ndarray, "image side side"]:
    """Where maps, stretched to 0..1 over each image or over the batch, lie above 0.5; nowhere if they are constant."""
    over = (1, 2) if scale == "image" else (0, 1, 2)
    low, high = maps.amin(over, keepdim=True), maps.amax(over, keepdim=True)
    return (((maps - low) / (high - low).clamp_min(torch.finfo(maps.dtype).tiny)) > THRESHOLD).numpy()


def enlarge(mask: Bool[np.ndarray, "side side"], size: tuple[int, int]) -> Bool[np.ndarray, "height width"]:
    """A mask at another size, (height, width): nearest neighbour, as OpenCV does it."""
    return cv2.resize(mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST).astype(bool)
