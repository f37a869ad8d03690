"""Proposals of a whole set of images, from what :func:`foundling.discovery.discover_images` found in them."""

import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from pycocotools import mask as coco_mask

from foundling.datasets.images import read_image
from foundling.discovery.export import CATEGORY, decode_mask, decode_memberships
from foundling.discovery.stream import Found
from foundling.files import write_bytes
from foundling.proposals.filters import RLE, Proposals, encode, propose
from foundling.proposals.pixels import bilinear_masks, nearest_masks, refine_masks
from foundling.types import Failure, ParameterError, Sample

UPSAMPLING = ("nearest", "bilinear")
REFINEMENTS = ("none", "edges")


@dataclass(frozen=True)
class ImageProposals:
    """The proposals of one image, best first: COCO RLE ``masks`` with ``scores`` (0..1) and the k they come from.

    ``steps`` tells what was dropped on the way; its own masks are those before edges refined them, if they did.
    ``index`` is the image's position among the samples.
    """

    name: str
    index: int
    image_id: int
    masks: list[RLE]
    scores: Float[np.ndarray, " proposal"]
    levels: Int[np.ndarray, " proposal"]
    steps: Proposals


@dataclass(frozen=True)
class ProposalSet:
    """Proposals of many images: ``images`` in the order of the samples, without those among ``failures``.

    An image fails where its masks or its salient region could not be found, or come from features that are not finite;
    an image of which the filters keep nothing does not fail, it has no masks (see :attr:`without`).
    """

    images: list[ImageProposals]
    failures: list[Failure]

    @property
    def without(self) -> list[str]:
        """The names of the images that the filters left without any proposal."""
        return [image.name for image in self.images if not image.masks]

    def by_index(self, images: int) -> list[list[RLE]]:
        """The masks of each of ``images`` samples, none for those that failed: what ``instance_recall`` reads."""
        masks: list[list[RLE]] = [[] for _ in range(images)]
        for image in self.images:
            masks[image.index] = image.masks
        return masks


def proposals_from_records(
    found: Found,
    samples: Sequence[Sample],
    label: str,
    saliency: tuple[Found, str] | None = None,
    *,
    ks: Collection[int] | None = None,
    upsample: str = "nearest",
    refine: str = "none",
    split: bool = True,
    intersection: float | None = 0.5,
    nms: float | None = 0.8,
    connectivity: int = 8,
) -> ProposalSet:
    """Proposals of each image from the masks that ``label`` found in it (instanceness, Sec. 4).

    ``samples`` are those that ``found`` was made from. ``saliency`` names where the salient region comes from: the
    first mask of that label, found in the same samples by this or another network; ``None`` leaves that filter out.
    ``ks`` (default: all) are the levels to use, of those that an image has. ``upsample`` is ``nearest`` (whole patches,
    as published) or ``bilinear`` (needs memberships: the method's setting ``soft``). The salient region is always made
    of whole patches: large bilinear masks cross its border and score less than 1, so that small ones rank first. With
    ``refine="edges"`` the kept proposals are moved to the edges of the image, which is read for it. The other settings
    are those of :func:`propose`.

    Raises :class:`ParameterError` for a label that was not run, a k that was not found, records of other images,
    memberships that are missing, and values out of range.
    """
    _check(found, label, saliency, ks)
    for name, value, legal in (("upsample", upsample, UPSAMPLING), ("refine", refine, REFINEMENTS)):
        if value not in legal:
            raise ParameterError(f"{name} is {value!r}: choose one of {', '.join(legal)}")
    images, failures = list[ImageProposals](), list(found.failures)
    regions = _regions(found, label, saliency)
    for record in found.records:
        sample, region = samples[record["index"]], next(regions)
        if isinstance(region, Failure):
            failures.append(region)
            continue
        masks, levels = _pixel_masks(record, label, ks, upsample)
        steps = propose(
            masks, levels, region, split=split, intersection=intersection, nms=nms, connectivity=connectivity
        )
        kept = _refined(steps.masks, sample) if refine == "edges" and len(steps.order) else steps.masks
        levels = steps.levels[steps.order]
        images.append(ImageProposals(sample.name, record["index"], sample.image_id, kept, steps.scores, levels, steps))
    return ProposalSet(images, sorted(failures, key=lambda failure: failure.index))


