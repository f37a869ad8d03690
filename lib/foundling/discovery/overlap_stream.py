"""Images in, overlap of k-means segments with annotated masks out (Odin, Sec. 3.2 and A.4), with controls beside it."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from foundling.backbones import Backbone
from foundling.datasets.images import read_image
from foundling.discovery.facets import patch_facet
from foundling.discovery.kmeans import EVALUATION_ITERATIONS, KS
from foundling.discovery.overlap_controls import CONTROLS, control_levels, feature_levels
from foundling.discovery.overlap_sources import Describe, described
from foundling.discovery.progress import progress as show_progress
from foundling.evaluation.overlap import (
    Overlap,
    central_square,
    image_overlap,
    square_truths,
    summarise,
    truth_cells,
    without_small,
)
from foundling.types import Failure, ImageError, ParameterError, Sample, Target

NETWORK = "network"  # the label of what was asked about, beside the controls
WORKERS, AHEAD = 2, 16  # threads that decode, and images decoded before they are asked for


@dataclass(frozen=True)
class MeasuredOverlap:
    """How well segments cover the annotated objects of a dataset.

    ``overlaps`` (all masks, as in Table 4) and ``filtered`` (as in Table A.1) have an entry for ``"network"`` and one
    for each control; the rows of :attr:`Overlap.images` are those of ``names``, nan where an image was not counted.
    ``empty`` is the number of images without an object in their central square, which no mean counts; ``failures``
    lists the images that could not be used.
    """

    names: tuple[str, ...]
    overlaps: dict[str, Overlap]
    filtered: dict[str, Overlap]
    empty: int
    failures: list[Failure]


def measure_overlap(
    source: Backbone | Describe,
    samples: Sequence[Sample],
    *,
    side: int | None = None,
    ks: Sequence[int] = KS,
    controls: Sequence[str] = tuple(CONTROLS),
    facet: str = "tokens",
    iterations: int = EVALUATION_ITERATIONS,
    seed: int = 0,
    batch_size: int = 16,
    precision: str = "fp32",
    progress: bool = True,
) -> MeasuredOverlap:
    """ABO_i, ABO_c and OR of the clusters of patch features: every k-means of ``ks`` proposes its masks.

    The central square of each image is resized to ``side`` pixels (default: 448 for a ViT, 1024 for a CNN, as
    published) and so are its masks (nearest neighbour). ``source`` is a backbone, of which ``facet`` is clustered (of
    a CNN, its last stage as it leaves the last ReLU), or what :func:`foundling.discovery.overlap_sources.dense_network`
    makes of any network, which needs a ``side``. ``controls`` are among :data:`CONTROLS`, on the same patch grid.
    Crowds do not count, images without another object neither. ``batch_size`` and ``precision`` as for
    :func:`foundling.backbones.extract`.

    Images that cannot be used are listed in the result, never fatal. Raises :class:`ParameterError`, before any image
    is read, for settings that are not legal and for samples without any mask; and later for a ``k`` above the number
    of patches.
    """
    side, describe = described(source, side, facet, batch_size, precision)
    _check(samples, controls)
    wanted = [i for i, sample in enumerate(samples) if sample.target is not None and (~sample.target.crowd).any()]
    failures: list[Failure] = []
    order: list[int] = []  # positions in samples of the images that the network was given
    rows = {label: np.full((2, len(samples), 3), np.nan) for label in (NETWORK, *controls)}
    with show_progress(len(wanted), "measuring", progress and bool(wanted)) as advance:
        for features in describe(_squares(samples, wanted, side, order, failures)):
            positions = [order[i] for i in features.indices]
            features = replace(features, names=tuple(samples[i].name for i in positions))
            levels = {NETWORK: feature_levels(features, patch_facet(features, facet), ks, iterations, seed)}
            levels |= {label: control_levels(label, features, ks, iterations, seed) for label in controls}
            for j, position in enumerate(positions):
                truths = square_truths(_target(samples[position]), side)
                cells = [truth_cells(kept, features.grid) for kept in (truths, without_small(truths))]
                for label, found in levels.items():
                    rows[label][:, position] = [image_overlap(found[j], kept) for kept in cells]
            advance(len(positions))
    overlaps, filtered = ({label: summarise(values[i]) for label, values in rows.items()} for i in (0, 1))
    measured = int(overlaps[NETWORK].counted.sum())
    names = tuple(sample.name for sample in samples)
    return MeasuredOverlap(names, overlaps, filtered, len(samples) - measured - len(failures), failures)


def _check(samples: Sequence[Sample], controls: Sequence[str]) -> None:
    if unknown := [label for label in controls if label not in CONTROLS]:
        raise ParameterError(f"unknown control {unknown[0]!r}: choose among {', '.join(CONTROLS)}")
    targets = [sample.target for sample in samples if sample.target is not None]
    if all(target.masks is None for target in targets):
        what = "boxes but no masks" if targets else "no annotations"
        raise ParameterError(
            f"these {len(samples)} images have {what}, and overlap is measured with masks: open a dataset that has "
            "them, with masks=True (scenes, coco, coco20k)"
        )


def _target(sample: Sample) -> Target:
    assert sample.target is not None
    return sample.target


def _squares(
    samples: Sequence[Sample], wanted: Iterable[int], side: int, order: list[int], failures: list[Failure]
) -> Iterator[Image.Image]:
    """The central squares of the wanted samples, decoded ahead; ``order`` gets the position of each that is given."""
    queue: deque[tuple[int, Future[Image.Image]]] = deque()
    pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="decode")

    def first() -> Iterator[Image.Image]:
        position, future = queue.popleft()
        try:
            square = future.result()
        except ImageError as error:
            failures.append(Failure(samples[position].name, position, str(error)))
        else:
            order.append(position)
            yield square

    try:
        for position in wanted:
            queue.append((position, pool.submit(read_square, samples[position], side)))
            if len(queue) > AHEAD:
                yield from first()
        while queue:
            yield from first()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def read_square(sample: Sample, side: int) -> Image.Image:
    """The central square of an annotated image, resized to ``side`` pixels (bicubic).

    Raises :class:`ImageError` for a file that cannot be read, and for masks that are absent or of another size.
    """
    image = read_image(sample.path, orient=sample.orient)
    masks = _target(sample).masks
    if masks is None:
        raise ImageError(f"{sample.name}: one of its objects has no usable mask; correct the annotation")
    for mask in masks:
        if list(mask["size"]) != [image.height, image.width]:
            raise ImageError(
                f"{sample.name}: the image is {image.width}×{image.height} pixels, but its masks are "
                f"{mask['size'][1]}×{mask['size'][0]}; annotate this image, or restore the one that was annotated"
            )
    top, left, length = central_square(image.height, image.width)
    square = image.crop((left, top, left + length, top + length))  # resize(box=…) would look beyond its edges
    return square.resize((side, side), Image.Resampling.BICUBIC)
