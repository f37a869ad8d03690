"""TokenCut: a normalised cut of the graph of similar patches; the object is the side of the most extreme patch.

Wang et al., Self-Supervised Transformers for Unsupervised Object Discovery using Normalized Cut, CVPR 2022.
The authors solve (D - W) v = λ D v densely; here :mod:`foundling.discovery.eigen` finds the few eigenvectors needed.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from foundling.discovery.components import Mask, component_at, mask_box
from foundling.discovery.eigen import GAP_TOLERANCE, graphs_together, spectrum
from foundling.discovery.facets import PATCH_FACETS, check_choice, check_switch, image_size, patch_facet
from foundling.discovery.products import upper_blocks
from foundling.types import Discovery, ParameterError, PatchFeatures

EPSILON = 1e-5  # weight of the edge between patches that are not similar
# Patches whose magnitude is the largest up to rounding: the first of them is the seed.
SEED_TOLERANCE = 1e-9


class Cut(NamedTuple):
    """One image's second eigenvector of (D - W) v = λ D v with unit v'Dv, its eigenvalue and the next one.

    A graph whose patches are all alike, or none alike, has no ``vector``; one of two patches no ``third``.
    """

    vector: Float[np.ndarray, " patch"] | None
    second: float
    third: float | None

    @property
    def values(self) -> dict[str, float]:
        """``eigenvalue`` and ``gap``, as far as there are any."""
        if self.vector is None:
            return {"gap": 0.0}
        return {"eigenvalue": self.second} | ({} if self.third is None else {"gap": self.third - self.second})

    @property
    def undefined(self) -> bool:
        """Whether another vector would do as well."""
        return self.values.get("gap", 1.0) < GAP_TOLERANCE


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
    group = graphs_together(descriptors.shape[1], descriptors.device)
    found = []
    for first in range(0, len(features), group):
        some = descriptors[first : first + group]
        finite = torch.isfinite(some.sum(dim=(1, 2))).tolist()
        cuts = normalised_cuts(similar_patches(some, tau))
        found += [_discovery(features, first + i, cut, finite[i]) for i, cut in enumerate(cuts)]
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


def normalised_cuts(joined: Bool[Tensor, "image patch other"]) -> list[Cut]:
    """Solve (D - W) v = λ D v for the graphs that have weight 1 where ``joined`` and 1e-5 elsewhere.

    ``joined`` is symmetric. All images are solved together on its device.
    """
    patches = joined.shape[1]
    off_diagonal = joined.sum((1, 2)) - joined.diagonal(dim1=1, dim2=2).sum(1)
    cut = ((off_diagonal > 0) & (off_diagonal < patches * (patches - 1))).tolist()
    if not any(cut):
        return [Cut(None, 0.0, None) for _ in cut]
    some = joined if all(cut) else joined[torch.tensor(cut)]
    place = "cpu" if joined.device.type == "mps" else joined.device  # MPS has no float64
    one, epsilon = torch.tensor([1.0, EPSILON], dtype=torch.float64, device=place)
    found = spectrum(torch.where(some.to(place), one, epsilon), 2)
    solved = iter(zip(found.vectors[:, :1].cpu().numpy(), found.values.tolist(), strict=True))
    return [_cut(*next(solved)) if has_parts else Cut(None, 0.0, None) for has_parts in cut]


def _cut(vectors: Float[np.ndarray, "one patch"], values: list[float]) -> Cut:
    return Cut(vectors[0], values[0], values[1] if len(values) > 1 else None)


def _discovery(features: PatchFeatures, i: int, cut: Cut, finite: bool) -> Discovery:
    if cut.vector is None or not finite:  # no graph, or one without structure
        mask, seed, maps = np.ones(features.grid, dtype=bool), None, {}
    else:
        mask, seed, vector = foreground(cut.vector, features.grid)
        maps = {"eigenvector": vector}
    return Discovery(
        boxes=mask_box(mask, features.patch_size, image_size(features, i))[None],
        scores=np.ones(1),
        masks=mask[None],
        seed=seed,
        maps=maps,
        values=cut.values if finite else {},
        flags=("undefined_cut",) * cut.undefined if finite else ("not_finite",),
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
