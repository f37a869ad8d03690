"""Masks of many granularities to a clean set of proposals for one image (instanceness, Sec. 4 and A.2.1).

The masks of all k are pooled; a mask that is not connected gives way to its components; what lies less than half in the
salient region goes; what remains is deduplicated by non-maximum suppression. All of it happens on the pixels of the
original image, because the salient region may come from another network, with other patches.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int
from pycocotools import mask as coco_mask

from foundling.types import ParameterError

RLE = dict[str, Any]
STEPS = ("empty", "saliency", "duplicate")  # why a candidate is not kept
CONNECTIVITIES = (4, 8)


@dataclass(frozen=True)
class Proposals:
    """The candidates of one image and what became of each.

    ``pooled`` are the masks that went in, ``candidates`` these or their connected components; all masks are COCO RLE
    dicts. For each candidate ``sources`` is its mask among the pooled ones, ``levels`` the k of that mask's partition,
    ``areas`` its pixels, ``intersections`` the share of them that is salient (0..1; 1 where no salient region was
    given). ``dropped`` is the step of :data:`STEPS` that took it, ``""`` if it is kept; ``duplicate_of`` the kept
    candidate that suppressed it, else -1. ``order`` lists the kept candidates, best first.
    """

    pooled: list[RLE]
    candidates: list[RLE]
    sources: Int[np.ndarray, " candidate"]
    levels: Int[np.ndarray, " candidate"]
    areas: Int[np.ndarray, " candidate"]
    intersections: Float[np.ndarray, " candidate"]
    dropped: tuple[str, ...]
    duplicate_of: Int[np.ndarray, " candidate"]
    order: Int[np.ndarray, " kept"]

    @property
    def masks(self) -> list[RLE]:
        """The proposals, best first."""
        return [self.candidates[i] for i in self.order]

    @property
    def scores(self) -> Float[np.ndarray, " kept"]:
        """The score of each proposal: its intersection score. The paper gives none, so ties are common."""
        return self.intersections[self.order]

    def stages(self) -> dict[str, list[RLE]]:
        """The masks before any step and after each: ``pooled``, ``split``, ``saliency``, ``nms``."""
        salient = [m for m, step in zip(self.candidates, self.dropped, strict=True) if step in ("", "duplicate")]
        return {"pooled": self.pooled, "split": self.candidates, "saliency": salient, "nms": self.masks}


def propose(
    masks: Bool[np.ndarray, "object height width"],
    levels: Int[np.ndarray, " level"],
    saliency: Bool[np.ndarray, "rows columns"] | None,
    *,
    split: bool = True,
    intersection: float | None = 0.5,
    nms: float | None = 0.8,
    connectivity: int = 8,
) -> Proposals:
    """Split, filter and deduplicate the masks of one image (Sec. 4, A.2.1).

    ``masks`` are those of all partitions, in pixels; ``levels`` the k of each. With ``split``, components (4- or
    8-connected, see ``connectivity``) replace the mask they come from. A candidate stays where at least
    ``intersection`` of its pixels are in ``saliency``, and no kept candidate before it overlaps it with an IoU above
    ``nms``. Candidates come in the order of their share of salient pixels (largest first), then of pixels (most
    first), then of k (smallest first), then of ``masks`` (components from left to right). ``None`` for
    ``intersection`` or ``nms`` leaves that step out; so does ``None`` for ``saliency``. Masks without a pixel are never
    kept.

    Raises :class:`ParameterError` for shapes that do not fit, and for a share or connectivity out of range.
    """
    _check(masks, levels, saliency, intersection, nms, connectivity)
    upright = np.ascontiguousarray(masks.transpose(0, 2, 1)).transpose(0, 2, 1)  # column-major, as run lengths are
    pooled = [encode(mask) for mask in upright]
    parts = [components(mask, connectivity) for mask in upright] if split else [[mask] for mask in pooled]
    candidates = [part for one in parts for part in one]
    sources = np.repeat(np.arange(len(masks)), [len(one) for one in parts])
    areas = np.array([coco_mask.area(mask) for mask in candidates], dtype=np.int64)  # of a list, it fails beyond 255
    shares = np.ones(len(candidates)) if saliency is None else _shares(candidates, encode(saliency))
    salient = shares >= (0.0 if intersection is None else intersection)
    order, duplicate_of = _suppress(candidates, shares, areas, levels[sources], salient & (areas > 0), nms)
    dropped = np.select([areas == 0, ~salient, duplicate_of >= 0], STEPS, "")
    return Proposals(
        pooled, candidates, sources, levels[sources], areas, shares, tuple(dropped.tolist()), duplicate_of, order
    )


def encode(mask: Bool[np.ndarray, "height width"]) -> RLE:
    """A mask as a COCO RLE dict, as pycocotools gives it."""
    return coco_mask.encode(np.asfortranarray(mask).view(np.uint8))


def components(mask: Bool[np.ndarray, "height width"], connectivity: int = 8) -> list[RLE]:
    """The connected components of a mask as COCO RLE dicts, in the order of their first pixels, column by column."""
    turned = np.ascontiguousarray(mask.T).view(np.uint8)
    labels = cv2.connectedComponents(turned, connectivity=connectivity)[1].ravel()
    starts = np.append(0, np.flatnonzero(labels[1:] != labels[:-1]) + 1)  # of runs of one label
    ends, owners = np.append(starts[1:], labels.size), labels[starts]
    inside = owners > 0
    starts, ends, owners = starts[inside], ends[inside], owners[inside]
    by_owner = np.argsort(owners, kind="stable")
    _, first, sizes = np.unique(owners, return_index=True, return_counts=True)
    groups = np.split(by_owner, np.cumsum(sizes)[:-1]) if len(sizes) else []
    return [_from_runs(starts[groups[i]], ends[groups[i]], mask.shape) for i in np.argsort(first)]


def _from_runs(starts: Int[np.ndarray, " run"], ends: Int[np.ndarray, " run"], size: tuple[int, ...]) -> RLE:
    """The RLE of the pixels from each start up to its end, in column-major order."""
    borders = np.stack([starts, ends], axis=1).ravel()
    counts = np.diff(borders, prepend=0, append=size[0] * size[1])
    kept = counts if counts[-1] else counts[:-1]  # as pycocotools encodes it
    return coco_mask.frPyObjects({"size": list(size), "counts": kept.tolist()}, *size)


def _shares(candidates: list[RLE], saliency: RLE) -> Float[np.ndarray, " candidate"]:
    """The share of each mask's pixels that are salient: area(M ∩ S) / area(M), 0 for an empty mask."""
    if not candidates:
        return np.zeros(0)
    return np.asarray(coco_mask.iou(candidates, [saliency], [1]), dtype=np.float64)[:, 0]


