"""The parameters of 03_instanceness: which partitions of an image are made, and what becomes a proposal."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from foundling.parameters_base import BackboneName, Parameters

PartCount = Annotated[int, Field(ge=2, le=64)]


class Instanceness(Parameters):
    """03_instanceness: which features tell two of a kind apart."""

    split: str = Field("multi_val", description="part of the dataset; empty: its default (scenes: single_val)")
    limit: int = Field(60, ge=0, description="number of images, from the first; 0: all of them")
    compare_backbones: list[BackboneName] = Field(
        ["scenes_mae", "scenes_odin:random"],
        description="further backbones to set beside it; name:random means untrained",
    )
    ks: list[PartCount] = Field(
        [2, 3, 4, 5, 6], min_length=1, description="numbers of parts into which every image is cut, 2 to 64 each"
    )
    facet: Literal["keys", "queries", "values", "tokens"] = Field(
        "keys", description="what describes a patch: keys, queries, values, tokens"
    )
    proposal_backbone: str = Field("", description="whose parts become proposals: one of this run; empty: backbone")
    saliency_backbone: str = Field("", description="whose cut in two says what is salient; empty: backbone")
    proposal_ks: list[PartCount] = Field(
        [2, 3, 4, 5], min_length=1, description="the k, among ks, whose parts become proposals"
    )
    split_parts: bool = Field(True, description="connected components instead of parts in several pieces")
    intersection: float = Field(
        0.5, ge=0, le=1, description="share of a proposal that is salient, at least; 0 to 1, 0 keeps all"
    )
    nms: float = Field(0.8, ge=0, le=1, description="IoU above which a proposal is a duplicate, 0 to 1; 1 keeps all")

    @model_validator(mode="after")
    def _named(self) -> "Instanceness":
        if len(set(self.ks)) < len(self.ks) or sorted(self.ks) != self.ks:
            raise ValueError(f"ks is {self.ks}: give each k once, the smallest first")
        if absent := sorted(set(self.proposal_ks) - set(self.ks)):
            raise ValueError(f"proposal_ks asks for k = {absent[0]}, which is not among ks ({self.ks}): add it there")
        if self.backbone in self.compare_backbones and self.weights != "pretrained":
            raise ValueError(
                f"compare_backbones has {self.backbone!r}, the name of the run's own backbone, whose weights are "
                f"{self.weights!r}: results are kept by name, so make the published one the backbone, or leave it out"
            )
        present = (self.backbone, *self.compare_backbones)
        for name in ("proposal_backbone", "saliency_backbone"):
            if (value := getattr(self, name)) and value not in present:
                raise ValueError(f"{name} is {value!r}: choose a network of this run ({', '.join(present)}), or empty")
        return self
