"""Spectral masks: the image cut into k parts, for several k, from one eigendecomposition.

Engstler et al., Understanding Self-Supervised Features for Learning Unsupervised Instance Segmentation, 2023, section
3: k-way spectral clustering of each image's patches by the cosine similarity of their features, for k in {2, …, 6}, all
masks kept. The partitions are those of scikit-learn's ``SpectralClustering``; where the paper is silent see there.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from foundling.discovery.affinity import colour_affinity, cosine_affinity
from foundling.discovery.components import mask_box
from foundling.discovery.eigen import GAP_TOLERANCE, graphs_together, spectrum
from foundling.discovery.facets import PATCH_FACETS, check_choice, check_switch, image_size, patch_facet
from foundling.discovery.restarts import restarted_kmeans
from foundling.types import Discovery, ParameterError, PatchFeatures

KS = (2, 3, 4, 5, 6)  # section 3
PATCH_LIMIT = 6144  # weights of an image in float32 and float64: 450 MB
FLAT = 1e-6  # weights that differ by less are equal up to rounding: there is nothing to cut along


class Partitions(NamedTuple):
    """Each image's patches in ``k`` parts, for several k, and what they rest on.

    ``labels`` 0 to k - 1, numbered in raster order of their first patches; ``memberships`` if asked for; the
    eigenvalues λ_2, λ_3, … of each image; whether its weights are all equal; and the flags.
    """

    labels: dict[int, Int[Tensor, "image patch"]]
    memberships: dict[int, Float[Tensor, "image part patch"]]
    eigenvalues: Float[Tensor, "image pair"]
    flat: Bool[Tensor, " image"]
    flags: list[tuple[str, ...]]


def spectral_masks(
    features: PatchFeatures,
    ks: Sequence[int] = KS,
    facet: str = "keys",
    colour: float | int = 0.0,
    soft: bool = False,
    seed: int = 0,
) -> list[Discovery]:
    """Each image's patches in k parts for every k of ``ks`` (section 3): exactly k masks each, none of them empty.

    The graph's weights are the cosine similarities of the descriptors ``facet`` (keys, queries, values or tokens),
    negative ones 0, plus ``colour`` times a graph of neighbours in colour and position (0 in the paper; see
    :func:`foundling.discovery.affinity.colour_affinity`). Rows of the eigenvectors v_2 to v_k of
    (D - W) v = λ D v are clustered by k-means: best of 10 k-means++ starts from ``seed``, at most 300 iterations. One
    eigendecomposition serves all k.

    Masks come in the order of ``ks`` and, within a k, of their first patches in raster order; ``levels`` says the k of
    each. With ``soft``, ``memberships`` are those of fuzzy c-means of exponent 2 at the final centres: in proportion to
    1 / squared distance. All scores are 1. Values: ``eigenvalue_2`` to ``eigenvalue_K``, K the largest k, and for each
    k ``gap_k`` = λ_(k+1) - λ_k (absent where the graph has only k patches). Flag ``undefined_cut``: a gap of ``ks`` is
    below 1e-9, so that those k - 1 eigenvectors are not defined; the parts are then one choice of many, always the
    same. Where all weights are equal, or features are not finite (flag ``not_finite``; no values), parts are stretches
    of the raster order of nearly equal length.

    Returns one :class:`Discovery` an image, boxes in pixels of the image the network saw. Raises
    :class:`ParameterError` for settings that are not legal, a k above the number of patches, and images of more than
    :data:`PATCH_LIMIT` patches.
    """
    spectral_facets(ks, facet, colour, soft, seed)
    parts = partitions(features, ks, facet, colour, soft, seed)
    levels = np.repeat(np.array(ks), ks)
    masks = np.concatenate([one_hot(parts.labels[k], k).cpu().numpy() for k in ks], axis=1)
    maps = np.concatenate([parts.memberships[k].cpu().numpy() for k in ks], axis=1) if soft else None
    eigenvalues = parts.eigenvalues.cpu().numpy()
    found = []
    for i in range(len(features)):
        grid = masks[i].reshape(-1, *features.grid)
        found.append(
            Discovery(
                boxes=np.stack([mask_box(mask, features.patch_size, image_size(features, i)) for mask in grid]),
                scores=np.ones(len(grid)),
                masks=grid,
                values={} if "not_finite" in parts.flags[i] else spectral_values(eigenvalues[i], ks),
                flags=parts.flags[i],
                levels=levels,
                memberships=None if maps is None else maps[i].reshape(grid.shape),
            )
        )
    return found


def spectral_facets(
    ks: Any = KS, facet: Any = "keys", colour: Any = 0.0, soft: Any = False, seed: Any = 0
) -> tuple[str, ...]:
    """The facets that :func:`spectral_masks` reads; raises :class:`ParameterError` if a setting is not legal."""
    whole = isinstance(ks, list | tuple) and all(isinstance(k, int) and not isinstance(k, bool) for k in ks)
    if not whole or not ks or min(ks) < 1 or len(set(ks)) < len(ks):
        raise ParameterError(f"ks is {ks!r}: give different whole numbers, at least 1 (the paper uses 2, 3, 4, 5, 6)")
    check_choice("facet", facet, PATCH_FACETS)
    if isinstance(colour, bool) or not isinstance(colour, int | float) or not 0 <= colour < float("inf"):
        raise ParameterError(f"colour is {colour!r}: give the weight of colours, 0 or more (the paper uses 0)")
    check_switch("soft", soft)
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ParameterError(f"seed is {seed!r}: give a whole number, 0 or more")
    return (facet, "images") if colour else (facet,)


@torch.no_grad()
def partitions(
    features: PatchFeatures,
    ks: Sequence[int],
    facet: str = "keys",
    colour: float | int = 0.0,
    soft: bool = False,
    seed: int = 0,
) -> Partitions:
    """The partitions that :func:`spectral_masks` makes its masks of; arguments and errors as there."""
    descriptors = patch_facet(features, facet)
    images, patches, _ = descriptors.shape
    if max(ks) > patches:
        raise ParameterError(
            f"k is {max(ks)}, but an image has {patches} patches: choose k at most {patches}, or larger images"
        )
    check_patches(patches)
    size = graphs_together(patches, descriptors.device)
    groups = []
    for start in range(0, images, size):
        some = slice(start, start + size)
        weights = cosine_affinity(descriptors[some])
        weights[~torch.isfinite(descriptors[some].sum((1, 2)))] = torch.nan
        if colour:
            colours = colour_affinity(features.facet("images")[some], features.grid, features.patch_size)
            weights += colour * colours.to(weights.device)
        groups.append(partition(weights, ks, soft, seed))
    return Partitions(
        {k: torch.cat([group.labels[k] for group in groups]) for k in ks},
        {k: torch.cat([group.memberships[k] for group in groups]) for k in ks} if soft else {},
        torch.cat([group.eigenvalues for group in groups]),
        torch.cat([group.flat for group in groups]),
        [flags for group in groups for flags in group.flags],
    )


def check_patches(patches: int) -> None:
    """Raise :class:`ParameterError` for images of more patches than a dense graph is made of."""
    if patches > PATCH_LIMIT:
        raise ParameterError(
            f"an image has {patches} patches, and a graph of more than {PATCH_LIMIT} takes too much memory: "
            "resize it (max_side), or take a network with larger patches"
        )


def partition(
    weights: Float[Tensor, "image patch other"], ks: Sequence[int], soft: bool = False, seed: int = 0
) -> Partitions:
    """Spectral clustering of graphs with these symmetric weights, which are not negative, into k parts for each k."""
    patches = weights.shape[1]
    finite = torch.isfinite(weights.sum((1, 2)))
    weights = weights if finite.all() else torch.where(finite[:, None, None], weights, 0.0)
    flat = _flat(weights)
    found = spectrum(weights, max(ks))
    rows = found.vectors.transpose(1, 2)  # [image, patch, pair]
    stretches = torch.arange(patches, device=rows.device)
    labels, memberships = {}, {}
    for k in ks:
        points = rows[:, :, : k - 1].contiguous()
        clusters, _ = restarted_kmeans(points, k, seed)
        labels[k] = torch.where(flat[:, None].to(rows.device), stretches * k // patches, clusters)
        if soft:
            memberships[k] = fuzzy_memberships(points, one_hot(labels[k], k))
    gaps = spectral_gaps(found.values, ks)
    undefined = (flat.to(gaps.device) | (gaps < GAP_TOLERANCE).any(1)).tolist()
    flags = [
        ("undefined_cut",) * cut if whole else ("not_finite",)
        for cut, whole in zip(undefined, finite.tolist(), strict=True)
    ]
    return Partitions(labels, memberships, found.values, flat, flags)


def _flat(weights: Float[Tensor, "image patch other"]) -> Bool[Tensor, " image"]:
    """Whether all weights between different patches are equal, up to rounding."""
    images, patches, _ = weights.shape
    if patches < 2:
        return torch.ones(images, dtype=torch.bool, device=weights.device)
    flat = _equal(weights[:, :1, 1:])  # the first patch's: nearly always they differ, and that is all there is to do
    if flat.any():
        flat &= _equal(weights.flatten(1)[:, :-1].unflatten(1, (patches - 1, patches + 1))[:, :, 1:])  # no diagonal
    return flat


def _equal(weights: Float[Tensor, "image patch other"]) -> Bool[Tensor, " image"]:
    low, high = weights.amin((1, 2)), weights.amax((1, 2))
    return high - low <= FLAT * high


def spectral_gaps(values: Float[Tensor, "image pair"], ks: Sequence[int]) -> Float[Tensor, "image k"]:
    """λ_(k+1) - λ_k for each k that has one, from λ_2, λ_3, …."""
    padded = torch.nn.functional.pad(values, (1, 0))  # λ_1 = 0 first
    some = [k for k in ks if k < padded.shape[1]]
    return padded[:, some] - padded[:, [k - 1 for k in some]]


def spectral_values(eigenvalues: Float[np.ndarray, " pair"], ks: Sequence[int]) -> dict[str, float]:
    """One image's named numbers: ``eigenvalue_2``, … and ``gap_k``, as :func:`spectral_masks` gives them."""
    padded = np.concatenate([[0.0], eigenvalues])
    values = {f"eigenvalue_{j}": float(padded[j - 1]) for j in range(2, min(max(ks), len(padded)) + 1)}
    return values | {f"gap_{k}": float(padded[k] - padded[k - 1]) for k in ks if k < len(padded)}


def one_hot(labels: Int[Tensor, "image patch"], k: int) -> Bool[Tensor, "image part patch"]:
    """Labels as masks, one for each of the k parts."""
    return labels[:, None] == torch.arange(k, device=labels.device)[:, None]


def fuzzy_memberships(
    points: Float[Tensor, "image patch dimension"], masks: Bool[Tensor, "image part patch"]
) -> Float[Tensor, "image part patch"]:
    """Memberships of fuzzy c-means with exponent 2 at the means of the parts: 1 / squared distance, over its sum.

    A point that lies on one mean or several is shared by these.
    """
    owned = masks.to(points.dtype)
    centres = torch.bmm(owned, points) / owned.sum(2, keepdim=True)
    square = (points[:, None] - centres[:, :, None]).square().sum(3)
    nearest = square.amin(1, keepdim=True)
    closeness = torch.where(square > 0, nearest / square.where(square > 0, 1.0), 1.0)  # 1 at the nearest
    return closeness / closeness.sum(1, keepdim=True)
