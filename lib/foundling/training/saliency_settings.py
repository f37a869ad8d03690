"""What a run that trains a saliency network is told. Importing it imports no torch."""

from typing import Any, Literal

from pydantic import Field, model_validator

from foundling.training.settings import OnDataset, Steps

# Those of notebook 04 for the embedded network
SOURCES: dict[str, dict[str, Any]] = {
    "lost": {"k": 1, "facet": "keys", "centre": True},
    "tokencut": {"tau": 0.4, "facet": "keys"},
}


class Saliency(Steps):
    """A saliency network on masks that other sources found; "the paper's" is BASNet's code."""

    objective: Literal["saliency"] = Field("saliency", description="saliency")
    width: int = Field(16, ge=1, le=256, description="channels at full resolution; the paper's: 64")
    side: int = Field(
        96, ge=32, le=2048, multiple_of=32, description="pixels that images are resized to, a square; the paper's: 256"
    )
    crop: int = Field(
        64, ge=32, le=2048, multiple_of=32, description="side of the random crop that a step sees; the paper's: 224"
    )
    steps: int = Field(600, ge=1, description="number of steps; the paper's: 400,000")
    batch: int = Field(8, ge=2, description="images a step; the paper's: 8")
    warmup: int = Field(30, ge=0, description="steps of linear warm-up before the cosine to 0; the paper's: none")
    weight_decay: float = Field(0.0, ge=0, description="none for biases and norms; the paper's: 0, which is Adam")
    beta2: float = Field(0.999, ge=0, lt=1, description="AdamW's second decay; the paper's: 0.999")
    clip: float = Field(0.0, ge=0, description="largest norm of the gradient, 0: any; the paper's: 0")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="arithmetic of the network; losses are in fp32")

    @model_validator(mode="after")
    def _inside(self) -> "Saliency":
        if self.crop > self.side:
            raise ValueError(f"crop = {self.crop} must be at most side = {self.side}, of which it is cut")
        return self


class SaliencyOnSources(Saliency, OnDataset):
    """The same, with the images and the sources that its masks come from: what `foundling train` takes."""

    images: int = Field(400, ge=0, description="number of images, from the first; 0: all")
    backbone: str = Field("scenes_odin", description="network that the sources look through")
    sources: dict[str, dict[str, Any]] = Field(
        SOURCES, min_length=1, description="label -> settings of a source; see foundling.saliency.saliency_masks"
    )
    least: float = Field(
        0.5, ge=0, le=1, description="of several sources: mean IoU of their masks from which an image is taken"
    )

    @model_validator(mode="after")
    def _enough(self) -> "SaliencyOnSources":
        if self.images and self.batch > self.images:
            raise ValueError(f"batch = {self.batch} is more than images = {self.images}")
        return self
