"""What a training run is told, checked before anything runs: one model an objective. Importing it imports no torch.

The defaults are for a small ViT, small pictures, a short run on a laptop (``studies/training`` holds the settings of
the embedded checkpoints). Each description ends with the paper's own value, where there is one. Odin's takes much from
BYOL, some of it without saying so: what it does not print is called BYOL's.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from foundling.errors import ParameterError
from foundling.parameters import check_model, suggest

Option = bool | int | float | str | list[int]
VIT: dict[str, Option] = {"img_size": 96, "patch_size": 8, "embed_dim": 192, "depth": 4, "num_heads": 3}
MAY_CHANGE = (
    "root",
    "workers",
    "save_every",
    "export_at",
    "export_dense",
)  # a resumed run may have others: no step depends on them


class Steps(BaseModel):
    """What every training run takes: how many steps, of which size and how far, and when they are written down."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)

    objective: str = Field(description="what is learned")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of every random choice, 0 to 2**31 - 1")

    steps: int = Field(2600, ge=1, description="number of steps; the paper's: 1000 epochs of 312 steps")
    batch: int = Field(24, ge=2, description="images a step over all devices together; the paper's: 4096 (ViT 2048)")
    optimiser: Literal["adamw", "lars"] = Field(
        "adamw", description="adamw or lars; the paper's: Adam for ViT (with a decay: adamw here), LARS for the others"
    )
    learning_rate: float = Field(
        1e-3, gt=0, description="highest learning rate; the paper's: 3e-4 (ViT), 0.2 x batch / 256 (LARS)"
    )
    warmup: int = Field(150, ge=0, description="steps of linear warm-up before the cosine to 0; BYOL's: 10 epochs")
    weight_decay: float = Field(
        0.05, ge=0, description="none for biases, norms, embeddings; the paper's: 0.1, LARS 1.5e-6"
    )
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW's first decay, or LARS's momentum; the paper's: 0.9 (ViT)")
    beta2: float = Field(0.95, ge=0, lt=1, description="AdamW's second decay; the paper's: 0.95")
    trust: float = Field(1e-3, gt=0, description="LARS only: trust coefficient; BYOL's: 1e-3")
    clip: float = Field(1.0, ge=0, description="largest norm of the gradient, 0: any; the paper's: 1 for Swin alone")

    accumulate: int = Field(
        1, ge=1, description="parts that a batch is taken in, one after the other, where memory is short"
    )
    precision: Literal["fp32", "bf16"] = Field("bf16", description="arithmetic of the networks; losses are in fp32")
    compile: bool = Field(
        False, description="compile the networks, not their heads: pays on a GPU over thousands of steps"
    )
    workers: int = Field(2, ge=0, le=256, description="processes that decode images; 0: none beside the main one")
    save_every: int = Field(100, ge=1, description="steps between two states that a killed run resumes from")
    log_every: int = Field(10, ge=1, description="steps that one row of the history averages")
    export_at: list[Annotated[int, Field(ge=1)]] = Field(
        [], description="steps after which the network is exported as well, as <run>_<step>.safetensors"
    )

    @model_validator(mode="after")
    def _warming(self) -> "Steps":
        if self.warmup >= self.steps:
            raise ValueError(f"warmup = {self.warmup} must be less than steps = {self.steps}")
        return self


class OnDataset(BaseModel):
    """The images of a run that is started by itself, for settings of tasks that are given samples elsewhere."""

    dataset: str = Field("scenes", min_length=1, description="name in foundling.datasets.DATASETS")
    split: str = Field("", description="part of the dataset; empty: its default, of scenes single_train")
    root: str = Field("", description="folder of the images; empty: where `foundling data` puts them")
    annotations: str = Field("", description="COCO instances file; only for the dataset coco")
    images: int = Field(0, ge=0, description="number of images, from the first; 0: all")
    scene_side: int = Field(128, ge=96, le=512, description="side of a scene in pixels, 96 to 512; only for scenes")

    @model_validator(mode="after")
    def _rooted(self) -> "OnDataset":
        if self.dataset == "folder" and not self.root:
            raise ValueError("dataset 'folder' needs root: the folder that holds the images")
        return self


