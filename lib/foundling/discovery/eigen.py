"""Normalised cuts: the smallest eigenvalues of (D - W) v = λ D v, for the graphs of a batch of images on their device.

The vectors are v = D^-1/2 u, for the eigenvectors u of D^-1/2 W D^-1/2 at 1 - λ. The largest of these are found on the
CPU image by image with ARPACK (:mod:`foundling.discovery.lanczos`), three times as fast there as what other devices do
for all images of a batch at once: a block Krylov method with thick restarts and full orthogonalisation (Golub & Van
Loan, Matrix Computations, 4th ed., sections 10.3.6 and 10.5). A block sees eigenvalues of multiplicity up to its size.
All is done in float64, with vectors as rows; where the device has no float64 (MPS), on the CPU.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.linalg import eigh
from scipy.linalg.blas import dsymv
from torch import Tensor

from foundling.discovery.lanczos import Vector, lanczos

BLOCK = 8  # vectors iterated on together
BASIS = {"cpu": 64, "cuda": 32}  # vectors kept before a restart; CUDA diagonalises many matrices at once up to 32
DENSE_BELOW = 128  # patches: smaller graphs are solved densely
# Largest residual of a converged eigenvector of unit length: nearly separate parts have gaps of some 1e-7.
TOLERANCE = 1e-12
PRODUCTS = 120  # of a block with the matrix; after them an image is solved densely
CHECK_EVERY = 2  # products between two looks at the residuals: looking makes a GPU wait
# Below this gap between two eigenvalues the subspace is not defined: the solver's own error, over the gap, turns it.
GAP_TOLERANCE = 1e-9
WORKING_SET = {"cpu": 1, "cuda": 2**27}  # weights solved for at a time, in elements: one image at least

Rows = Float[Tensor, "image vector patch"]


class Spectrum(NamedTuple):
    """Eigenvalues λ_2, λ_3, … (ascending; 0 to 2) of each image's graph, and their eigenvectors with unit v'Dv.

    λ_1 = 0, with its constant vector, is left out. In each vector the first of the entries of largest magnitude is
    positive. ``dense`` says which images were solved densely.
    """

    values: Float[Tensor, "image pair"]
    vectors: Float[Tensor, "image pair patch"]
    dense: Bool[Tensor, " image"]


class _Operator(NamedTuple):
    """D^-1/2 W D^-1/2 less three times the projection on its first eigenvector, which moves that one's 1 to -2."""

    weights: Float[Tensor, "image patch other"]
    scale: Float[Tensor, "image 1 patch"]  # D^-1/2
    alone: Float[Tensor, "image 1 patch"]  # 1 at patches without any edge
    first: Float[Tensor, "image 1 patch"]  # D^1/2 1, of unit length

    def product(self, x: Rows) -> Rows:
        y = torch.bmm(x * self.scale, self.weights) * self.scale
        return y + x * self.alone - 3 * torch.bmm(x, self.first.transpose(1, 2)) * self.first


