"""A segmenter as what is refined: h sees its soft mask, and its head is what the second phase moves (MOVE's row).

Features and their norm stay as they are. In the authors' code the refined head starts from random numbers (``fresh``)
and the frozen one teaches; there the frozen head is in training mode, so that its masks depend on the batch: ours is in
evaluation mode.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from foundling.backbones import Backbone, load_backbone
from foundling.discovery.stream import Found
from foundling.saliency.segmenter import (
    WIDTHS,
    Segmenter,
    load_segmenter,
    make_segmenter,
    segmenter_arguments,
    segmenter_tensors,
)
from foundling.saliency.segments import discover_segments, segment_box
from foundling.training.refinement.settings import Refinement
from foundling.training.refinement.sources import Look, Source
from foundling.types import Sample

PUBLISHED = "move"  # what "pretrained" means


class SegmenterSource(Source):
    """A segmenter; its output, which L_f keeps near to what it was, is its mask."""

    def __init__(self, settings: Refinement) -> None:
        super().__init__()
        self.segmenter = segmenter_of(settings, "cpu")
        self.segmenter.head.requires_grad_(True)
        self.fresh, self.seed = settings.fresh, settings.seed
        self.mean, self.std, self.multiple = self.segmenter.mean, self.segmenter.std, self.segmenter.stride

    def look(self, views: Float[Tensor, "image 3 side side"], output: bool = True) -> Look:
        mask: Tensor = self.segmenter.head(self.segmenter.features(views)).sigmoid()
        return Look(mask, mask if output else None, mask.detach())

    @torch.no_grad()
    def discover(self, look: Look) -> list[Float[Tensor, "_ 4"]]:
        """One box an image: of a mask in which nothing stands out, the whole view, as in the authors' code."""
        masks = look.inner[:, 0].float().cpu().numpy()
        return [torch.from_numpy(segment_box(mask)[0])[None].float() for mask in masks]

    def trained(self) -> nn.Module:
        return self.segmenter.head

    def begin(self) -> None:
        if self.fresh:
            self.segmenter.head = self.segmenter.fresh_head(self.seed)

    def tensors(self) -> dict[str, Tensor]:
        return segmenter_tensors(self.segmenter)

    def about(self) -> dict[str, Any]:
        return {
            "architecture": "segmenter",
            "arguments": segmenter_arguments(self.segmenter),
            "backbone": self.segmenter.backbone,
            "mean": self.mean,
            "std": self.std,
        }


def segmenter_of(settings: Refinement, device: str | torch.device | None = None) -> Segmenter:
    """The segmenter that ``settings`` begin with, frozen, on ``device``: published, from a file, or untrained.

    Raises what :func:`foundling.saliency.load_segmenter` and :func:`foundling.backbones.load_backbone` raise.
    """
    backbone = load_backbone(settings.backbone, device=device, seed=settings.seed)
    if settings.weights == "random":
        untrained = make_segmenter(backbone, widths_for(backbone), seed=settings.seed)
        return untrained.eval().requires_grad_(False)
    named = PUBLISHED if settings.weights == "pretrained" else settings.weights
    return load_segmenter(named, backbone.device, backbone)


def widths_for(backbone: Backbone) -> list[int]:
    """The published widths, as far as the patches are large."""
    doublings = backbone.patch_size.bit_length() - 1
    return [WIDTHS[0], *[WIDTHS[-1]] * doublings]


def found_by_segmenter(
    settings: Refinement,
    weights: str | Path,
    samples: Sequence[Sample],
    *,
    device: str | torch.device | None = None,
    out: Path | None = None,
) -> Found:
    """What the segmenter in the file ``weights``, or that which ``settings`` begin with, finds in images as they are.

    See :func:`foundling.saliency.segments.discover_segments` for ``out``; the label is ``segmenter``.
    """
    segmenter = segmenter_of(settings.model_copy(update={"weights": str(weights)}), device)
    return discover_segments(segmenter, samples, out=out)