class Common(Steps):
    """What every objective without masks takes: the network, the images, the machine as well. Sides are in pixels."""

    objective: Literal["odin", "dino", "mae"] = Field("odin", description="what is learned: odin, dino or mae")
    architecture: str = Field(
        "vit_tiny_patch16_224",
        pattern=r"^[A-Za-z0-9_.]+$",
        description="timm's name of the network; the paper's: resnet50, swin_tiny_…, swin_small_…, vit_base_patch8_224",
    )
    options: dict[str, Option] = Field(VIT, description="keyword arguments of that network, such as img_size")

    dataset: str = Field(
        "scenes", min_length=1, description="scenes, drawn once and kept; or a name in foundling.datasets.DATASETS"
    )
    split: str = Field("", description="part of the dataset; empty: its default; not for scenes: their training parts")
    root: str = Field("", description="folder of the images; empty: where `foundling data` puts them")
    images: int = Field(12000, ge=0, description="number of training images, from the first; 0: all (not for scenes)")
    image_side: int = Field(
        128,
        ge=16,
        le=2048,
        description="side of a training image before its views are cut; a photo is cut to the square in its middle, "
        "and resized; the paper's: views are cut from whole photos",
    )
    multi_share: float = Field(0.2, ge=0, le=1, description="share of scenes that hold several objects, 0 to 1")
    store: bool = Field(
        False,
        description="decode the images once and keep them in the data folder (images x side² x 3 bytes), until their "
        "files change; scenes always are",
    )
    monitor_every: int = Field(100, ge=1, description="steps between two looks for collapse")
    probes: int = Field(64, ge=2, le=1024, description="images that the look for collapse takes, 2 to 1024")
    export_dense: bool = Field(
        False, description="also write <run>_dense.safetensors, with projector; always where a pyramid is trained"
    )

    @model_validator(mode="after")
    def _together(self) -> "Common":
        if self.dataset == "folder" and not self.root:
            raise ValueError("dataset 'folder' needs root: the folder that holds the images")
        if self.dataset == "scenes":
            if self.split or self.root:
                raise ValueError("dataset 'scenes' takes neither split nor root: it is drawn from its training parts")
            if not self.images:
                raise ValueError("dataset 'scenes' has no end: images must be 1 or more")
        if self.images and self.batch > self.images:
            raise ValueError(f"batch = {self.batch} is more than images = {self.images}: an epoch needs a step")
        if self.accumulate > 1:
            raise ValueError(f"accumulate = {self.accumulate} must be 1: this loss compares the images of a batch")
        return self


class Odin(Common):
    """Object discovery and representation networks: masks by k-means, told apart across two views."""

    objective: Literal["odin"] = Field("odin", description="odin")
    masks: int = Field(6, ge=2, description="K, masks an image; the paper's: 16")
    span_side: int = Field(96, ge=8, description="side of the spanning view; the paper's: 448, ViT 224")
    view_side: int = Field(64, ge=8, description="side of the two views; the paper's: 224")
    min_area: float = Field(0.3, gt=0, le=1, description="smallest share of the image in a view; the paper's: 0.08")
    strength: float = Field(0.3, ge=0, le=1, description="of the colour changes, 0 to 1; the paper's: 1")
    alpha: float = Field(0.1, gt=0, description="temperature of Eq. 2; the paper's: 0.1")
    target_decay: float = Field(
        0.99, ge=0, le=1, description="1 - lambda_xi at the start, a cosine to 1; BYOL's: 0.996 for 1000 epochs"
    )
    discovery: Literal["continuous", "periodic"] = Field(
        "continuous",
        description="discovery network: a moving average, or a copy every discovery_every epochs, which labels all "
        "images (whole ones, not their spanning views) and keeps the masks: a byte a cell, in a temporary file",
    )
    discovery_rate: float = Field(0.005, gt=0, le=1, description="lambda_tau if continuous; the paper's: 0.001")
    discovery_every: int = Field(100, ge=1, description="epochs between two copies if periodic; the paper's: 100")
    cluster_on: Literal["features", "projections"] = Field(
        "features", description="what k-means sees; the paper's: features for ViT, projections for ResNet and Swin"
    )
    smooth: int = Field(
        1,
        ge=1,
        le=9,
        description="side of the square of places whose mean k-means sees, odd; the paper's: 1, each alone",
    )
    iterations: int = Field(10, ge=1, le=1000, description="iterations of k-means; the paper prints none")
    hidden: int = Field(1024, ge=1, description="hidden width of projector and predictor; BYOL's: 4096")
    projection: int = Field(128, ge=2, description="width of the projections; BYOL's: 256")

    @model_validator(mode="after")
    def _middle(self) -> "Odin":
        if self.smooth % 2 == 0:
            raise ValueError(f"smooth = {self.smooth} must be odd: the square around a place has it in its middle")
        return self


