"""Images in, overlap of k-means segments with annotated masks out (Odin, Sec. 3.2 and A.4), with controls beside it."""

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from foundling.backbones import Backbone, extract
from foundling.datasets.images import read_image
from foundling.discovery.facets import patch_facet
from foundling.discovery.kmeans import EVALUATION_ITERATIONS, KS
from foundling.discovery.overlap_controls import CONTROLS, control_levels, feature_levels
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
from foundling.types import Failure, ImageError, ParameterError, PatchFeatures, Sample, Target

SIDES = {"vit": 448, "cnn": 1024}  # pixels of the published evaluation (A.4)
NETWORK = "network"  # the label of what was asked about, beside the controls
WORKERS, AHEAD = 2, 16  # threads that decode, and images decoded before they are asked for

Describe = Callable[[Iterable[Image.Image]], Iterator[PatchFeatures]]  # with the facets "tokens" and "images"


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
    a CNN, its last stage as it leaves the last ReLU), or a function such as :func:`dense_network` gives, which then
    needs a ``side``. ``controls`` are among :data:`CONTROLS`, on the same patch grid. Crowds do not count, images
    without another object neither. ``batch_size`` and ``precision`` as for :func:`foundling.backbones.extract`.

    Images that cannot be used are listed in the result, never fatal. Raises :class:`ParameterError`, before any image
    is read, for settings that are not legal and for samples without any mask; and later for a ``k`` above the number
    of patches.
    """
    side, describe = _described(source, side, facet, batch_size, precision)
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
                for i, kept in enumerate((truths, without_small(truths))):
                    cells = truth_cells(kept, features.grid)
                    for label, found in levels.items():
                        rows[label][i, position] = image_overlap(found[j], cells)
            advance(len(positions))
    overlaps, filtered = ({label: summarise(values[i]) for label, values in rows.items()} for i in (0, 1))
    measured = int(overlaps[NETWORK].counted.sum())
    names = tuple(sample.name for sample in samples)
    return MeasuredOverlap(names, overlaps, filtered, len(samples) - measured - len(failures), failures)


def dense_network(network: nn.Module, mean: Sequence[float], std: Sequence[float], batch_size: int = 16) -> Describe:
    """A source for :func:`measure_overlap`: any network from normalised images to a map of features.

    ``network`` takes ``[image, 3, height, width]``, on its own device and in evaluation mode while it is used, and gives
    ``[image, channel, rows, columns]``; ``mean`` and ``std`` are of RGB in 0..1.
    """

    def describe(images: Iterable[Image.Image]) -> Iterator[PatchFeatures]:
        device = next(network.parameters()).device
        centre, spread = (torch.tensor(x, device=device).view(3, 1, 1) for x in (mean, std))
        stream, start = iter(images), 0
        while batch := tuple(islice(stream, batch_size)):
            pixels = torch.from_numpy(np.stack([np.asarray(image) for image in batch])).to(device)
            maps = _evaluated(network, (pixels.permute(0, 3, 1, 2) / 255 - centre) / spread)
            yield _as_features(maps, batch, start)
            start += len(batch)

    return describe


def _evaluated(network: nn.Module, pixels: Float[Tensor, "image 3 h w"]) -> Float[Tensor, "image channel rows columns"]:
    """The network's output in evaluation mode; the mode that it was in comes back."""
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            maps: Tensor = network(pixels)
    finally:
        network.train(training)
    return maps.float()


def _as_features(
    maps: Float[Tensor, "image channel rows columns"], images: tuple[Image.Image, ...], start: int
) -> PatchFeatures:
    (width, height), (rows, columns) = images[0].size, maps.shape[-2:]
    if height % rows or width % columns or height // rows != width // columns:
        raise ParameterError(
            f"pictures of {width}×{height} pixels give {columns}×{rows} features, which are no square cells of whole "
            f"pixels: choose a side that is a multiple of the network's stride"
        )
    sizes, indices = torch.tensor([[height, width]] * len(images)), tuple(range(start, start + len(images)))
    return PatchFeatures(
        grid=(rows, columns),
        patch_size=height // rows,
        image_sizes=sizes,
        original_sizes=sizes,
        names=tuple(map(str, indices)),
        indices=indices,
        tokens=maps.flatten(2).transpose(1, 2),
        images=images,
    )


def at_stride_32(backbone: Backbone) -> Backbone:
    """A ResNet of the registry (output stride 16) at the stride of its training and of Odin's Table 4: 32 pixels.

    Weights are shared. Raises :class:`ParameterError` for another network.
    """
    stage = getattr(backbone.network, "layer4", None)
    if stage is None:
        raise ParameterError(f"{backbone.name} has no layer4: only a ResNet can be taken at stride 32")
    network = copy.copy(backbone.network)
    network._modules = {**backbone.network._modules, "layer4": copy.deepcopy(stage)}
    for module in network.layer4.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            module.dilation = module.padding = (1, 1)
    network.layer4[0].conv2.stride = network.layer4[0].downsample[0].stride = (2, 2)
    return replace(backbone, network=network, patch_size=32)


def _described(
    source: Backbone | Describe, side: int | None, facet: str, batch_size: int, precision: str
) -> tuple[int, Describe]:
    """The side of the squares, and the function that describes them; settings are checked."""
    if not isinstance(source, Backbone):
        if side is None or side < 1:
            raise ParameterError(f"side is {side}: say how many pixels wide the squares are that the network is given")
        return side, source
    side = SIDES[source.family] if side is None else side
    step = source.patch_size
    if side < step or side % step:
        raise ParameterError(
            f"side is {side} pixels, but the patches of {source.name} have {step}: choose a multiple of {step}, such as "
            f"{max(1, round(side / step)) * step}"
        )
    options: dict[str, Any] = {"batch_size": batch_size, "precision": precision, "max_patches": (side // step) ** 2}
    extract(source, (), (facet, "images"), **options)  # checks them: it reads nothing before it is iterated over
    return side, partial(_of_backbone, source, facet, options)


def _of_backbone(
    backbone: Backbone, facet: str, options: dict[str, Any], images: Iterable[Image.Image]
) -> Iterator[PatchFeatures]:
    for features in extract(backbone, images, (facet, "images"), **options):
        if backbone.family != "cnn":
            yield features
            continue
        # extract() takes one mean off each image's whole map, for the signs of LOST's products; the smallest entry
        # was a zero of the last ReLU
        standard = patch_facet(features, facet)
        changed: dict[str, Any] = {facet: standard - standard.amin((1, 2), keepdim=True)}
        yield replace(features, **changed)


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
    return image.resize((side, side), Image.Resampling.BICUBIC, box=(left, top, left + length, top + length))
