"""TokenCut: a normalised cut of the graph of similar patches; the object is the side of the most extreme patch.

Wang et al., Self-Supervised Transformers for Unsupervised Object Discovery using Normalized Cut, CVPR 2022.
The authors solve (D - W) v = λ D v densely. Its eigenvectors are D^-1/2 u, for the eigenvectors u of D^-1/2 W D^-1/2
at 1 - λ, of which three suffice; Lanczos iterations find them without touching the rest of the spectrum.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy.linalg import eigh
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from threadpoolctl import ThreadpoolController
from torch import Tensor

from foundling.discovery.components import Mask, component_at, mask_box
from foundling.discovery.facets import PATCH_FACETS, check_choice, check_switch, image_size, patch_facet
from foundling.discovery.products import upper_blocks
from foundling.types import Discovery, ParameterError, PatchFeatures

EPSILON = 1e-5  # weight of the edge between patches that are not similar
DENSE_BELOW = 64  # patches: smaller graphs are solved densely
TOLERANCE = 1e-12  # of the iterative solver, relative to the eigenvalue
# Below this gap λ3 - λ2 the second eigenvector is not defined: the solver's own error of some 1e-12 / gap turns it.
GAP_TOLERANCE = 1e-9
# Patches whose magnitude is the largest up to rounding: the first of them is the seed.
SEED_TOLERANCE = 1e-9
BLAS = ThreadpoolController().select(user_api="blas")
WORKING_SET = 2**26  # similarities in memory at a time


class Cut(NamedTuple):
    """The second eigenvector of (D - W) v = λ D v with unit v'Dv, its eigenvalue and the next one."""

    vector: Float[np.ndarray, " patch"]
    second: float
    third: float | None  # a graph of two patches has none


