"""What the training of an instance segmenter is told, checked before anything runs. Importing it imports no torch.

The defaults are for scenes of 128 pixels on a laptop; "the paper's" are those of instanceness (appendix A.2), and where
it prints none those of FreeSOLO's code, which it trained with.
"""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import BaseModel, Field, model_validator

from foundling.training.detection.settings import Detector, Pixels
from foundling.training.settings import Steps

METHOD = "instances"  # what the file of a segmenter says it is
MASK_STRIDE = 4  # pixels a cell of the masks that SOLOv2 predicts
FPN_MAPS = 5  # of a ResNet's pyramid, the last a thinned copy of the fourth


class Rounds(BaseModel):
    """Self-training: each further round starts anew, on what the network of the round before finds in the images."""

    rounds: int = Field(1, ge=1, le=10, description="rounds of training; the paper's: 1, FreeSOLO's: 2")
    round_score: float = Field(
        0.3, ge=0, le=1, description="lowest score of what a further round is trained on; FreeSOLO's: 0.3"
    )
    round_most: int = Field(20, ge=1, description="objects an image that it is trained on at most; FreeSOLO's: 20")


class Solo(Rounds, Steps):
    """SOLOv2 with FreeSOLO's changes, class-agnostic."""

    objective: Literal["solo"] = Field("solo", description="solo")
    network: Literal["r50_fpn", "r101_fpn", "vit"] = Field(
        "vit",
        description="r50_fpn, r101_fpn, a ResNet with a feature pyramid, or vit, a ViT with a simple one (ViTDet); the "
        "paper's: r101_fpn",
    )
    weights: str = Field(
        "scenes_odin",
        min_length=1,
        description="what the backbone starts from: a name in foundling.backbones.BACKBONES, the path of a file that "
        "`foundling train` wrote, or random; the paper's: densecl_resnet101",
    )

    min_sizes: list[Pixels] = Field(
        [128], min_length=1, description="shorter sides in training, one drawn an image; the paper's: 640 to 800 by 32"
    )
    test_size: int = Field(128, ge=16, le=4096, description="shorter side when it is used; the paper's: 800")
    max_size: int = Field(1333, ge=16, le=8192, description="longer side at most; the paper's: 1333")
    strides: list[Literal[4, 8, 16, 32, 64]] = Field(
        [4, 8], min_length=1, description="vit only: pixels a cell of its maps, each twice the last; ViTDet's: 4 to 64"
    )
    channels: int = Field(96, ge=8, le=4096, description="vit only: channels of its maps; ViTDet's: 256")
    freeze_at: int = Field(
        5,
        ge=0,
        le=5,
        description="how much of the backbone is kept as it is: 1 the stem, 2 the first stage as well, 5 all; of a ViT "
        "1 the patch embedding, 2 to 5 another quarter of the blocks each; the paper's: 5",
    )
    norm: Literal["batch", "frozen"] = Field(
        "frozen", description="batch normalisation of a ResNet: trained, or kept; the paper's: frozen"
    )

    grids: list[Annotated[int, Field(ge=1, le=128)]] = Field(
        [14, 8],
        min_length=1,
        description="cells a side of the grid on each map, fine to coarse: five for a ResNet, one for each of strides "
        "for vit; the paper's: 40, 36, 24, 16, 12",
    )
    scales: list[Annotated[list[float], Field(min_length=2, max_length=2)]] = Field(
        [[1.0, 48.0], [32.0, 2048.0]],
        min_length=1,
        description="for each grid the smallest and largest object on it, root of the area of its box in pixels; the "
        "paper's: 1-96, 48-192, 96-384, 192-768, 384-2048",
    )
    centre: float = Field(
        0.2,
        gt=0,
        le=1,
        description="share of an object's box around its centre whose cells stand for it; the paper's: 0.2",
    )
    width: int = Field(96, ge=8, le=4096, multiple_of=8, description="channels of both towers; the paper's: 512")
    depth: int = Field(2, ge=1, le=8, description="convolutions of each tower; the paper's: 4")
    mask_width: int = Field(
        64, ge=8, le=1024, multiple_of=8, description="channels of the mask branch; the paper's: 128"
    )
    kernel: int = Field(64, ge=8, le=1024, multiple_of=8, description="channels of the mask features; the paper's: 256")

    category_weight: float = Field(1.0, gt=0, description="of the focal loss of the cells; the paper's: 1")
    dice_weight: float = Field(
        3.0, ge=0, description="of the Dice loss of whole masks: masks as they are; the paper's: 0, SOLOv2's: 3"
    )
    projection_weight: float = Field(
        1.0, ge=0, description="of the masks' largest values along rows and columns: their boxes; the paper's: 1"
    )
    average_weight: float = Field(0.1, ge=0, description="of the masks' means along rows and columns; the paper's: 0.1")
    pairwise_weight: float = Field(
        1.0, ge=0, description="of neighbours of like colour that are to be both inside or both outside; the paper's: 1"
    )
    pairwise_warmup: int = Field(100, ge=0, description="steps over which that weight rises from 0; the paper's: 1000")
    colour_likeness: float = Field(
        0.3,
        gt=0,
        lt=1,
        description="likeness from which colours are alike, exp(-distance in Lab / 2); the paper's: 0.3",
    )
    bottom: int = Field(
        0, ge=0, description="rows at the bottom, pixels of the original, whose colours do not count; the paper's: 10"
    )

    weak_views: bool = Field(
        False, description="learn from the images as they are beside the changed ones: twice the work; the paper's: yes"
    )
    strength: float = Field(
        0.5, ge=0, le=1, description="of the changes of colour, 0 to 1: jitter, grey, blur; the paper's: 1"
    )
    erase: float = Field(
        0.0, ge=0, le=1, description="share of the published chances that parts are painted over; the paper's: 1"
    )
    copy_paste: bool = Field(True, description="paste objects of another image of the batch; the paper's: yes")
    paste_cover: float = Field(
        0.5, gt=0, le=1, description="share of an object from which on nothing may cover it; the paper's: 0.5"
    )

    score_threshold: float = Field(
        0.05, ge=0, lt=1, description="lowest score of a cell that may hold an object; the paper's: 0.1"
    )
    kept_threshold: float = Field(
        0.0, ge=0, lt=1, description="lowest score after matrix NMS; the paper's: 0.05, which costs AR100"
    )
    mask_threshold: float = Field(0.5, gt=0, lt=1, description="where a mask is inside; the paper's: 0.5")
    smallest: int = Field(
        2, ge=1, description="cells (of 4 pixels) that a mask must have; the paper's: 9 to 33, more on coarser grids"
    )
    candidates: int = Field(200, ge=1, description="masks an image that matrix NMS compares; the paper's: 500")
    nms_sigma: float = Field(2.0, gt=0, description="of matrix NMS's Gaussian; the paper's: 2")
    detections: int = Field(100, ge=1, description="objects an image at most; the paper's: 100")

    steps: int = Field(400, ge=1, description="number of steps; the paper's: 60,000, in ablations 30,000")
    batch: int = Field(16, ge=1, description="images a step over all devices together; the paper's: 4")
    optimiser: Literal["sgd", "adamw"] = Field("adamw", description="sgd or adamw; the paper's: sgd")  # type: ignore[assignment]
    schedule: Literal["constant", "cosine"] = Field(
        "cosine", description="of the learning rate after the warm-up: constant or cosine; the paper's: constant"
    )
    learning_rate: float = Field(1e-3, gt=0, description="highest learning rate; the paper's: 2.5e-4")
    backbone_rate: float = Field(
        1.0, gt=0, le=1, description="learning rate of what is trained of the backbone, as a share"
    )
    warmup: int = Field(20, ge=0, description="steps of linear warm-up; the paper's: 1000")
    warmup_factor: float = Field(0.01, ge=0, le=1, description="share that it starts from; the paper's: 0.01")
    weight_decay: float = Field(1e-4, ge=0, description="none for norms; the paper's: 1e-4")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW's first decay, or SGD's momentum; the paper's: 0.9")
    beta2: float = Field(0.999, ge=0, lt=1, description="AdamW's second decay")
    clip: float = Field(1.0, ge=0, description="largest norm of the gradient, 0: any; the paper's: 0")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="arithmetic of the networks; losses are in fp32")

    @model_validator(mode="after")
    def _maps(self) -> "Solo":
        maps = len(self.strides) if self.network == "vit" else FPN_MAPS
        if len(self.grids) != maps or len(self.scales) != maps:
            raise ValueError(
                f"grids = {self.grids}, scales = {self.scales}: the maps of {self.network} are {maps}, give each a "
                "grid and the sizes of its objects"
            )
        if any(coarse != 2 * fine for fine, coarse in pairwise(self.strides)):
            raise ValueError(f"strides = {self.strides}: each must be twice the one before, as in [4, 8]")
        if wrong := [pair for pair in self.scales if not 0 <= pair[0] < pair[1]]:
            raise ValueError(f"scales: {wrong[0]} must rise from 0 or more, as in [32.0, 128.0]")
        longest = max(*self.min_sizes, self.test_size)
        if self.max_size < longest:
            raise ValueError(f"max_size = {self.max_size} must be at least the largest shorter side, {longest}")
        return self

    @model_validator(mode="after")
    def _learns(self) -> "Solo":
        if not self.dice_weight + self.projection_weight:
            raise ValueError(
                "dice_weight and projection_weight are both 0: nothing would say where a mask is; give one of them"
            )
        return self


