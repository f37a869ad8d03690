"""Small pictures of a bright square on noise, with its mask, and settings of small segmenters, for the tests beside."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from foundling.discovery.export import encode_mask
from foundling.training.instance.settings import MaskRcnn, Solo
from foundling.training.pseudo_labels import ImageLabels, PseudoLabels
from foundling.types import Sample

SIDE = 32  # pixels of a picture: four patches of the embedded networks


def masked_images(folder: Path, count: int = 8, side: int = SIDE) -> tuple[list[Sample], PseudoLabels]:
    """Pictures with one square each, of half their side, at a random place, and labels with its mask."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    samples, images = [], []
    for i in range(count):
        pixels = rng.integers(0, 90, (side, side, 3), dtype=np.uint8)
        x, y = rng.integers(0, side // 2, 2).tolist()
        pixels[y : y + side // 2, x : x + side // 2] = (250, 220, 60)
        path = folder / f"{i}.png"
        Image.fromarray(pixels).save(path)
        samples.append(Sample(path.name, path, i))
        images.append(labelled(i, path.name, rectangles([(x, y, x + side // 2, y + side // 2)], (side, side))))
    return samples, PseudoLabels(tuple(images))


def labelled(image_id: int, name: str, masks: Tensor) -> ImageLabels:
    """The labels of one image with these masks."""
    boxes = np.zeros((len(masks), 4))
    for row, mask in enumerate(masks.numpy()):
        y, x = np.nonzero(mask)
        boxes[row] = (x.min(), y.min(), x.max() + 1, y.max() + 1) if len(x) else (0, 0, 1, 1)
    size = (masks.shape[1], masks.shape[2])
    coded = tuple(encode_mask(mask) for mask in masks.numpy())
    return ImageLabels(name, image_id, size, boxes, np.zeros(len(masks), np.int64), coded)


def rectangles(boxes: Sequence[tuple[int, int, int, int]], size: tuple[int, int]) -> Tensor:
    """Masks [object, height, width] of these boxes (x0, y0, x1, y1)."""
    masks = torch.zeros(len(boxes), *size, dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    return masks


RUN = {"steps": 4, "batch": 4, "warmup": 1, "workers": 0, "weights": "random", "log_every": 2}
SIZES = {"min_sizes": [SIDE], "test_size": SIDE, "channels": 16}


def small(**changes: Any) -> Solo:
    """Settings of a SOLOv2 that trains in a second, its ViT kept as it is."""
    heads = {"width": 16, "depth": 1, "mask_width": 16, "kernel": 16, "grids": [6, 4]}
    return Solo(**SIZES | heads | {"scales": [[1.0, 24.0], [12.0, 2048.0]]} | RUN | changes)


def small_mask_rcnn(**changes: Any) -> MaskRcnn:
    """Settings of a Mask R-CNN that trains in a second, its ViT kept as it is."""
    heads = {"anchors": [[12, 20]], "hidden": 32, "pool": 3, "mask_pool": 7, "mask_width": 16, "mask_depth": 1}
    few = {"rpn_samples": 16, "rpn_proposals": 16, "test_proposals": 16, "roi_samples": 16, "rpn_candidates": 64}
    return MaskRcnn(**SIZES | heads | few | RUN | changes)
