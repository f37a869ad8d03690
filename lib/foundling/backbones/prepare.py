"""Images on disk or in memory → decoded pixels of known size, read ahead by a few threads."""

import math
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from foundling.datasets.images import image_size, read_image
from foundling.errors import ImageError
from foundling.types import Failure, Sample

Source = str | os.PathLike[str] | Image.Image | Sample


@dataclass(frozen=True)
class Prepared:
    """One decoded image: its pixels as the network is to see them, before padding."""

    name: str
    index: int
    pixels: UInt8[Tensor, "height width 3"]
    original: tuple[int, int]
    image: Image.Image | None

    def grid(self, patch_size: int) -> tuple[int, int]:
        """Rows and columns of patches that cover the image."""
        height, width = self.pixels.shape[:2]
        return math.ceil(height / patch_size), math.ceil(width / patch_size)


@dataclass(frozen=True)
class Limits:
    """How large an image may be: ``max_side`` in pixels (larger is shrunk), ``max_patches`` (more is an error)."""

    patch_size: int
    max_side: int | None
    max_patches: int
    keep_images: bool


def prepare(source: Source, index: int, limits: Limits) -> Prepared:
    """Decode one image and shrink it to ``limits.max_side`` if it is larger (Lanczos, aspect kept).

    Raises :class:`ImageError` if it cannot be read or covers more than ``limits.max_patches`` patches.
    """
    name = source_name(source, index)
    if not isinstance(source, Image.Image):  # the header is enough to refuse an image that is far too large
        path = source.path if isinstance(source, Sample) else Path(source)
        _check_patches(name, _shrunk(image_size(path), limits.max_side), limits)
        image = read_image(path, orient=isinstance(source, Sample) and source.orient)
    else:
        image = _in_memory(source, name)
    original = (image.height, image.width)
    size = _shrunk(original, limits.max_side)
    _check_patches(name, size, limits)
    if size != original:
        image = image.resize((size[1], size[0]), Image.Resampling.LANCZOS)
    pixels = torch.from_numpy(np.array(image))
    return Prepared(name, index, pixels, original, image if limits.keep_images else None)


def source_name(source: Source, index: int) -> str:
    """A sample's own name, a file's path as given, or ``image_<index>`` for an image in memory without a file name."""
    if isinstance(source, Sample):
        return source.name
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "") or f"image_{index}")
    return os.fspath(source)


def read_ahead(
    sources: Iterable[Source], limits: Limits, workers: int, ahead: int, failures: list[Failure] | None
) -> Iterator[Prepared]:
    """The decoded images in the order of ``sources``, at most ``ahead`` of them decoded before they are asked for.

    An image that cannot be used raises, or with ``failures`` is appended to it and left out.
    """
    queue: deque[tuple[str, int, Future[Prepared]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decode")
    try:
        for index, source in enumerate(sources):
            queue.append((source_name(source, index), index, pool.submit(prepare, source, index, limits)))
            if len(queue) > ahead:
                yield from _next(queue, failures)
        while queue:
            yield from _next(queue, failures)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _next(queue: deque[tuple[str, int, Future[Prepared]]], failures: list[Failure] | None) -> Iterator[Prepared]:
    name, index, future = queue.popleft()
    try:
        yield future.result()
    except ImageError as error:
        if failures is None:
            raise
        failures.append(Failure(name, index, str(error)))


def _in_memory(image: Image.Image, name: str) -> Image.Image:
    if min(image.size) < 1:
        raise ImageError(f"{name}: has no pixels ({image.width}×{image.height}); leave it out")
    try:
        return image.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise ImageError(f"{name}: cannot be decoded ({error}); open it again from a sound file") from error


def _shrunk(size: tuple[int, int], max_side: int | None) -> tuple[int, int]:
    longest = max(size)
    if max_side is None or longest <= max_side:
        return size
    return max(1, round(size[0] * max_side / longest)), max(1, round(size[1] * max_side / longest))


def _check_patches(name: str, size: tuple[int, int], limits: Limits) -> None:
    step = limits.patch_size
    count = _patches(size, step)
    if count > limits.max_patches:
        sides = range(max(size) // step * step, 0, -step)
        fitting = next(side for side in sides if _patches(_shrunk(size, side), step) <= limits.max_patches)
        raise ImageError(
            f"{name}: {size[1]}×{size[0]} pixels make {count:,} patches of {step} px, more than "
            f"max_patches={limits.max_patches:,}: shrink it with max_side={fitting} (pixels), "
            "or raise max_patches if there is memory for it"
        )


def _patches(size: tuple[int, int], patch_size: int) -> int:
    return math.ceil(size[0] / patch_size) * math.ceil(size[1] / patch_size)
