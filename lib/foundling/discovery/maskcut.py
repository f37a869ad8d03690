"""MaskCut: TokenCut again and again, each time without the patches that it has found, for several masks an image.

Wang et al., Cut and Learn for Unsupervised Object Detection and Instance Segmentation (CutLER), CVPR 2023, section 3.2,
and the authors' code, whose rules these are; masks stay on the patch grid, without the code's CRF.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from foundling.discovery.components import Mask, component_at, mask_box
from foundling.discovery.eigen import graphs_together
from foundling.discovery.facets import PATCH_FACETS, check_choice, check_switch, image_size, patch_facet
from foundling.discovery.spectral import check_patches
from foundling.discovery.tokencut import SEED_TOLERANCE, Cut, normalised_cuts, similar_patches
from foundling.types import Discovery, ParameterError, PatchFeatures

SAME = 0.5  # a mask of higher IoU with the one before is a repetition
SMALL = 0.01  # a later mask of no larger share of the grid is rejected


def maskcut(
    features: PatchFeatures,
    n: int = 3,
    tau: float | int = 0.15,
    facet: str = "keys",
    centre: bool = False,
) -> list[Discovery]:
    """MaskCut (section 3.2): up to ``n`` masks an image that do not overlap, from as many normalised cuts.

    The graph is that of :func:`foundling.discovery.tokencut.tokencut`, with the published ``tau`` of CutLER. A cut's
    foreground is the side above the mean that holds the patch of largest magnitude, unless three or four corners of the
    image lie in it: then it is the other side. The mask is the 4-connected component of the foreground's most extreme
    patch. The eigenvector's sign, on which the authors' rule of corners depends, is the one that makes its entry of
    largest magnitude positive. The next cut takes the patches of all masks so far as similar to none. From the second
    on, a mask is rejected if its IoU with the previous one is above 0.5, or it has at most 1 % of the patches. As in
    the authors' code, nothing is taken from the graph after a rejection, and the mask that comes up again has no
    previous one to be compared with. Each mask is returned less those before it; empty ones are left out.

    ``centre`` takes the image's mean descriptor off first (not in the paper). Masks are in the order found; scores are
    1. Maps ``eigenvector_1``, …, positive at the seed, and values ``eigenvalue_1``, ``gap_1``, … are those of the cuts
    in turn; ``seed`` is the first. Flag ``undefined_cut``: the gap of a cut is below 1e-9. With all patches alike, or
    none alike, there is one mask, the whole image; features that are not finite give that too, flagged ``not_finite``.

    Returns one :class:`Discovery` an image, with one mask at least. Raises :class:`ParameterError` for settings that
    are not legal, and images of more than :data:`foundling.discovery.spectral.PATCH_LIMIT` patches.
    """
    maskcut_facets(n, tau, facet, centre)
    descriptors = patch_facet(features, facet, centre)
    check_patches(descriptors.shape[1])
    group = graphs_together(descriptors.shape[1], descriptors.device)
    found = []
    for first in range(0, len(features), group):
        some = descriptors[first : first + group]
        finite = torch.isfinite(some.sum(dim=(1, 2))).tolist()
        states = [_State(features.grid, finite=whole) for whole in finite]
        joined = similar_patches(some, tau)
        for _ in range(n):
            for state, cut in zip(states, normalised_cuts(_unpainted(joined, states, tau)), strict=True):
                state.add(cut)
        found += [_discovery(features, first + i, state) for i, state in enumerate(states)]
    return found


def maskcut_facets(n: Any = 3, tau: Any = 0.15, facet: Any = "keys", centre: Any = False) -> tuple[str, ...]:
    """The facets that :func:`maskcut` reads; raises :class:`ParameterError` if a setting is not legal."""
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        raise ParameterError(f"n is {n!r}: give a whole number of masks, at least 1 (the authors use 3)")
    if isinstance(tau, bool) or not isinstance(tau, int | float) or not -1 <= tau <= 1:
        raise ParameterError(f"tau is {tau!r}: give a cosine similarity between -1 and 1 (the authors use 0.15)")
    check_choice("facet", facet, PATCH_FACETS)
    check_switch("centre", centre)
    return (facet,)


@dataclass
class _State:
    """One image between two cuts: what is painted over, the previous mask (empty if rejected), and what was found."""

    grid: tuple[int, int]
    finite: bool = True
    painted: Mask = field(init=False)
    previous: Mask | None = None
    masks: list[Mask] = field(default_factory=list)
    cuts: list[Cut] = field(default_factory=list)
    maps: list[Float[np.ndarray, "rows columns"]] = field(default_factory=list)
    seed: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        self.painted = np.zeros(self.grid, dtype=bool)

    def add(self, cut: Cut) -> None:
        """Take one more cut into account."""
        if cut.vector is None or not self.finite:
            return
        mask, seed, vector = corner_foreground(cut.vector, self.grid)
        self.seed = self.seed or seed
        self.cuts.append(cut)
        self.maps.append(vector)
        if self.previous is not None and (_iou(mask, self.previous) > SAME or mask.mean() <= SMALL):
            mask = np.zeros_like(mask)
        self.previous = mask
        left = mask & ~self.painted
        self.painted |= mask
        if left.any():
            self.masks.append(left)


def corner_foreground(
    vector: Float[np.ndarray, " patch"], grid: tuple[int, int]
) -> tuple[Mask, tuple[int, int], Float[np.ndarray, "rows columns"]]:
    """The foreground's component at its seed, the seed, and the map positive there; the vector's sign is as it is."""
    above = (vector > vector.mean()).reshape(grid)
    corners = above[[0, 0, -1, -1], [0, -1, 0, -1]].sum()
    size = np.abs(vector)
    extreme = np.argmax(size >= size.max() * (1 - SEED_TOLERANCE))
    if corners >= 3 or not above.flat[extreme]:
        vector, above = -vector, ~above
    top = vector.max()
    seed = divmod(int(np.argmax(vector >= top - SEED_TOLERANCE * abs(top))), grid[1])
    return component_at(above, seed), seed, vector.reshape(grid)


def _unpainted(
    joined: Bool[Tensor, "image patch other"], states: list[_State], tau: float
) -> Bool[Tensor, "image patch other"]:
    """The graphs when painted patches have no descriptor, hence a similarity of 0 to each other and to all."""
    painted = torch.from_numpy(np.stack([state.painted.ravel() for state in states])).to(joined.device)
    if not painted.any():
        return joined
    gone = painted[:, :, None] | painted[:, None]
    return joined | gone if tau < 0 else joined & ~gone


def _iou(a: Mask, b: Mask) -> float:
    union = (a | b).sum()
    return float((a & b).sum() / union) if union else 0.0


def _discovery(features: PatchFeatures, i: int, state: _State) -> Discovery:
    masks = np.stack(state.masks or [np.ones(features.grid, dtype=bool)])
    values = {f"{name}_{j}": value for j, cut in enumerate(state.cuts, 1) for name, value in cut.values.items()}
    undefined = not state.cuts or any(cut.undefined for cut in state.cuts)
    return Discovery(
        boxes=np.stack([mask_box(mask, features.patch_size, image_size(features, i)) for mask in masks]),
        scores=np.ones(len(masks)),
        masks=masks,
        seed=state.seed,
        maps={f"eigenvector_{j}": vector for j, vector in enumerate(state.maps, 1)},
        values=values,
        flags=("undefined_cut",) * undefined if state.finite else ("not_finite",),
    )
