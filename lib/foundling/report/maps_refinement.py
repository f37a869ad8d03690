"""What a network makes of a few images before and after it was refined, as rows of pictures (Figs. 1 and 4)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from foundling.backbones import extract, load_backbone
from foundling.backbones.prepare import Limits, prepare
from foundling.datasets.images import MAX_PIXELS, read_image
from foundling.discovery.methods import METHODS
from foundling.report.figures import Picture
from foundling.report.figures_refinement import MapRow
from foundling.types import Sample

MAPS = {"lost": ("inverse_degree", "LOST: 1 / degree"), "tokencut": ("eigenvector", "TokenCut: eigenvector")}
MASK = "mask of the segmenter"


def map_rows(
    settings: Any,
    weights: Mapping[str, str | Path],
    samples: Sequence[Sample],
    methods: Mapping[str, Mapping[str, Any]],
    others: Mapping[str, Sequence[Any]] | None = None,
    *,
    device: Any = None,
    max_side: int | None = None,
) -> list[MapRow]:
    """A row for each method of ``methods`` (lost, tokencut, their settings) and each of ``weights``: name -> a file, or
    what :func:`foundling.backbones.load_backbone` takes; of a segmenter, its soft masks instead.

    ``settings`` are those of the refinement. ``others`` has second boxes for some names. Only images whose sides are no
    larger than ``max_side`` keep their size; boxes and maps are of pixels as the network saw them.
    """
    if settings.method == "segmenter":
        return [_masks(settings, name, file, samples, others, device) for name, file in weights.items()]
    networks = {name: load_backbone(settings.backbone, file, device, settings.seed) for name, file in weights.items()}
    rows = []
    for method, given in methods.items():
        kind, words = MAPS[method]
        facets = METHODS[method].facets(**given)
        for name, network in networks.items():
            found = [
                METHODS[method].run(next(extract(network, [one], facets, max_side=max_side)), **given)[0]
                for one in samples
            ]
            maps = [one.maps.get(kind) for one in found]
            second = (others or {}).get(name) if method == settings.method else None
            boxes = [one.boxes[:1] for one in found]
            rows.append(MapRow(f"{name}, {words}", kind, maps, network.patch_size, boxes, second))
    return rows


def pictures(samples: Sequence[Sample], max_side: int | None = None) -> list[Picture]:
    """The images as networks see them: shrunk to ``max_side``, if that is given."""
    return [
        Image.fromarray(prepare(one, 0, Limits(1, max_side, MAX_PIXELS, keep_images=False)).pixels.numpy())
        for one in samples
    ]


def _masks(
    settings: Any,
    name: str,
    file: str | Path,
    samples: Sequence[Sample],
    others: Mapping[str, Sequence[Any]] | None,
    device: Any,
) -> MapRow:
    from foundling.saliency.segments import segment_box, soft_mask
    from foundling.training.refinement.segmenter import segmenter_of

    segmenter = segmenter_of(settings.model_copy(update={"weights": str(file)}), device)
    pixels = [np.array(read_image(one.path, orient=one.orient)) for one in samples]
    masks = [soft_mask(segmenter, torch.from_numpy(one)) for one in pixels]
    boxes = [segment_box(mask)[0][None] for mask in masks]
    return MapRow(f"{name}, {MASK}", MASK, masks, 1, boxes, (others or {}).get(name))
