"""What the training of a detector is told, checked before anything runs. Importing it imports no torch.

The defaults are for scenes of 128 pixels on a laptop; "the paper's" are LOST's (appendix D, and the configs that its
authors published): Detectron2's R50-C4.
"""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, model_validator

from foundling.training.settings import Steps

Pixels = Annotated[int, Field(ge=1, le=4096)]
ENGINES = ("torchvision", "detectron2")
MAPS = {"r50_c4": 1, "r50_fpn": 5}  # that anchors lie on; a ViT has one for each of its strides


class Detector(Steps):
    """Faster R-CNN trained on boxes that were found (LOST, Sec. 3.3); class-agnostic where there is one class."""

    objective: Literal["detector"] = Field("detector", description="detector")
    engine: Literal["torchvision", "detectron2"] = Field(
        "torchvision", description="what trains and runs it: torchvision, detectron2; the paper's: detectron2"
    )
    network: Literal["r50_c4", "r50_fpn", "vit"] = Field(
        "vit",
        description="r50_c4, r50_fpn, or vit: a ViT with a simple pyramid (ViTDet); the paper's: r50_c4",
    )
    weights: str = Field(
        "scenes_odin",
        min_length=1,
        description="what the backbone starts from: a name in foundling.backbones.BACKBONES, the path of a file that "
        "`foundling train` wrote, or random; the paper's: dino_resnet50",
    )
    classes: int = Field(1, ge=1, le=10_000, description="classes of objects; 1: class-agnostic; the paper's: 1, or 20")

    min_sizes: list[Pixels] = Field(
        [128],
        min_length=1,
        description="shorter sides in training, one drawn an image, for vit a batch; the paper's: 480 to 800 by 32",
    )
    test_size: int = Field(128, ge=16, le=4096, description="shorter side when it is used; the paper's: 800")
    max_size: int = Field(1333, ge=16, le=8192, description="longer side at most; the paper's: 1333")
    anchors: list[Annotated[list[Pixels], Field(min_length=1)]] = Field(
        [[24, 40, 64, 96]],
        min_length=1,
        description="sides of the anchors on each map, fine to coarse: one list for r50_c4, five for r50_fpn, one for "
        "each of strides for vit; the paper's: 32, 64, 128, 256, 512 on its one map",
    )
    ratios: list[Annotated[float, Field(gt=0)]] = Field(
        [0.5, 1.0, 2.0], min_length=1, description="height over width of the anchors; the paper's: 0.5, 1, 2"
    )
    strides: list[Literal[4, 8, 16, 32, 64]] = Field(
        [8], min_length=1, description="vit only: pixels a cell of its maps, each twice the last; ViTDet's: 4 to 64"
    )
    channels: int = Field(96, ge=8, le=4096, description="vit only: channels of its maps; ViTDet's: 256")
    hidden: int = Field(256, ge=8, le=8192, description="width of the box head, none in r50_c4; torchvision's: 1024")
    pool: int = Field(7, ge=1, le=32, description="cells a side that a box is pooled to; the paper's: 14")

    freeze_at: int = Field(
        5,
        ge=0,
        le=5,
        description="how much of the backbone is kept as it is: 1 the stem, 2 the first stage as well, 5 all; of a ViT "
        "1 the patch embedding, 2 to 5 another quarter of the blocks each; the paper's: 2",
    )
    norm: Literal["batch", "frozen"] = Field(
        "batch",
        description="batch normalisation of a ResNet: trained, over all GPUs together, or kept; the paper's: batch",
    )
    box_beta: float = Field(
        0.0,
        ge=0,
        description="where the loss of boxes turns from squares to distances; the paper's: 0, torchvision 1/9",
    )
    rpn_samples: int = Field(128, ge=2, description="anchors an image that the proposals' loss takes; the paper's: 256")
    rpn_proposals: int = Field(256, ge=1, description="proposals an image in training; the paper's: 2000")
    test_proposals: int = Field(256, ge=1, description="proposals an image when it is used; the paper's: 1000")
    rpn_candidates: int = Field(
        1000, ge=1, description="anchors a map whose boxes are thinned to proposals; the paper's: 12000, in use 6000"
    )
    roi_samples: int = Field(64, ge=2, description="proposals an image that the boxes' loss takes; the paper's: 512")
    roi_positive: float = Field(0.25, gt=0, le=1, description="share of objects among these; the paper's: 0.25")
    score_threshold: float = Field(0.01, ge=0, lt=1, description="lowest score of a detection; the paper's: 0.01")
    nms_threshold: float = Field(0.4, gt=0, lt=1, description="largest IoU of two detections; the paper's: 0.4")
    detections: int = Field(100, ge=1, description="detections an image at most; the paper's: 100")

    steps: int = Field(400, ge=1, description="number of steps; the paper's: 24,000, CAD on VOC07 10,000")
    batch: int = Field(16, ge=1, description="images a step over all devices together; the paper's: 16")
    optimiser: Literal["sgd", "adamw"] = Field("adamw", description="sgd or adamw; the paper's: sgd")  # type: ignore[assignment]
    schedule: Literal["steps", "cosine"] = Field(
        "cosine", description="of the learning rate after the warm-up: steps or cosine; the paper's: steps"
    )
    decay_at: list[Annotated[int, Field(ge=1)]] = Field(
        [], description="schedule steps only: after how many steps the rate falls; the paper's: 18,000 and 22,000"
    )
    gamma: float = Field(0.1, gt=0, le=1, description="schedule steps only: what it falls by; the paper's: 0.1")
    learning_rate: float = Field(1e-3, gt=0, description="highest learning rate; the paper's: 0.02")
    backbone_rate: float = Field(
        1.0, gt=0, le=1, description="learning rate of what is trained of the backbone, as a share; the paper's: 1"
    )
    warmup: int = Field(20, ge=0, description="steps of linear warm-up; the paper's: 100")
    warmup_factor: float = Field(0.001, ge=0, le=1, description="share that it starts from; Detectron2's: 0.001")
    weight_decay: float = Field(1e-4, ge=0, description="none for norms; the paper's: 1e-4")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW's first decay, or SGD's momentum; the paper's: 0.9")
    beta2: float = Field(0.999, ge=0, lt=1, description="AdamW's second decay")
    clip: float = Field(0.0, ge=0, description="largest norm of the gradient, 0: any; the paper's: 0")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="arithmetic of the networks; losses are in fp32")
    precise_bn: int = Field(
        0, ge=0, description="batches that norm statistics are taken over before an export; the paper's: 200"
    )

    @model_validator(mode="after")
    def _maps(self) -> "Detector":
        maps = MAPS.get(self.network, len(self.strides))
        if len(self.anchors) != maps or len({len(sides) for sides in self.anchors}) > 1:
            raise ValueError(
                f"anchors = {self.anchors}: the maps of {self.network} are {maps}: give each a list of sides, all as "
                "long (one head looks at all maps)"
            )
        if any(coarse != 2 * fine for fine, coarse in pairwise(self.strides)):
            raise ValueError(f"strides = {self.strides}: each must be twice the one before, as in [8, 16]")
        longest = max(*self.min_sizes, self.test_size)
        if self.max_size < longest:
            raise ValueError(f"max_size = {self.max_size} must be at least the largest shorter side, {longest}")
        return self

    @model_validator(mode="after")
    def _schedule(self) -> "Detector":
        if self.decay_at and self.schedule != "steps":
            raise ValueError(f"decay_at = {self.decay_at} wants schedule: steps, not {self.schedule}")
        if self.decay_at and (self.decay_at != sorted(set(self.decay_at)) or self.decay_at[0] < self.warmup):
            raise ValueError(f"decay_at = {self.decay_at} must rise, and begin after the warmup of {self.warmup} steps")
        return self
