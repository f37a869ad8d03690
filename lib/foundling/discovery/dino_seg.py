"""DINO-seg: the patches that hold most of the CLS token's attention, one map a head.

The baseline of Siméoni et al. (LOST, BMVC 2021, section 4.2, Table 6, appendix A.3), after the attention maps of Caron
et al. (DINO, ICCV 2021). The paper keeps "the 0.6 N largest entries"; the published code keeps the largest entries
that hold 60 % of the attention, and so does this.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torchvision.ops import box_iou

from foundling.discovery.components import Mask, label_components, largest_component, mask_box
from foundling.discovery.facets import check_choice, image_size
from foundling.types import Discovery, ParameterError, PatchFeatures

MASS = 0.6
RULES = ("largest", "reference")
CHOICES = ("bcc", "haiou")


def dino_seg(features: PatchFeatures, head: int | str = 4, rule: str = "largest") -> list[Discovery]:
    """DINO-seg: the box of the largest component of the patches that hold 60 % of the CLS token's attention.

    ``head`` is a head of the last block (from 0; the paper's is 4), or picks one an image (appendix A.3): "bcc" the
    head whose component has most patches, "haiou" the head whose box has the highest mean IoU with the other heads'
    boxes. Ties go to the lowest head. ``rule`` "largest" is the sound reading: largest component, box clipped to the
    image. "reference" is what the published code does: the component labelled last never competes, so that a single
    component yields the box of the background, and boxes may reach into the padding. Of equal components the first in
    raster order is taken; of equal attention values at the 60 % limit those with the higher patch index are kept.

    Maps: ``attention`` of the chosen head (sum over all patches at most 1). Values: ``head``. Where there is no
    component, as when nothing is attended to or under "reference" everything is, the result is the whole image,
    flagged ``no_component``, or ``not_finite`` for attention that is not finite.

    Returns one :class:`Discovery` an image. Raises :class:`ParameterError` for a head or a rule that does not exist,
    or if the attention was not extracted.
    """
    dino_seg_facets(head, rule)
    # [image, head, patch]; on the CPU, because cumulative sums on a GPU differ from run to run
    attention = features.facet("attention").float().cpu()
    count = attention.shape[1]
    if isinstance(head, int) and head >= count:
        raise ParameterError(f"head is {head}: this network has heads 0 to {count - 1}; 'bcc' and 'haiou' choose one")
    heads = [head] if isinstance(head, int) else list(range(count))
    kept = attended(attention[:, heads]).numpy()
    maps = attention[:, heads].numpy()
    return [_discovery(features, i, heads, kept[i], maps[i], head, rule) for i in range(len(features))]


def dino_seg_facets(head: Any = 4, rule: Any = "largest") -> tuple[str, ...]:
    """The facets that :func:`dino_seg` reads; raises :class:`ParameterError` if a setting cannot be legal."""
    number = isinstance(head, int) and not isinstance(head, bool) and head >= 0
    if not number and head not in CHOICES:
        raise ParameterError(f"head is {head!r}: give a head's number, from 0, or {' or '.join(map(repr, CHOICES))}")
    check_choice("rule", rule, RULES)
    return ("attention",)


def attended(attention: Float[Tensor, "image head patch"]) -> Bool[Tensor, "image head patch"]:
    """The patches with the largest attention that together hold 60 % of each map's sum."""
    values, order = torch.sort(attention, dim=2, stable=True)
    mass = torch.cumsum(values / values.sum(dim=2, keepdim=True), dim=2)
    return torch.zeros_like(attention, dtype=torch.bool).scatter_(2, order, mass > 1 - MASS)


def reference_component(mask: Mask) -> Mask:
    """The component the published code picks: the largest but for the one labelled last; with one, the background."""
    labels, count = label_components(mask)
    if count <= 1:
        return labels == 0
    return labels == 1 + int(np.argmax(np.bincount(labels.ravel())[1:count]))


def _discovery(
    features: PatchFeatures,
    i: int,
    heads: list[int],
    kept: Bool[np.ndarray, "head patch"],
    maps: Float[np.ndarray, "head patch"],
    choice: int | str,
    rule: str,
) -> Discovery:
    pick, size = (largest_component, image_size(features, i)) if rule == "largest" else (reference_component, None)
    masks = [pick(mask.reshape(features.grid)) for mask in kept]
    patches = [int(mask.sum()) for mask in masks]
    for mask in masks:
        mask[:] = True if not mask.any() else mask
    boxes = [mask_box(mask, features.patch_size, size) for mask in masks]
    chosen = 0
    if choice == "bcc":
        chosen = int(np.argmax(patches))
    elif choice == "haiou":
        chosen = int(np.argmax(mean_overlaps(np.stack(boxes))))
    flags = () if patches[chosen] else ("no_component",) if np.isfinite(maps[chosen]).all() else ("not_finite",)
    return Discovery(
        boxes=boxes[chosen][None],
        scores=np.ones(1),
        masks=masks[chosen][None],
        maps={"attention": maps[chosen].reshape(features.grid).astype(np.float64)},
        values={"head": float(heads[chosen])},
        flags=flags,
    )


def mean_overlaps(boxes: Float[np.ndarray, "box 4"]) -> Float[np.ndarray, " box"]:
    """Each box's mean intersection over union with the other boxes (1 if there is no other)."""
    if len(boxes) == 1:
        return np.ones(1)
    overlap = box_iou(torch.from_numpy(boxes), torch.from_numpy(boxes)).numpy()  # [box, box]
    return (overlap.sum(axis=1) - 1) / (len(boxes) - 1)
