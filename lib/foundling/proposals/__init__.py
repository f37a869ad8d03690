"""Masks of many granularities to a clean set of mask proposals for each image (instanceness, Sec. 4)."""

from foundling.proposals.filters import Proposals, components, propose
from foundling.proposals.pixels import bilinear_masks, nearest_masks, refine_masks
from foundling.proposals.records import (
    ImageProposals,
    ProposalSet,
    coco_proposals,
    proposals_from_records,
    write_proposals,
)

__all__ = [
    "ImageProposals",
    "ProposalSet",
    "Proposals",
    "bilinear_masks",
    "coco_proposals",
    "components",
    "nearest_masks",
    "proposals_from_records",
    "propose",
    "refine_masks",
    "write_proposals",
]