def coco_proposals(proposals: ProposalSet) -> list[dict[str, Any]]:
    """The proposals as a COCO results list, best first in each image; an image without proposals has no entry.

    ``bbox`` is x, y, width, height of the mask in original pixels, ``category_id`` is 1, ``score`` the share of the
    mask that is salient; ``level`` is the k of the partition it comes from, beyond what COCO asks for.
    """
    return [
        {
            "image_id": image.image_id,
            "category_id": CATEGORY,
            "bbox": coco_mask.toBbox(mask).tolist(),
            "score": float(score),
            "level": int(level),
            "segmentation": {"size": list(map(int, mask["size"])), "counts": mask["counts"].decode("ascii")},
        }
        for image in proposals.images
        for mask, score, level in zip(image.masks, image.scores, image.levels, strict=True)
    ]


def write_proposals(path: Path, proposals: ProposalSet) -> Path:
    """Write :func:`coco_proposals` as JSON: whole or not at all, and equal proposals as equal bytes."""
    return write_bytes(path, (json.dumps(coco_proposals(proposals), separators=(",", ":")) + "\n").encode())


def _check(found: Found, label: str, saliency: tuple[Found, str] | None, ks: Collection[int] | None) -> None:
    for where, name in ((found, label), *([saliency] if saliency else [])):
        if name not in where.boxes:
            raise ParameterError(f"no results under {name!r}: choose one of {', '.join(where.boxes)}")
        if where.names != found.names:
            raise ParameterError(
                f"the salient regions are of {len(where.names)} images, the masks of {len(found.names)}, and not the "
                "same ones in the same order: discover both in the same samples"
            )
    present = {int(k) for record in found.records for k in _levels(record["methods"][label])}
    if found.records and (missing := sorted(set(ks or ()) - present)):
        raise ParameterError(f"{label} has no masks of k = {missing[0]}: choose among {sorted(present)}, or run it so")


def _regions(
    found: Found, masks: str, saliency: tuple[Found, str] | None
) -> Iterator[Bool[np.ndarray, "height width"] | Failure | None]:
    """For each record of ``found`` the salient region of its image, or why the image fails; ``None`` if not asked for.

    ``masks`` is the label of the masks that it is for.
    """
    others, label = saliency or (found, "")
    regions = {record["index"]: record for record in others.records}
    failures = {failure.index: failure for failure in others.failures}
    for record in found.records:
        name, i = record["name"], record["index"]
        if failure := _not_finite(record, masks):
            yield failure
        elif saliency is None:
            yield None
        elif i in failures or not regions[i]["methods"][label]["masks"]:
            yield failures.get(i) or Failure(name, i, f"{name}: {label} found no salient region")
        elif failure := _not_finite(regions[i], label):
            yield failure
        elif (other := regions[i])["size"] != record["size"]:
            raise ParameterError(
                f"{name}: its salient region is of an image of {other['size']} pixels, its masks of one of "
                f"{record['size']}: discover both in the same files"
            )
        else:
            mask = decode_mask(other["methods"][label]["masks"][0])
            yield nearest_masks(mask[None], other["patch_size"], other["seen"], other["size"])[0]


def _not_finite(record: dict[str, Any], label: str) -> Failure | None:
    """Why an image whose features were not finite is not used: its masks are stretches of its patches, or all."""
    if "not_finite" not in record["methods"][label].get("flags", ()):
        return None
    return Failure(record["name"], record["index"], f"{record['name']}: the features for {label} are not finite")


def _pixel_masks(
    record: dict[str, Any], label: str, ks: Collection[int] | None, upsample: str
) -> tuple[Bool[np.ndarray, "object height width"], Int[np.ndarray, " object"]]:
    """The masks of the wanted levels in original pixels, and their levels (0 where the method has none)."""
    result = record["methods"][label]
    levels = _levels(result)
    kept = np.flatnonzero(np.isin(levels, list(levels if ks is None else ks)))
    geometry = record["patch_size"], record["seen"], record["size"]
    if upsample == "bilinear":
        if "memberships" not in result:
            raise ParameterError(f"{label} has no memberships, which bilinear upsampling needs: run it with soft=True")
        return bilinear_masks(decode_memberships(result["memberships"])[kept], levels[kept], *geometry), levels[kept]
    grids = [decode_mask(result["masks"][i]) for i in kept]
    return nearest_masks(np.reshape(grids, (-1, *record["grid"])).astype(bool), *geometry), levels[kept]


def _levels(result: dict[str, Any]) -> Int[np.ndarray, " object"]:
    return np.array(result.get("levels", [0] * len(result["masks"])), dtype=np.int64)


def _refined(masks: list[RLE], sample: Sample) -> list[RLE]:
    image = np.asarray(read_image(sample.path, orient=sample.orient).convert("RGB"))
    pixels = np.stack([coco_mask.decode(mask).astype(bool) for mask in masks])
    return [encode(mask) for mask in refine_masks(pixels, image)]