def spectrum(
    weights: Float[Tensor, "image patch other"],
    count: int,
    tolerance: float = TOLERANCE,
    together: int | None = None,
    engine: str | None = None,
) -> Spectrum:
    """The ``count`` smallest eigenvalues after the first of each image's graph, and their eigenvectors.

    ``weights`` W are symmetric, finite and not negative. A patch without any edge is a component of its own, as in
    scikit-learn's Laplacian. ``engine`` is ``"arpack"`` or ``"block"`` (by default the first on the CPU, the second
    elsewhere). Graphs of fewer than :data:`DENSE_BELOW` patches, those whose residuals stay above ``tolerance``, and
    with the block method those of which more than 8 pairs are wanted, are solved densely. ``together`` is how many
    images the block method iterates on at a time (by default :func:`graphs_together`).

    Returns at most ``patches - 1`` pairs, in float64, on the device of ``weights`` (from MPS: on the CPU).
    """
    weights = weights.cpu() if weights.device.type == "mps" else weights
    images, patches, _ = weights.shape
    size = together or graphs_together(patches, weights.device)
    engine = engine or ("arpack" if weights.device.type == "cpu" else "block")
    pairs = min(count, patches - 1)
    parts = [_spectrum(weights[i : i + size], pairs, tolerance, engine) for i in range(0, images, size)]
    return Spectrum(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def graphs_together(patches: int, device: torch.device) -> int:
    """How many images' graphs to make and solve at a time: one on the CPU, where more are no faster."""
    return max(1, WORKING_SET.get(device.type, WORKING_SET["cuda"]) // patches**2)


def _spectrum(weights: Float[Tensor, "image patch other"], count: int, tolerance: float, engine: str) -> Spectrum:
    operator = _operator(weights)
    images, patches, _ = weights.shape
    dense = torch.ones(images, dtype=torch.bool, device=weights.device)
    values = weights.new_empty(images, count, dtype=torch.float64)
    vectors = weights.new_empty(images, count, patches, dtype=torch.float64)
    if patches >= DENSE_BELOW and engine == "arpack":
        for i in range(images):
            found = lanczos(_product_of(operator, i), patches, count, tolerance)
            if found is not None:
                values[i], vectors[i], dense[i] = *map(torch.from_numpy, found), False
    elif patches >= DENSE_BELOW and count <= BLOCK:
        values, vectors, residual = block_krylov(operator.product, images, patches, count, tolerance, weights.device)
        dense = ~(residual <= tolerance)
    for i in torch.nonzero(dense).flatten().tolist():
        values[i], vectors[i] = _dense(_Operator(*(part[i : i + 1] for part in operator)), count)
    vectors = vectors * operator.scale
    size = vectors.abs()
    peak = (size >= size.amax(2, keepdim=True) * (1 - 1e-9)).to(torch.uint8).argmax(2, keepdim=True)
    return Spectrum((1 - values).clamp(0, 2), vectors * torch.gather(vectors, 2, peak).sign(), dense)


def _operator(weights: Float[Tensor, "image patch other"]) -> _Operator:
    weights = weights.double()
    degree = weights.sum(2)[:, None]
    alone = degree == 0
    degree = torch.where(alone, 1.0, degree)
    root = degree.sqrt()
    first = root / torch.linalg.vector_norm(root, dim=2, keepdim=True)
    return _Operator(weights, 1 / root, alone.double(), first)


def _product_of(operator: _Operator, i: int) -> Callable[[Vector], Vector]:
    """The product of one image's operator with one vector, in NumPy."""
    weights, scale, alone, first = (part[i].cpu().numpy() for part in operator)
    scale, alone, first = scale[0], alone[0], first[0]

    def product(x: Vector) -> Vector:
        y = dsymv(1.0, weights.T, scale * x)  # reads one half of the weights: their memory takes most of the time
        return scale * y + alone * x - 3 * (first @ x) * first

    return product


def _dense(operator: _Operator, count: int) -> tuple[Tensor, Tensor]:
    """The largest eigenpairs of one image, from its whole matrix: time grows with the cube of the patches."""
    weights, scale, alone, first = (part[0].cpu().numpy() for part in operator)
    patches = len(weights)
    if not count:
        return torch.zeros(0), torch.zeros(0, patches)
    matrix = weights * scale
    matrix *= scale.T
    matrix -= 3 * first * first.T
    matrix[np.diag_indices(patches)] += alone[0]
    values, vectors = eigh(matrix, subset_by_index=[patches - count, patches - 1], overwrite_a=True)
    return torch.from_numpy(values[::-1].copy()), torch.from_numpy(vectors.T[::-1].copy())


def block_krylov(
    product: Callable[[Rows], Rows],
    images: int,
    patches: int,
    count: int,
    tolerance: float,
    device: torch.device,
) -> tuple[Float[Tensor, "image pair"], Float[Tensor, "image pair patch"], Float[Tensor, " image"]]:
    """The ``count`` largest eigenvalues of a symmetric ``product``, their unit vectors, and the largest residual norm.

    Iterations go on for all images until the last has converged. The first block is the same for each image.
    """
    room = BASIS.get(device.type, BASIS["cuda"])
    generator = torch.Generator().manual_seed(0)
    start, spare = torch.randn(2, 1, BLOCK, patches, generator=generator, dtype=torch.float64).to(device)
    basis = torch.empty(images, room, patches, dtype=torch.float64, device=device)
    image = torch.empty_like(basis)  # the products of the basis
    block = _orthonormal(start.expand(images, -1, -1), basis[:, :0], spare)
    used = 0
    for products in range(1, PRODUCTS + 1):
        basis[:, used : used + BLOCK] = block
        image[:, used : used + BLOCK] = product(block)
        used += BLOCK
        full = used + BLOCK > room
        if full or products % CHECK_EVERY == 0 or products == PRODUCTS:
            values, vectors, images_of = _rayleigh_ritz(basis[:, :used], image[:, :used])
            gone = images_of - values[:, :, None] * vectors
            residual = torch.linalg.vector_norm(gone[:, :count], dim=2).amax(1)
            if products == PRODUCTS or bool((residual <= tolerance).all()):
                break
        if full:  # start again from the best vectors: what is missing from each spans the next block
            basis[:, :BLOCK], image[:, :BLOCK], used = vectors, images_of, BLOCK
            block = _orthonormal(gone, basis[:, :used], spare.roll(products, 2))
        else:
            block = _orthonormal(image[:, used - BLOCK : used], basis[:, :used], spare.roll(products, 2))
    return values[:, :count], vectors[:, :count], residual


def _rayleigh_ritz(
    basis: Rows, image: Rows
) -> tuple[Float[Tensor, "image pair"], Float[Tensor, "image pair patch"], Float[Tensor, "image pair patch"]]:
    """The best :data:`BLOCK` approximate eigenvectors in the span of ``basis``, with their values and products."""
    inner = torch.bmm(basis, image.transpose(1, 2))
    values, turn = torch.linalg.eigh((inner + inner.transpose(1, 2)) / 2)
    best = turn.flip(2)[:, :, :BLOCK].transpose(1, 2)
    return values.flip(1)[:, :BLOCK], torch.bmm(best, basis), torch.bmm(best, image)


def _orthonormal(
    block: Rows, basis: Float[Tensor, "image known patch"], spare: Float[Tensor, "1 vector patch"]
) -> Rows:
    """Rows of unit length, at right angles to each other and to ``basis``, that span ``block`` where it has full rank.

    Directions that are no more than rounding give way to those of ``spare``: the span is exhausted, or too small.
    """
    for _ in range(2):
        block = block - torch.bmm(torch.bmm(block, basis.transpose(1, 2)), basis)
        length = torch.linalg.vector_norm(block, dim=2, keepdim=True)
        block = block * torch.where(length > 1e-14, length.reciprocal(), 0.0)
        values, turn = torch.linalg.eigh(torch.bmm(block, block.transpose(1, 2)))
        sound = values > 1e-13
        factor = torch.where(sound, values.clamp(min=1e-13).rsqrt(), 0.0)
        fresh = spare / torch.linalg.vector_norm(spare, dim=2, keepdim=True)
        block = torch.bmm(turn.transpose(1, 2) * factor[:, :, None], block)
        block = torch.where(sound[:, :, None], block, fresh)
    return block