class MaskRcnn(Rounds, Detector):
    """Mask R-CNN on the detector of :class:`~foundling.training.detection.settings.Detector` (Table 7)."""

    objective: Literal["mask_rcnn"] = Field("mask_rcnn", description="mask_rcnn")  # type: ignore[assignment]
    network: Literal["r50_fpn", "vit"] = Field(
        "vit",
        description="r50_fpn, or vit: a ViT with a simple pyramid (ViTDet), torchvision only; torchvision's: r50_fpn",
    )
    mask_width: int = Field(64, ge=8, le=1024, description="channels of the mask head; torchvision's: 256")
    mask_depth: int = Field(2, ge=1, le=8, description="convolutions of the mask head; torchvision's: 4")
    mask_pool: int = Field(
        14,
        ge=2,
        le=64,
        description="cells a side that a box is pooled to; its mask has twice as many; torchvision's: 14",
    )
    score_threshold: float = Field(
        0.0, ge=0, lt=1, description="lowest score of a detection; torchvision's: 0.05, which costs AR100"
    )
    nms_threshold: float = Field(0.5, gt=0, lt=1, description="largest IoU of two detections; torchvision's: 0.5")


Instances = Solo | MaskRcnn
SEGMENTERS: dict[str, type[Steps]] = {"solo": Solo, "mask_rcnn": MaskRcnn}


# What `foundling train` takes


class OnMasks(BaseModel):
    """Where the masks and the images are."""

    labels: str = Field(
        "", description="masks: a COCO instances JSON with run lengths, or the folder that `foundling propose` wrote"
    )
    root: str = Field("", description="folder of the images, which their names in labels begin at")
    least: float = Field(
        0.0, ge=0, le=1, description="share of its image that a mask must cover to be learned; the paper's: 0"
    )


class SoloOnMasks(OnMasks, Solo):
    """SOLOv2, and where its masks and images are."""


class MaskRcnnOnMasks(OnMasks, MaskRcnn):
    """Mask R-CNN, and where its masks and images are; the number of classes is that of the labels."""


RUNS: dict[str, type[SoloOnMasks] | type[MaskRcnnOnMasks]] = {"solo": SoloOnMasks, "mask_rcnn": MaskRcnnOnMasks}
