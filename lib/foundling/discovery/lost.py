"""LOST: the patch least like the others seeds an object; patches like the seed and its kind make the box.

Siméoni et al., Localizing Objects with Self-Supervised Transformers and no Labels, BMVC 2021, section 3.2 and
appendix A.1. Where the paper calls two patches similar at a product ``>= 0``, the authors' code asks for ``> 0``
(Eqs. 1, 3, 4, 5); so does this.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from foundling.discovery.components import component_at, mask_box
from foundling.discovery.facets import PATCH_FACETS, check_choice, check_switch, image_size, patch_facet
from foundling.discovery.products import BLOCK, upper_blocks
from foundling.types import Discovery, ParameterError, PatchFeatures

# Two patches p, q are compared through left[p] · right[q]: (F, F) for a facet, ([Q K], [K Q]) for Eq. 4.
Pair = tuple[Float[Tensor, "image patch channel"], Float[Tensor, "image patch channel"]]

WORKING_SET = 2**26  # elements of such blocks in memory at a time


def lost(
    features: PatchFeatures,
    k: int = 100,
    facet: str = "keys",
    seed_similarity: str = "facet",
    expansion: str = "facet",
    centre: bool = False,
) -> list[Discovery]:
    """LOST (section 3.2): one box an image, around the patches that resemble its least typical ones.

    ``k`` is the number of lowest-degree patches that may take part in the expansion (all, if the image has fewer;
    1 gives the box before expansion). ``facet`` names the descriptor: keys, queries, values or tokens. Appendix A.1:
    ``seed_similarity="qk"`` compares patches by q·k + k·q (Eq. 4) to find the seed; ``expansion`` names what the
    expansion and the box use: "facet" (the same descriptor), "qk" (Eq. 5) or a facet of its own. ``centre`` takes the
    image's mean descriptor off first, which gives signs to features that have none; the paper's keys need it not.

    Maps: ``degree`` (how many others are similar), ``inverse_degree`` (Figure 2; the paper counts a patch as similar
    to itself, so 1 / (degree + 1)), ``similarity`` (to the seed: the mask before expansion is where it is positive) and
    ``expansion`` (the sum of Eq. 3). Values: ``seed_ties`` (patches that share the lowest degree; see
    :func:`lowest_degrees`) and ``min_degree``. If all patches are equal, all are similar and the box is the image. If
    none is similar to the seed (all-zero features), the box is the seed's own patch, flagged ``seed_alone``.
    Features that are not finite give the whole image, flagged ``not_finite``.

    Returns one :class:`Discovery` an image, box in pixels of the image the network saw.
    Raises :class:`ParameterError` for ``k`` below 1, an unknown choice or a facet that was not extracted.
    """
    lost_facets(k, facet, seed_similarity, expansion, centre)
    scoring = similarity_pair(features, facet if seed_similarity == "facet" else seed_similarity, centre)
    growing = similarity_pair(features, facet if expansion == "facet" else expansion, centre)
    degree = degrees(*scoring)  # [image, patch]
    lowest = lowest_degrees(degree, k)
    similarity, summed = expand(*growing, lowest)
    arrays = [x.cpu().numpy() for x in (degree, lowest[:, 0], similarity, summed)]
    return [_discovery(features, i, *(array[i] for array in arrays)) for i in range(len(features))]


def lost_facets(
    k: Any = 100,
    facet: Any = "keys",
    seed_similarity: Any = "facet",
    expansion: Any = "facet",
    centre: Any = False,
) -> tuple[str, ...]:
    """The facets that :func:`lost` reads under these settings; raises :class:`ParameterError` if one is not legal."""
    if not isinstance(k, int) or isinstance(k, bool) or k < 1:
        raise ParameterError(f"k is {k!r}: give a whole number of patches, at least 1 (the paper uses 100)")
    check_choice("facet", facet, PATCH_FACETS)
    check_choice("seed_similarity", seed_similarity, ("facet", "qk"))
    check_choice("expansion", expansion, ("facet", "qk", *PATCH_FACETS))
    check_switch("centre", centre)
    used = [facet if choice == "facet" else choice for choice in (seed_similarity, expansion)]
    return tuple(
        dict.fromkeys(name for choice in used for name in (("queries", "keys") if choice == "qk" else (choice,)))
    )


def similarity_pair(features: PatchFeatures, descriptor: str, centre: bool = False) -> Pair:
    """What to multiply to compare patches: a facet with itself, or for "qk" queries and keys both ways (Eq. 4)."""
    if descriptor != "qk":
        facet = patch_facet(features, descriptor, centre)
        return facet, facet
    queries, keys = (patch_facet(features, name, centre) for name in ("queries", "keys"))
    return torch.cat([queries, keys], dim=2), torch.cat([keys, queries], dim=2)


def degrees(
    left: Float[Tensor, "image patch channel"], right: Float[Tensor, "image patch channel"]
) -> Int[Tensor, "image patch"]:
    """How many other patches are similar to each patch (Eqs. 1 and 2, or Eq. 4 for the qk pair).

    Only the upper triangle of the symmetric matrix of products is made, and a block of its rows is kept at a time.
    """
    images, patches, _ = left.shape
    group = max(1, WORKING_SET // (BLOCK * patches))
    count = torch.zeros(images, patches, device=left.device)
    for first in range(0, images, group):
        some = slice(first, first + group)
        for start, stop, products in upper_blocks(left[some], right[some]):
            similar = products.gt_(0)  # 1 where a pair is similar
            similar.diagonal(dim1=1, dim2=2).zero_()
            count[some, start:stop] += similar.sum(2)
            count[some, stop:] += similar[:, :, stop - start :].sum(1)
    return count.long()


def lowest_degrees(degree: Int[Tensor, "image patch"], k: int) -> Int[Tensor, "image candidate"]:
    """The seed (Eq. 2) followed by the rest of D_k, the k patches of lowest degree.

    The paper breaks ties arbitrarily, the authors' code as an unstable sort happens to. Here the seed is the first
    patch of lowest degree, and the others of equal degree are taken from the last to the first; of the two orders by
    index this is the one that leads to the authors' boxes on all reference photos (the other differs on one).
    """
    patches = degree.shape[1]
    index = torch.arange(patches, device=degree.device)
    seed = (degree * patches + index).argmin(dim=1, keepdim=True)  # [image, 1]
    rank = degree * patches + (patches - 1 - index)  # all different, hence the same order on every device
    return torch.sort(rank.scatter(1, seed, -1), dim=1).indices[:, :k]


def expand(
    left: Float[Tensor, "image patch channel"],
    right: Float[Tensor, "image patch channel"],
    lowest: Int[Tensor, "image candidate"],
) -> tuple[Float[Tensor, "image patch"], Float[Tensor, "image patch"]]:
    """Seed expansion (section 3.2, Eq. 3 or 5): every patch's similarity to the seed, and to all seeds together.

    ``lowest`` holds D_k, the seed first. The seeds S are the candidates similar to it. The sum over S of the rows of
    the similarity matrix equals the product with the sum of S's descriptors, so the matrix is not needed.
    """
    channels = left.shape[2]
    candidates = left.gather(1, lowest[:, :, None].expand(-1, -1, channels))  # [image, candidate, channel]
    similarity = torch.bmm(right, candidates[:, 0, :, None])[:, :, 0]  # [image, patch]
    is_seed = similarity.gather(1, lowest) > 0  # S
    is_seed[:, 0] = True  # under Eq. 5 a patch need not be similar to itself
    seeds = torch.bmm(is_seed.to(left.dtype)[:, None], candidates)  # [image, 1, channel]
    return similarity, torch.bmm(right, seeds.transpose(1, 2))[:, :, 0]


def _discovery(
    features: PatchFeatures,
    i: int,
    degree: Int[np.ndarray, " patch"],
    seed_patch: np.integer,
    similarity: Float[np.ndarray, " patch"],
    summed: Float[np.ndarray, " patch"],
) -> Discovery:
    seed = divmod(int(seed_patch), features.grid[1])
    mask = component_at((summed > 0).reshape(features.grid), seed)
    flags: tuple[str, ...] = ()
    if not np.isfinite(summed).all():
        mask[:], flags = True, ("not_finite",)
    elif not mask.any():
        mask[seed], flags = True, ("seed_alone",)
    maps = {"degree": degree, "inverse_degree": 1 / (degree + 1), "similarity": similarity, "expansion": summed}
    return Discovery(
        boxes=mask_box(mask, features.patch_size, image_size(features, i))[None],
        scores=np.ones(1),
        masks=mask[None],
        seed=seed,
        maps={name: values.reshape(features.grid).astype(np.float64) for name, values in maps.items()},
        values={"seed_ties": float((degree == degree.min()).sum()), "min_degree": float(degree.min())},
        flags=flags,
    )