def tokencut(
    features: PatchFeatures, tau: float | int = 0.2, facet: str = "keys", centre: bool = False
) -> list[Discovery]:
    """TokenCut (section 3): one box an image, from the normalised cut of its patches.

    Patches whose descriptors (``facet``: keys, queries, values or tokens) have a cosine similarity above ``tau``
    (-1 to 1) are joined with weight 1, all others with 1e-5. The second eigenvector is cut at its mean; the foreground
    is the side that holds the patch of largest magnitude (the first of them, if several have it), and the box is that
    of this patch's component, so that the eigenvector's sign does not matter. ``centre`` takes the image's mean
    descriptor off first (not in the paper).

    Maps: ``eigenvector``, positive at the seed. Values: ``eigenvalue`` λ2 and ``gap`` λ3 - λ2 (absent below three
    patches). A gap below 1e-9 leaves the second eigenvector undefined, as exact symmetry does: the result is then one
    of many, always the same one, flagged ``undefined_cut``. With all patches alike, or none alike, it is the whole
    image. Features that are not finite give the whole image too, flagged ``not_finite``.

    Returns one :class:`Discovery` an image, box in pixels of the image the network saw.
    Raises :class:`ParameterError` for a ``tau`` that is no number in its range, or an unknown or missing facet.
    """
    tokencut_facets(tau, facet, centre)
    descriptors = patch_facet(features, facet, centre)
    group = max(1, WORKING_SET // descriptors.shape[1] ** 2)
    found = []
    for first in range(0, len(features), group):
        some = descriptors[first : first + group]
        joined = similar_patches(some, tau).cpu().numpy()
        finite = torch.isfinite(some.sum(dim=(1, 2))).tolist()
        found += [_discovery(features, first + i, joined[i], finite[i]) for i in range(len(some))]
    return found


def tokencut_facets(tau: Any = 0.2, facet: Any = "keys", centre: Any = False) -> tuple[str, ...]:
    """The facets that :func:`tokencut` reads; raises :class:`ParameterError` if a setting is not legal."""
    if isinstance(tau, bool) or not isinstance(tau, int | float) or not -1 <= tau <= 1:
        raise ParameterError(f"tau is {tau!r}: give a cosine similarity between -1 and 1 (the authors use 0.2)")
    check_choice("facet", facet, PATCH_FACETS)
    check_switch("centre", centre)
    return (facet,)


def similar_patches(descriptors: Float[Tensor, "image patch channel"], tau: float) -> Bool[Tensor, "image patch other"]:
    """Which patches' descriptors have a cosine similarity above ``tau``; symmetric to the last bit."""
    unit = torch.nn.functional.normalize(descriptors, dim=2)
    images, patches, _ = unit.shape
    joined = torch.empty(images, patches, patches, dtype=torch.bool, device=unit.device)
    for start, stop, products in upper_blocks(unit, unit):
        above = products > tau
        square = above[:, :, : stop - start]
        square |= square.transpose(1, 2).clone()
        joined[:, start:stop, start:] = above
        joined[:, start:, start:stop] = above.transpose(1, 2)
    return joined


def normalised_cut(joined: Bool[np.ndarray, "patch other"]) -> Cut:
    """Solve (D - W) v = λ D v for the graph that has weight 1 where ``joined`` and 1e-5 elsewhere.

    ``joined`` is symmetric, over at least two patches. Small graphs, and those on which the iterations do not
    converge, are solved densely as the authors do.
    """
    if len(joined) < DENSE_BELOW:
        return dense_cut(joined)
    try:
        return iterative_cut(joined)
    except ArpackNoConvergence:
        return dense_cut(joined)


def dense_cut(joined: Bool[np.ndarray, "patch other"]) -> Cut:
    """The cut from the dense generalised problem, as the authors solve it: time grows with the cube of the patches."""
    weights = np.where(joined, 1.0, EPSILON)
    degree = np.diag(weights.sum(axis=1))
    values, vectors = eigh(degree - weights, degree, subset_by_index=[1, min(2, len(joined) - 1)])
    return Cut(vectors[:, 0], float(values[0]), float(values[1]) if len(values) > 1 else None)


def iterative_cut(joined: Bool[np.ndarray, "patch other"]) -> Cut:
    """The cut from Lanczos iterations on D^-1/2 W D^-1/2; raises ``ArpackNoConvergence`` where they give up.

    The first eigenvector is D^1/2 1, so it is projected out. One sequence of iterations cannot see that an eigenvalue
    is double; the third is therefore sought afresh, with the second projected out as well.
    """
    edges = joined.astype(np.float64)
    patches = len(edges)
    root = np.sqrt(EPSILON * patches + (1 - EPSILON) * edges.sum(axis=1))  # D^1/2

    def product(x: Float[np.ndarray, " patch"]) -> Float[np.ndarray, " patch"]:
        scaled = x / root
        return (EPSILON * scaled.sum() + (1 - EPSILON) * (edges @ scaled)) / root

    random = np.random.default_rng(0)
    known = (root / np.linalg.norm(root))[:, None]
    values, vectors = _largest(product, known, 2, random)
    second = vectors[:, np.argmax(values)]
    others, _ = _largest(product, np.column_stack([known, second]), 1, random)
    third = max(values.min(), others.max())
    return Cut(second / root, float(1 - values.max()), float(1 - min(third, values.max())))


def _largest(
    product: Callable[[Float[np.ndarray, " patch"]], Float[np.ndarray, " patch"]],
    known: Float[np.ndarray, "patch vector"],
    count: int,
    random: np.random.Generator,
) -> tuple[Float[np.ndarray, " eigenvalue"], Float[np.ndarray, "patch eigenvalue"]]:
    """The largest eigenvalues, and their vectors, of a symmetric operator less its ``known`` eigenvectors."""

    def deflated(x: Float[np.ndarray, " patch"]) -> Float[np.ndarray, " patch"]:
        along = known @ (known.T @ x)
        y = product(x - along)
        return y - known @ (known.T @ y) - 2 * along  # the spectrum is within [-1, 1], so -2 comes last

    patches = len(known)
    operator = LinearOperator((patches, patches), matvec=deflated, dtype=np.float64)
    start = random.standard_normal(patches)
    limit = max(50, patches // 10)
    with BLAS.limit(limits=1):  # a product with one vector is too short a task to share
        return eigsh(operator, count, which="LA", v0=start, maxiter=limit, tol=TOLERANCE, rng=random)


def _discovery(features: PatchFeatures, i: int, joined: Bool[np.ndarray, "patch other"], finite: bool) -> Discovery:
    rows, columns = features.grid
    off_diagonal = joined.sum() - np.trace(joined)
    if not finite or off_diagonal in (0, joined.size - len(joined)):  # no graph, or one without structure
        mask, seed, maps = np.ones((rows, columns), dtype=bool), None, {}
        values = {"gap": 0.0} if finite else {}
        flags: tuple[str, ...] = ("undefined_cut",) if finite else ("not_finite",)
    else:
        cut = normalised_cut(joined)
        mask, seed, vector = foreground(cut.vector, features.grid)
        maps, values = {"eigenvector": vector}, {"eigenvalue": cut.second}
        if cut.third is not None:
            values["gap"] = cut.third - cut.second
        flags = ("undefined_cut",) if values.get("gap", 1.0) < GAP_TOLERANCE else ()
    return Discovery(
        boxes=mask_box(mask, features.patch_size, image_size(features, i))[None],
        scores=np.ones(1),
        masks=mask[None],
        seed=seed,
        maps=maps,
        values=values,
        flags=flags,
    )


def foreground(
    vector: Float[np.ndarray, " patch"], grid: tuple[int, int]
) -> tuple[Mask, tuple[int, int], Float[np.ndarray, "rows columns"]]:
    """Cut an eigenvector at its mean: the seed's component on its side, the seed, and the map positive at the seed."""
    size = np.abs(vector)
    seed_patch = int(np.argmax(size >= size.max() * (1 - SEED_TOLERANCE)))
    above = vector > vector.mean()
    side = above if above[seed_patch] else ~above
    seed = divmod(seed_patch, grid[1])
    signed = vector if above[seed_patch] else -vector
    return component_at(side.reshape(grid), seed), seed, signed.reshape(grid)
