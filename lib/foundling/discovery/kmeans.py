"""K-means of every image's patches by themselves, batched on the device (Odin, Sec. 3.1 and 3.2).

The paper states neither the first centres nor the number of iterations. Measured on 80 scenes of version 1 (tokens of
a ViT trained by Odin, three seeds): k random patches as first centres and 10 iterations give an ABO_i of 33.2, 20
iterations 33.4, 100 iterations 33.4; first centres by k-means++ give tighter clusters (inertia 19 % lower at K = 128)
that cover objects no better (32.7 after 20 iterations; scikit-learn's k-means, one seed, 32.0). Hence random patches,
10 iterations in training and 20 in evaluation.
"""

import zlib
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Generator, Tensor

from foundling.discovery.facets import patch_facet
from foundling.types import Discovery, ParameterError, PatchFeatures

KS = (1, 2, 4, 8, 16, 32, 64, 128)  # Odin, Sec. 3.2: 255 proposals an image
ITERATIONS = 10  # in training
EVALUATION_ITERATIONS = 20
CHECK_EVERY = 8  # iterations between two looks at whether anything still moves: looking makes a GPU wait


def kmeans(
    features: Float[Tensor, "image patch channel"],
    k: int,
    generator: Generator | Sequence[Generator],
    iterations: int = ITERATIONS,
    normalise: bool = True,
) -> Int[Tensor, "image patch"]:
    """The cluster, 0 to ``k`` - 1, of every patch of every image, each image by itself.

    Patches become unit vectors first unless ``normalise`` is false. The first centres are ``k`` different patches, all
    equally likely. ``generator`` is one on the CPU for the batch, so that every device draws the same, or one for each
    image, so that an image's clusters do not depend on the rest of the batch. Stops before ``iterations`` where nothing
    moves. A cluster that loses all its patches keeps its centre, and may end without any. Ties go to the lower index.
    Computed in float32 under any autocast.

    Raises :class:`ParameterError` for ``k`` above the number of patches, and for other values that are not legal.
    """
    return kmeans_levels(features, (k,), generator, iterations, normalise)[:, 0]


@torch.no_grad()
def kmeans_levels(
    features: Float[Tensor, "image patch channel"],
    ks: Sequence[int],
    generator: Generator | Sequence[Generator],
    iterations: int = ITERATIONS,
    normalise: bool = True,
) -> Int[Tensor, "image level patch"]:
    """As :func:`kmeans`, for several ``k`` of the same features: one level each, from the first of the same centres."""
    _check(features.shape[1], ks, iterations)
    with torch.autocast(features.device.type, enabled=False):
        x = features.float()
        x = F.normalize(x, dim=-1) if normalise else x
        first = _uniform(generator, *x.shape[:2]).argsort(1)[:, : max(ks)].to(x.device)
        centres = torch.gather(x, 1, first[..., None].expand(-1, -1, x.shape[-1]))
        return torch.stack([_lloyd(x, centres[:, :k], iterations) for k in ks], 1)


def kmeans_masks(
    features: PatchFeatures,
    ks: Sequence[int] = KS,
    facet: str = "tokens",
    seed: int = 0,
    iterations: int = EVALUATION_ITERATIONS,
) -> list[Discovery]:
    """The clusters of each of ``ks`` runs of k-means as proposals: 255 masks an image at the published settings.

    Empty clusters are left out; the order is that of ``ks``. Nothing ranks the proposals: all scores are 1. Boxes are
    the tight ones in pixels of the image that the network saw. The same ``seed`` gives an image of the same name the
    same masks in any batch. Returns one :class:`Discovery` an image; raises :class:`ParameterError` as :func:`kmeans`.
    """
    x = patch_facet(features, facet)
    levels = kmeans_levels(x, ks, generators(features.names, seed), iterations).cpu().numpy()
    rows, columns = features.grid
    found = []
    for labels, (height, width) in zip(levels, features.image_sizes.tolist(), strict=True):
        masks = np.concatenate([level == np.unique(level)[:, None] for level in labels]).reshape(-1, rows, columns)
        boxes = np.array([_box(mask, features.patch_size) for mask in masks]).clip(max=[width, height, width, height])
        found.append(Discovery(boxes, np.ones(len(masks)), masks))
    return found


def generators(names: Sequence[str], seed: int) -> list[Generator]:
    """A generator for each image that depends on its name and ``seed`` alone."""
    return [torch.Generator().manual_seed(zlib.crc32(f"{seed} {name}".encode())) for name in names]


def _box(mask: np.ndarray, patch_size: int) -> Float[np.ndarray, " 4"]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], dtype=np.float64) * patch_size


def _check(patches: int, ks: Sequence[int], iterations: int) -> None:
    if not ks or min(ks) < 1:
        raise ParameterError(f"k is {min(ks, default=None)}: k-means needs at least one cluster")
    if max(ks) > patches:
        raise ParameterError(
            f"k is {max(ks)}, but an image has {patches} patches: choose k at most {patches}, or larger images"
        )
    if iterations < 0:
        raise ParameterError(f"iterations is {iterations}: choose 0 or more")


def _uniform(generator: Generator | Sequence[Generator], images: int, count: int) -> Float[Tensor, "image count"]:
    """Numbers in 0..1, drawn on the CPU."""
    if isinstance(generator, Generator):
        return torch.rand(images, count, generator=generator)
    return torch.stack([torch.rand(count, generator=one) for one in generator])


def _lloyd(x: Tensor, centres: Tensor, iterations: int) -> Int[Tensor, "image patch"]:
    labels, clusters = _nearest(x, centres), torch.arange(centres.shape[1], device=x.device)
    for i in range(1, iterations + 1):
        owned = (labels[..., None] == clusters).to(x.dtype)
        counts = owned.sum(1)[..., None]
        centres = torch.where(counts > 0, owned.transpose(1, 2) @ x / counts.clamp(min=1), centres)
        before, labels = labels, _nearest(x, centres)
        if i % CHECK_EVERY == 0 and torch.equal(before, labels):
            break
    return labels


def _nearest(x: Tensor, centres: Tensor) -> Tensor:
    half = centres.square().sum(-1)[:, None] / 2
    return torch.baddbmm(half, x, centres.transpose(1, 2), beta=-1).argmax(-1)
