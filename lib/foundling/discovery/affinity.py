"""The weights of a graph of patches: how alike their descriptors are, and how alike and close their colours.

Melas-Kyriazi et al., Deep Spectral Methods, CVPR 2022, section 3.3: the cosine similarity of features, negative ones
taken as 0, and λ times a graph of nearest neighbours in colour and position, which the paper on instance-ness leaves
out (Engstler et al., 2023, section 3).
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from scipy.spatial import cKDTree
from torch import Tensor

from foundling.discovery.products import upper_blocks

# How many neighbours, and the weight of positions (0 to 1 over the image) beside colours (0 to 1).
COLOUR_PASSES = ((20, 2.0), (10, 0.1))

Weights = Float[Tensor, "image patch other"]


def cosine_affinity(descriptors: Float[Tensor, "image patch channel"], diagonal: bool = False) -> Weights:
    """Cosine similarities of all pairs of patches, 0 where they are negative; symmetric to the last bit.

    The ``diagonal`` is 0 unless asked for: scikit-learn's Laplacian, and hence its spectral clustering, ignores it. A
    descriptor of length 0 resembles none. Computed in the descriptors' precision, on their device.
    """
    unit = F.normalize(descriptors, dim=2)
    images, patches, _ = unit.shape
    weights = torch.empty(images, patches, patches, dtype=unit.dtype, device=unit.device)
    for start, stop, products in upper_blocks(unit, unit):
        products.clamp_(min=0)
        square = products[:, :, : stop - start]
        square += square.transpose(1, 2).clone()
        square /= 2
        weights[:, start:stop, start:] = products
        weights[:, start:, start:stop] = products.transpose(1, 2)
    if not diagonal:
        weights.diagonal(dim1=1, dim2=2).zero_()
    return weights


def colour_affinity(
    images: Sequence[Image.Image], grid: tuple[int, int], patch_size: int, diagonal: bool = False
) -> Float[Tensor, "image patch other"]:
    """How often two patches are among each other's nearest neighbours in colour and position: 0 to 4, float32, CPU.

    Each image, continued by its outermost pixels to ``grid`` whole patches of ``patch_size`` pixels (the code of the
    paper crops instead), is shrunk to one pixel a patch (bilinearly). In each of two passes, patches are joined with
    their 20 nearest (weight 2 on position), then 10 nearest (weight 0.1), themselves among them; each hit, in either
    direction, adds 1. Neighbours are all patches in smaller images. The ``diagonal`` is 0 unless asked for.
    """
    rows, columns = grid
    graphs = torch.zeros(len(images), rows * columns, rows * columns)
    y, x = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 1, columns), indexing="ij")
    patch = np.arange(rows * columns)[:, None]
    for graph, image in zip(graphs.numpy(), images, strict=True):
        beyond = (0, rows * patch_size - image.height), (0, columns * patch_size - image.width), (0, 0)
        whole = Image.fromarray(np.pad(np.asarray(image.convert("RGB")), beyond, mode="edge"))
        small = whole.resize((columns, rows), Image.Resampling.BILINEAR)
        colours = np.asarray(small, dtype=np.float64).reshape(-1, 3) / 255
        for neighbours, weight in COLOUR_PASSES:
            points = np.column_stack([colours, weight * x.ravel(), weight * y.ravel()])
            nearest = cKDTree(points).query(points, min(neighbours, len(points)))[1].reshape(len(points), -1)
            np.add.at(graph, (patch, nearest), 1)
            np.add.at(graph, (nearest, patch), 1)
    if not diagonal:
        graphs.diagonal(dim1=1, dim2=2).zero_()
    return graphs
