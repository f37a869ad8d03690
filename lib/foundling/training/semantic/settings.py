"""What the training of a semantic segmenter is told, checked before anything runs. Importing it imports no torch.

The defaults are for scenes of 128 pixels on a laptop; "the paper's" are those of COMUS on VOC (appendix B.2, Table 11,
and the authors' code where it says more), those on COCO after them.
"""

from typing import Literal

from pydantic import Field, model_validator

from foundling.training.settings import OnDataset, Steps


class Semantic(Steps):
    """A segmenter on label maps that were found: one round of COMUS' self-training (Alg. 2)."""

    objective: Literal["semantic"] = Field("semantic", description="semantic")
    network: Literal["deeplab_r50", "vit", "unet"] = Field(
        "unet",
        description="deeplab_r50: DeepLabv3 on a ResNet-50; unet: a U-Net over a small convolutional network, such as "
        "scenes_objects; vit: a light head on a ViT, such as scenes_odin; the paper's: deeplab_r50",
    )
    weights: str = Field(
        "scenes_objects",
        min_length=1,
        description="what the encoder starts from: a name in foundling.backbones.BACKBONES, the path "
        "of a file that `foundling train` wrote, or random; the paper's: dino_resnet50",
    )
    begin: Literal["encoder", "teacher"] = Field(
        "encoder",
        description="a later round begins with the encoder's weights and a new head, or with all that the teacher, the "
        "segmenter of the round before, has learned; the paper's: encoder",
    )
    output_stride: Literal[8, 16, 32] = Field(
        8, description="deeplab_r50 only: pixels a cell of the encoder's last map; the paper's: 8"
    )
    channels: int = Field(
        32, ge=8, le=4096, description="channels of the head of a vit, and of that of a unet at its finest map"
    )
    detail: int = Field(
        16, ge=0, le=1024, description="vit only: channels, at 4 pixels a cell, that its head has of the image; 0: none"
    )

    side: int = Field(
        96,
        ge=32,
        le=2048,
        multiple_of=8,
        description="side of the crop that a step sees, in pixels; the paper's: 512, 256",
    )
    test_side: int = Field(
        112,
        ge=32,
        le=4096,
        multiple_of=8,
        description="side of the square that an image is resized to when the segmenter is used; the paper's: 512, 256",
    )
    min_area: float = Field(0.5, gt=0, description="smallest area of a crop, of the image's; the paper's: 0.5, 0.2")
    max_area: float = Field(
        1.0,
        gt=0,
        description="largest area of a crop; what is not inside the image is drawn again; the paper's: 2, 1",
    )
    keep_empty: bool = Field(
        False,
        description="train on images whose map is all background, too; the paper's: no in round 1, yes in round 2",
    )

    epochs: int = Field(
        0, ge=0, description="how often each image is seen: sets steps; 0: steps counts; the paper's: 10, then 5; 1"
    )
    steps: int = Field(1300, ge=1, description="number of steps, unless epochs is given; the paper's: epochs")
    batch: int = Field(8, ge=2, description="images a step over all devices together; the paper's: 56")
    optimiser: Literal["adamw"] = Field(
        "adamw", description="adamw, which without a decay of weights is Adam; the paper's: Adam"
    )
    schedule: Literal["constant", "cosine"] = Field(
        "cosine", description="of the learning rate after the warm-up; the paper's: constant"
    )
    learning_rate: float = Field(2e-3, gt=0, description="highest learning rate; the paper's: 6e-5")
    backbone_rate: float = Field(
        1.0, ge=0, le=1, description="learning rate of the encoder, as a share; 0: it stays as it is; the paper's: 1"
    )
    warmup: int = Field(20, ge=0, description="steps of linear warm-up; the paper's: 0")
    weight_decay: float = Field(0.01, ge=0, description="none for norms; the paper's: 0")
    beta2: float = Field(0.999, ge=0, lt=1, description="Adam's second decay; the paper's: 0.999")
    clip: float = Field(2.0, ge=0, description="largest norm of the gradient, 0: any; the paper's: 0")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="arithmetic of the network; the loss is in fp32")

    @model_validator(mode="after")
    def _areas(self) -> "Semantic":
        if self.min_area > self.max_area:
            raise ValueError(f"min_area = {self.min_area} must be at most max_area = {self.max_area}")
        if self.min_area > 1:
            raise ValueError(f"min_area = {self.min_area}: a crop inside the image has an area of 1 at most")
        return self

    @model_validator(mode="after")
    def _norms(self) -> "Semantic":
        if self.network == "deeplab_r50" and self.batch < 2 * self.accumulate:
            raise ValueError(
                f"accumulate = {self.accumulate} takes a batch of {self.batch} apart into single images: the batch "
                "normalisation of deeplab_r50 needs two or more at a time"
            )
        return self


class SemanticOnMaps(Semantic, OnDataset):
    """The same, with the images and the label maps that they are trained on: what `foundling train` takes."""

    maps: str = Field(
        "", description="folder of label maps, PNG files named as the images (notebook 04 writes pseudo_masks); round 1"
    )
    clusters: int = Field(0, ge=0, le=254, description="only with maps: how many clusters these have")
    teacher: str = Field(
        "", description="file of a segmenter, whose predictions are the label maps; the rounds after the first"
    )

    @model_validator(mode="after")
    def _labelled(self) -> "SemanticOnMaps":
        if bool(self.maps) == bool(self.teacher):
            raise ValueError("give either maps, a folder of label maps, or teacher, the file of a segmenter")
        if bool(self.maps) != bool(self.clusters):
            raise ValueError("clusters is the number of clusters of maps: give both, or neither and a teacher")
        if self.begin == "teacher" and not self.teacher:
            raise ValueError("begin is teacher, but none is given: round 1 begins with the encoder")
        return self