def _suppress(
    candidates: list[RLE],
    shares: Float[np.ndarray, " candidate"],
    areas: Int[np.ndarray, " candidate"],
    levels: Int[np.ndarray, " candidate"],
    alive: Bool[np.ndarray, " candidate"],
    nms: float | None,
) -> tuple[Int[np.ndarray, " kept"], Int[np.ndarray, " candidate"]]:
    """The kept candidates, best first, and for each candidate which of them suppressed it (-1: none)."""
    ranked = np.lexsort((levels, -areas, -shares))  # the last key counts most; stable
    ranked = ranked[alive[ranked]]
    duplicate_of = np.full(len(candidates), -1)
    if nms is None or not len(ranked):
        return ranked, duplicate_of
    masks = [candidates[i] for i in ranked]
    close = np.asarray(coco_mask.iou(masks, masks, [0] * len(masks))) > nms
    for i, candidate in enumerate(ranked.tolist()):
        if duplicate_of[candidate] < 0:
            later = ranked[i + 1 :][close[i, i + 1 :]]
            duplicate_of[later[duplicate_of[later] < 0]] = candidate
    return ranked[duplicate_of[ranked] < 0], duplicate_of


def _check(
    masks: Bool[np.ndarray, "object height width"],
    levels: Int[np.ndarray, " level"],
    saliency: Bool[np.ndarray, "rows columns"] | None,
    intersection: float | None,
    nms: float | None,
    connectivity: int,
) -> None:
    if len(levels) != len(masks):
        raise ParameterError(f"{len(levels)} levels for {len(masks)} masks: give the k of each mask's partition")
    if saliency is not None and saliency.shape != masks.shape[1:]:
        raise ParameterError(
            f"saliency has {'×'.join(map(str, saliency.shape))} pixels, the masks "
            f"{'×'.join(map(str, masks.shape[1:]))}: give both in pixels of the original image"
        )
    for name, value in (("intersection", intersection), ("nms", nms)):
        if value is not None and not 0 <= value <= 1:
            raise ParameterError(f"{name} is {value}: choose a share from 0 to 1, or None to leave the step out")
    if connectivity not in CONNECTIVITIES:
        raise ParameterError(f"connectivity is {connectivity}: choose 4 or 8 neighbours")
