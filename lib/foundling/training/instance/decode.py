"""From what SOLOv2 says of an image to its objects (Wang et al. 2020, §3.3; FreeSOLO's code)."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pycocotools import mask as coco_mask
from torch import Tensor

from foundling.training.instance.networks import Said
from foundling.training.instance.nms import matrix_nms, point_nms
from foundling.training.instance.settings import MASK_STRIDE, Solo
from foundling.types import Detections

Size = tuple[int, int]


def find_instances(said: Said, image: int, settings: Solo, seen: Size, original: Size) -> Detections:
    """The objects of one ``image`` of those that the network ``said`` something of, the surest first.

    ``seen`` is the (height, width) that it was shown at, without padding, ``original`` that of the image itself, in
    whose pixels the masks are, and the boxes, which are tight. Scores are the cell's times the mean of what is inside
    the mask, which matrix NMS has lowered.
    """
    scores, filters = candidates(said, image, settings)
    features = said[2][image]
    maps = torch.einsum("pc,chw->phw", filters, features).sigmoid()
    masks = maps > settings.mask_threshold
    area = masks.flatten(1).sum(1)
    scores = scores * (maps * masks).flatten(1).sum(1) / area.clamp(min=1)
    kept = torch.nonzero(area >= settings.smallest).flatten()
    kept = kept[scores[kept].argsort(descending=True, stable=True)][: settings.candidates]
    scores = matrix_nms(masks[kept], scores[kept], sigma=settings.nms_sigma)
    order = scores.argsort(descending=True, stable=True)
    order = order[scores[order] >= settings.kept_threshold][: settings.detections]
    whole = enlarged(maps[kept[order]], seen, original) > settings.mask_threshold
    return as_detections(whole.cpu().numpy(), scores[order].cpu().double().numpy())


def candidates(said: Said, image: int, settings: Solo) -> tuple[Float[Tensor, " cell"], Float[Tensor, "cell kernel"]]:
    """Scores and filters of the cells that may hold an object, over all grids."""
    categories, kernels, _ = said
    scores, filters = [], []
    for logits, kernel in zip(categories, kernels, strict=True):
        thinned = point_nms(logits[image].sigmoid())
        row, column = torch.nonzero(thinned > settings.score_threshold, as_tuple=True)
        scores.append(thinned[row, column])
        filters.append(kernel[image, :, row, column].T)
    return torch.cat(scores), torch.cat(filters)


def enlarged(maps: Float[Tensor, "mask r c"], seen: Size, original: Size) -> Float[Tensor, "mask h w"]:
    """Maps at a quarter of a padded image as maps of the ``original`` one, of which ``seen`` was shown."""
    if not len(maps):
        return maps.new_zeros(0, *original)
    full = F.interpolate(maps[:, None], scale_factor=MASK_STRIDE, mode="bilinear")[..., : seen[0], : seen[1]]
    if seen != original:
        full = F.interpolate(full, original, mode="bilinear")
    return full[:, 0]


def as_detections(
    masks: Bool[np.ndarray, "mask h w"],
    scores: Float[np.ndarray, " mask"],
    labels: Any = None,
) -> Detections:
    """Masks of an image with their tight boxes, those that are empty left out; labels are 0 where none are given."""
    kept = np.flatnonzero(masks.any((1, 2)))
    codes = coco_mask.encode(np.asfortranarray(masks[kept].transpose(1, 2, 0).astype(np.uint8)))
    boxes = np.array([coco_mask.toBbox(code) for code in codes], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    given = np.zeros(len(masks), np.int64) if labels is None else labels
    told = tuple({"size": list(code["size"]), "counts": code["counts"].decode("ascii")} for code in codes)
    return Detections(boxes, scores[kept], given[kept], told)
