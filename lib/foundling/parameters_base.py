"""What the parameters of every notebook have in common; :mod:`foundling.parameters` has the notebooks' own."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

BackboneName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+(:random)?$")]
LABEL = r"^[a-z0-9][a-z0-9_]*$"


class Parameters(BaseModel):
    """What every notebook takes; the part of a study file called ``shared`` may set only these."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    study: str = Field("lab", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", description="name of the study")
    out: str = Field("", description="folder for the results; empty: reports/<study>/<notebook>")
    dataset: str = Field("scenes", description="name in foundling.datasets.DATASETS")
    split: str = Field("", description="part of the dataset; empty: its default (scenes: single_val)")
    root: str = Field("", description="folder of the images; empty: where `foundling data` puts them")
    annotations: str = Field("", description="COCO instances file; only for the dataset coco")
    size: int = Field(224, ge=96, le=512, description="side of a scene in pixels, 96 to 512; only for scenes")
    limit: int = Field(100, ge=0, description="number of images, from the first; 0: all of them")
    image: int = Field(0, ge=0, description="position in the dataset of the image that is looked at closely, from 0")
    backbone: str = Field(
        "scenes_odin", pattern=r"^[A-Za-z0-9_.-]+$", description="name in foundling.backbones.BACKBONES"
    )
    weights: str = Field("pretrained", min_length=1, description="pretrained, random, or the path of a checkpoint")
    compare_backbones: list[BackboneName] = Field(
        ["scenes_odin:random"], description="further backbones to set beside it; name:random means untrained"
    )
    device: str = Field("auto", pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$", description="auto, cpu, cuda, cuda:N or mps")
    precision: Literal["fp32", "bf16", "fp16"] = Field("fp32", description="arithmetic of the network")
    max_side: int = Field(0, ge=0, description="longest side in pixels, larger images are shrunk; 0: native size")
    batch_size: int = Field(16, ge=1, le=4096, description="images the network sees at once, 1 to 4096")
    seed: int = Field(0, ge=0, lt=2**32, description="seed of every random choice, 0 to 2**32 - 1")

    def networks(self) -> list[tuple[str, str]]:
        """Every network that the run loads from the registry: name, and weights as ``load_backbone`` takes them."""
        return [(self.backbone, self.weights), *map(split_backbone, self.compare_backbones)]

    @model_validator(mode="after")
    def _complete(self) -> "Parameters":
        if self.dataset == "folder" and not self.root:
            raise ValueError("dataset 'folder' needs root: the folder that holds the images")
        if self.dataset == "coco" and self.split in ("", "custom") and not (self.root and self.annotations):
            raise ValueError("dataset 'coco' needs root (the images) and annotations (a COCO instances file)")
        if self.annotations and self.dataset != "coco":
            raise ValueError(f"annotations goes with the dataset 'coco', not with {self.dataset!r}")
        return self


def check_label(where: str, label: str, settings: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` unless the entry ``label`` of the parameter ``where`` names a metric and a method."""
    if not re.match(LABEL, label):
        raise ValueError(f"{where}: label {label!r} may hold lower-case letters, digits and _ only (it names a metric)")
    if not isinstance(settings.get("method"), str):
        raise ValueError(f"{where}.{label} needs 'method': the name of a discovery method, such as 'lost'")


def split_backbone(name: str) -> tuple[str, str]:
    """An entry of ``compare_backbones`` as (registry name, weights): ``"x:random"`` -> ``("x", "random")``."""
    base, _, weights = name.partition(":")
    return base, weights or "pretrained"
