"""What a run that trains a saliency network, or a segmenter, on masks is told. Importing it imports no torch."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from foundling.training.settings import OnDataset, Steps

# Those of notebook 04 for the embedded network
SOURCES: dict[str, dict[str, Any]] = {
    "lost": {"k": 1, "facet": "keys", "centre": True},
    "tokencut": {"tau": 0.4, "facet": "keys"},
}


class OnMasks(Steps):
    """A network on masks that other sources found; "the paper's" is BASNet's code."""

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
    def _inside(self) -> "OnMasks":
        if self.crop > self.side:
            raise ValueError(f"crop = {self.crop} must be at most side = {self.side}, of which it is cut")
        if 0 < getattr(self, "images", 0) < self.batch:  # of those that say which images
            raise ValueError(f"batch = {self.batch} is more than images = {getattr(self, 'images', 0)}")
        return self


class Saliency(OnMasks):
    """A saliency network: BASNet, or a small U-Net."""

    objective: Literal["saliency"] = Field("saliency", description="saliency")
    network: Literal["basnet", "unet"] = Field("basnet", description="basnet or unet; the paper's: basnet")
    width: int = Field(16, ge=1, le=256, description="channels at the finest resolution; the paper's: 64")
    side: int = Field(
        96, ge=32, le=2048, multiple_of=16, description="pixels that images are resized to, a square; the paper's: 256"
    )
    crop: int = Field(
        64, ge=32, le=2048, multiple_of=16, description="side of the random crop that a step sees; the paper's: 224"
    )
    loss: Literal["basnet", "bce"] = Field(
        "basnet",
        description="of each map: the sum of BASNet's three parts, or cross-entropy alone; the paper's: basnet",
    )
    colour: float = Field(0.0, ge=0, le=1, description="strength of the changes of colour of crops; the paper's: 0")

    @model_validator(mode="after")
    def _strided(self) -> "Saliency":
        for name in ("side", "crop"):
            if self.network == "basnet" and getattr(self, name) % 32:
                raise ValueError(f"{name} = {getattr(self, name)} must be a multiple of 32, for basnet")
        return self


class Segmentation(OnMasks):
    """A head on the frozen features of a ViT, of the form that MOVE has; "the paper's" is MOVE's, trained otherwise."""

    objective: Literal["segmenter"] = Field("segmenter", description="segmenter")
    backbone: str = Field("scenes_odin", description="ViT below the head, and before it; the paper's: dino_vits8")
    block: int = Field(-2, description="its block whose output the head sees, -1 the last; the paper's: -2")
    widths: list[Annotated[int, Field(ge=1)]] = Field(
        [96, 48, 24, 12],
        min_length=1,
        description="channels of the blocks, each but the last doubling the grid; the paper's: 192, 128, 128, 128",
    )
    depth: int = Field(1, ge=1, le=8, description="convolutions in a block; the paper's: 1")


class OnSources(OnDataset):
    """The images and the sources that masks come from."""

    images: int = Field(400, ge=0, description="number of images, from the first; 0: all")
    backbone: str = Field("scenes_odin", description="network that the sources look through")
    sources: dict[str, dict[str, Any]] = Field(
        SOURCES, min_length=1, description="label -> settings of a source; see foundling.saliency.saliency_masks"
    )
    least: float = Field(
        0.5, ge=0, le=1, description="of several sources: mean IoU of their masks from which an image is taken"
    )
    taken: str = Field(
        "", description="of several sources that agree, the label of the one whose mask counts; empty: what most have"
    )

    @model_validator(mode="after")
    def _named(self) -> "OnSources":
        if self.taken and self.taken not in self.sources:
            raise ValueError(f"taken = {self.taken!r} is no label of sources: choose one of {', '.join(self.sources)}")
        return self


class SaliencyOnSources(Saliency, OnSources):
    """What `foundling train` takes."""


class SegmentationOnSources(Segmentation, OnSources):
    """Likewise; the sources look through the backbone of the head."""
