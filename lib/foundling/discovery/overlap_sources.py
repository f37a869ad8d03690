"""What can be asked for features of squares: a backbone of the registry, or any network with a map of features."""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from foundling.backbones import Backbone, extract
from foundling.backbones.apply import evaluating, normalise
from foundling.backbones.cnn import as_it_left_relu
from foundling.types import ParameterError, PatchFeatures

SIDES = {"vit": 448, "cnn": 1024}  # pixels of the published evaluation (Odin, A.4)

Describe = Callable[[Iterable[Image.Image]], Iterator[PatchFeatures]]  # with the facets "tokens" and "images"


def dense_network(network: nn.Module, mean: Sequence[float], std: Sequence[float], batch_size: int = 16) -> Describe:
    """A source for :func:`measure_overlap`: any network from normalised images to a map of features.

    ``network`` takes ``[image, 3, height, width]`` and gives ``[image, channel, rows, columns]``; it runs where its
    parameters are, in evaluation mode. ``mean`` and ``std`` are of RGB in 0..1.
    """

    def describe(images: Iterable[Image.Image]) -> Iterator[PatchFeatures]:
        device = next(network.parameters()).device
        stream, start = iter(images), 0
        while batch := tuple(islice(stream, batch_size)):
            pixels = torch.from_numpy(np.stack([np.asarray(image) for image in batch])).to(device)
            with evaluating(network), torch.no_grad():
                maps = network(normalise(pixels.permute(0, 3, 1, 2) / 255, mean, std)).float()
            yield _as_features(maps, batch, start)
            start += len(batch)

    return describe


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

    Raises :class:`ParameterError` for another network.
    """
    if "layer4" not in dict(backbone.network.named_children()):
        raise ParameterError(f"{backbone.name} has no layer4: only a ResNet can be taken at stride 32")
    network = copy.copy(backbone.network)
    stage: Any = copy.deepcopy(network.layer4)
    network._modules = {**network._modules, "layer4": stage}
    for module in stage.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            module.dilation = module.padding = (1, 1)
    stage[0].conv2.stride = stage[0].downsample[0].stride = (2, 2)
    return replace(backbone, network=network, patch_size=32)


def described(
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
            f"side is {side} pixels, but the patches of {source.name} have {step}: "
            f"choose a multiple of {step}, such as {max(1, round(side / step)) * step}"
        )
    options: dict[str, Any] = {"batch_size": batch_size, "precision": precision, "max_patches": (side // step) ** 2}
    extract(source, (), (facet, "images"), **options)  # checks them: it reads nothing before it is iterated over
    return side, partial(_of_backbone, source, facet, options)


def _of_backbone(
    backbone: Backbone, facet: str, options: dict[str, Any], images: Iterable[Image.Image]
) -> Iterator[PatchFeatures]:
    for features in extract(backbone, images, (facet, "images"), **options):
        yield as_it_left_relu(backbone, features, facet)
