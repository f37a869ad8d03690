"""What a run that tells crops of found objects apart is told. Importing it imports no torch."""

from typing import Literal

from pydantic import Field, model_validator

from foundling.training.saliency_settings import OnSources
from foundling.training.settings import Option, Steps


class Contrast(Steps):
    """A network on crops of objects, two views of one alike; "the paper's" is SimCLR's (Chen et al., 2020)."""

    objective: Literal["contrast"] = Field("contrast", description="contrast")
    architecture: str = Field(
        "resnet10t", pattern=r"^[A-Za-z0-9_.]+$", description="timm's name of a ResNet; the paper's: resnet50"
    )
    options: dict[str, Option] = Field(
        {"channels": [28, 56, 112, 224]}, description="keyword arguments of that network, such as channels"
    )
    min_area: int = Field(400, ge=0, description="pixels above which a mask is an object")
    crop: int = Field(64, ge=16, le=1024, description="side that objects are cut out with, kept in memory")
    view: int = Field(48, ge=16, le=1024, description="side of a view; the paper's: 224")
    turn: float = Field(0.6, ge=0, description="largest turn of a view, in radians; the paper's: 0")
    zoom: float = Field(0.62, gt=0, le=1, description="least share of a crop's side in a view; at most 0.6 more")
    hue: float = Field(0.5, ge=0, le=0.5, description="largest change of hue, in turns, of every view; the paper's: 0")
    strength: float = Field(
        1.0, ge=0, le=1, description="of the other changes of colour, 1 is Odin's; the paper's: stronger than 1"
    )
    temperature: float = Field(0.2, gt=0, description="of the similarities; the paper's: 0.1 to 0.5")
    hidden: int = Field(512, ge=1, description="hidden width of the projector; the paper's: 2048")
    projection: int = Field(64, ge=2, description="width of the projections; the paper's: 128")
    steps: int = Field(1000, ge=1, description="number of steps; the paper's: 100 epochs and more")
    batch: int = Field(128, ge=2, description="objects a step over all devices together; the paper's: 4096")
    learning_rate: float = Field(2e-3, gt=0, description="highest learning rate; the paper's: 0.3 x batch / 256 (LARS)")
    warmup: int = Field(40, ge=0, description="steps of linear warm-up before the cosine to 0; the paper's: 10 epochs")
    clip: float = Field(2.0, ge=0, description="largest norm of the gradient, 0: any; the paper's: 0")

    @model_validator(mode="after")
    def _whole(self) -> "Contrast":
        if self.accumulate > 1:
            raise ValueError(f"accumulate = {self.accumulate} must be 1: this loss compares the objects of a batch")
        return self


class ContrastOnSources(Contrast, OnSources):
    """What `foundling train` takes."""