class Dino(Common):
    """Self-distillation: the student's view of a crop is to name the teacher's prototype of the image."""

    objective: Literal["dino"] = Field("dino", description="dino")
    prototypes: int = Field(1024, ge=2, description="outputs of the head; the paper's: 65536")
    hidden: int = Field(512, ge=1, description="hidden width of the head; the paper's: 2048")
    bottleneck: int = Field(128, ge=2, description="width before the prototypes; the paper's: 256")
    student_temperature: float = Field(0.1, gt=0, description="the paper's: 0.1")
    teacher_temperature: float = Field(0.04, gt=0, description="after the warm-up; the paper's: 0.04 to 0.07")
    teacher_temperature_start: float = Field(0.04, gt=0, description="at the first step; the paper's: 0.04")
    teacher_warmup: int = Field(0, ge=0, description="steps between these two; the paper's: 30 epochs")
    teacher_decay: float = Field(0.996, ge=0, le=1, description="at the start, a cosine to 1; the paper's: 0.996")
    balance: Literal["centring", "sinkhorn"] = Field(
        "centring", description="what keeps the teacher from one prototype for all; the paper's: centring"
    )
    centre_decay: float = Field(0.9, ge=0, lt=1, description="of the moving centre, if centring; the paper's: 0.9")
    sinkhorn_iterations: int = Field(3, ge=1, le=100, description="if sinkhorn; SwAV's: 3")
    frozen_steps: int = Field(0, ge=0, description="first steps without a change of prototypes; the paper's: 1 epoch")
    global_side: int = Field(64, ge=8, description="side of the two large views; the paper's: 224")
    local_side: int = Field(32, ge=8, description="side of the small views; the paper's: 96")
    local_crops: int = Field(4, ge=0, le=32, description="number of small views; the paper's: 10, few 0 to 8")
    global_min_area: float = Field(
        0.4,
        gt=0,
        le=1,
        description="smallest share of the image in a large view, largest in a small; the paper's: 0.4",
    )
    local_min_area: float = Field(0.05, gt=0, le=1, description="smallest share in a small view; the paper's: 0.05")
    strength: float = Field(0.3, ge=0, le=1, description="of the colour changes, 0 to 1; the paper's: 1")

    @model_validator(mode="after")
    def _areas(self) -> "Dino":
        if self.local_min_area > self.global_min_area:
            raise ValueError(
                f"local_min_area = {self.local_min_area} must be at most global_min_area = {self.global_min_area}"
            )
        return self


class Mae(Common):
    """Masked autoencoder: most patches are hidden, and their pixels guessed from the others."""

    objective: Literal["mae"] = Field("mae", description="mae")
    mask_ratio: float = Field(0.75, gt=0, lt=1, description="share of the patches that is hidden; the paper's: 0.75")
    view_side: int = Field(96, ge=8, description="side of the view; the paper's: 224")
    min_area: float = Field(0.2, gt=0, le=1, description="smallest share of the image in the view; the paper's: 0.2")
    decoder_width: int = Field(96, ge=4, description="channels of the decoder; the paper's: 512")
    decoder_depth: int = Field(2, ge=1, le=64, description="blocks of the decoder; the paper's: 8")
    decoder_heads: int = Field(3, ge=1, le=64, description="attention heads of the decoder; the paper's: 16")
    normalise_pixels: bool = Field(
        False, description="guess each patch's pixels less their mean, over their deviation; the paper's: yes"
    )

    @model_validator(mode="after")
    def _heads(self) -> "Mae":
        if self.decoder_width % self.decoder_heads:
            raise ValueError(
                f"decoder_width = {self.decoder_width} must be a multiple of decoder_heads = {self.decoder_heads}"
            )
        return self


OBJECTIVES: dict[str, type[Common]] = {"odin": Odin, "dino": Dino, "mae": Mae}


def settings_from(values: Mapping[str, Any], where: str) -> Common:
    """``values`` as the settings of the objective they name (default: odin), defaults filled in.

    Raises :class:`ParameterError` that names ``where`` (a file), every wrong name and value, and what is legal.
    """
    settings: Common = checked(OBJECTIVES, values, where)
    return settings


def checked(models: Mapping[str, type[Steps]], values: Mapping[str, Any], where: str) -> Any:
    """``values`` as an instance of the one of ``models`` that their ``objective`` names (default: odin)."""
    objective = str(values.get("objective", "odin"))
    if objective not in models:
        raise ParameterError(f"{where}: unknown objective {objective!r}{suggest(objective, models)}")
    model = models[objective]
    for name, value in values.items():
        number = name in model.model_fields and model.model_fields[name].annotation in (int, float)
        if number and isinstance(value, str) and _is_number(value):
            raise ParameterError(
                f"{where}: {name} = {value!r} is text, not a number: YAML wants a point and a sign, as in 1.0e-3"
            )
    return check_model(model, values, where)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
