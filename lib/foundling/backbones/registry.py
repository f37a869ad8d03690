"""The table of backbones: what each network is and where its weights come from.

A line of this table is data only; :mod:`foundling.backbones.networks` builds what it names and
:mod:`foundling.backbones.weights` finds and fits the file it names.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

VIT_FACETS = ("keys", "queries", "values", "tokens")
CLS_FACETS = ("cls", "attention")  # of the networks that have a CLS token
CNN_FACETS = ("keys", "tokens")

_FACEBOOK = "https://dl.fbaipublicfiles.com"
_TORCHVISION = "https://download.pytorch.org/models"


@dataclass(frozen=True)
class Entry:
    """One backbone of the registry.

    ``architecture`` is a timm model (with ``options`` passed to ``timm.create_model``) or, for ``family="cnn"`` without
    options, the name of a torchvision model. ``file`` is the file name under which the weights are looked for in the
    weights folder; ``url`` is where the authors publish it, ``timm`` the tag of the same weights on the Hugging Face
    hub and ``page`` where a person gets it by hand.
    ``wrappers`` are the keys under which the checkpoint nests the network that is wanted, best first; ``dropped`` are
    the prefixes of its parameters that are no part of the backbone; ``remap`` names one of the functions of
    :mod:`foundling.backbones.remap`; ``sha256`` is what the SHA-256 of ``file`` starts with, where its authors say so.
    ``patch_size`` is in pixels; for a CNN it is the output stride.
    """

    name: str
    architecture: str
    file: str
    licence: str
    patch_size: int
    url: str | None = None
    timm: str | None = None
    page: str | None = None
    family: str = "vit"
    options: Mapping[str, Any] = field(default_factory=dict)
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    gated: bool = False
    embedded: bool = False
    wrappers: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ("head.", "fc.")
    remap: str | None = None
    sha256: str | None = None
    notes: str = ""

    @property
    def facets(self) -> tuple[str, ...]:
        """The facets that this network has, told without building it."""
        if self.family == "cnn":
            return CNN_FACETS
        return VIT_FACETS + (CLS_FACETS if self.options.get("class_token", True) else ())


def _scenes(name: str, sha256: str, notes: str = "") -> Entry:
    return Entry(
        name=name,
        architecture="vit_tiny_patch16_224",
        file=f"{name}.safetensors",
        licence="mit",
        patch_size=8,
        options={"img_size": 96, "patch_size": 8, "embed_dim": 192, "depth": 4, "num_heads": 3},
        embedded=True,
        sha256=sha256,
        notes=f"{notes}Trained by this project on its own synthetic scenes; comes with the package.",
    )


def _dino(name: str, architecture: str, file: str, patch_size: int, timm: str | None, notes: str = "") -> Entry:
    return Entry(
        name=name,
        architecture=architecture,
        file=f"{file}.pth",
        url=f"{_FACEBOOK}/dino/{file}/{file}.pth",
        timm=timm,
        licence="apache-2.0",
        patch_size=patch_size,
        notes=notes,
    )


_ENTRIES = (
    _scenes("scenes_odin", "71424e11ea346400c2b1772af65682e56f200d96190da27fc1818f5e727b79f6"),
    _scenes(
        "scenes_mae",
        "26a2ebdbf498104c8a8a11bc38a35d0957b09b217dd07483604eb73b9291fa6a",
        "A masked autoencoder, to compare with. ",
    ),
    Entry(
        "scenes_objects",
        "resnet10t",
        "scenes_objects.safetensors",
        "mit",
        32,
        family="cnn",
        options={"channels": [28, 56, 112, 224]},
        embedded=True,
        sha256="8f26dd96cd45048be48fdd5ca315c9a78a69ebfae31c8c2600ce633deab1e755",
        notes="Describes crops of objects whose background is painted over. Trained by this project on its own "
        "synthetic scenes; comes with the package.",
    ),
    _dino("dino_vits16", "vit_small_patch16_224", "dino_deitsmall16_pretrain", 16, "vit_small_patch16_224.dino"),
    _dino(
        "dino_vits8",
        "vit_small_patch8_224",
        "dino_deitsmall8_pretrain",
        8,
        "vit_small_patch8_224.dino",
        "The checkpoint of torch.hub and timm; LOST and TokenCut used dino_vits8_300ep.",
    ),
    _dino(
        "dino_vits8_300ep",
        "vit_small_patch8_224",
        "dino_deitsmall8_300ep_pretrain",
        8,
        None,
        "The checkpoint that LOST, TokenCut and MaskCut load for ViT-S/8.",
    ),
    _dino("dino_vitb16", "vit_base_patch16_224", "dino_vitbase16_pretrain", 16, "vit_base_patch16_224.dino"),
    _dino("dino_vitb8", "vit_base_patch8_224", "dino_vitbase8_pretrain", 8, "vit_base_patch8_224.dino"),
    Entry(
        "dino_resnet50",
        "resnet50",
        "dino_resnet50_pretrain.pth",
        "apache-2.0",
        16,
        url=f"{_FACEBOOK}/dino/dino_resnet50_pretrain/dino_resnet50_pretrain.pth",
        family="cnn",
        notes="Last stage dilated: output stride 16, as LOST's default (resnet_dilate 2).",
    ),
    Entry(
        "deit_vits16",
        "vit_small_patch16_224",
        "deit_small_patch16_224-cd65a155.pth",
        "apache-2.0",
        16,
        url=f"{_FACEBOOK}/deit/deit_small_patch16_224-cd65a155.pth",
        timm="deit_small_patch16_224.fb_in1k",
        sha256="cd65a155",
        notes="Supervised on ImageNet labels. LOST (appendix B.5) says no more than that its model is DeiT's: "
        "that it is this one is our reading.",
    ),
    Entry(
        "supervised_resnet50",
        "resnet50",
        "resnet50-0676ba61.pth",
        "bsd-3-clause",
        16,
        url=f"{_TORCHVISION}/resnet50-0676ba61.pth",
        timm="resnet50.tv_in1k",
        family="cnn",
        sha256="0676ba61",
        notes="torchvision's IMAGENET1K_V1 weights; last stage dilated, output stride 16.",
    ),
    Entry(
        "supervised_vgg16",
        "vgg16",
        "vgg16-397923af.pth",
        "bsd-3-clause",
        16,
        url=f"{_TORCHVISION}/vgg16-397923af.pth",
        family="cnn",
        dropped=("classifier.",),
        sha256="397923af",
        notes="torchvision's IMAGENET1K_V1 weights; conv5_3 after its ReLU, without the last pooling.",
    ),
    Entry(
        "mae_vitb16",
        "vit_base_patch16_224",
        "mae_pretrain_vit_base.pth",
        "cc-by-nc-4.0",
        16,
        url=f"{_FACEBOOK}/mae/pretrain/mae_pretrain_vit_base.pth",
        timm="vit_base_patch16_224.mae",
        dropped=("head.", "fc.", "mask_token", "decoder_"),
        notes="mae_visualize_vit_base.pth, which TokenCut loads, is read as well: its decoder is left out.",
    ),
    Entry(
        "mocov3_vits16",
        "vit_small_patch16_224",
        "vit-s-300ep.pth.tar",
        "cc-by-nc-4.0",
        16,
        url=f"{_FACEBOOK}/moco-v3/vit-s-300ep/vit-s-300ep.pth.tar",
        options={"num_heads": 12},
        notes="12 heads, not 6: MoCo-v3's own ViT-S.",
    ),
    Entry(
        "mocov3_vitb16",
        "vit_base_patch16_224",
        "vit-b-300ep.pth.tar",
        "cc-by-nc-4.0",
        16,
        url=f"{_FACEBOOK}/moco-v3/vit-b-300ep/vit-b-300ep.pth.tar",
    ),
    Entry(
        "msn_vitb16",
        "vit_base_patch16_224",
        "vitb16_600ep.pth.tar",
        "cc-by-nc-4.0",
        16,
        url=f"{_FACEBOOK}/msn/vitb16_600ep.pth.tar",
        wrappers=("target_encoder", "encoder"),
        dropped=("head.", "fc.", "pred."),
    ),
    Entry(
        "selfpatch_vits16",
        "vit_small_patch16_224",
        "selfpatch_vits16.pth",
        "no licence file",
        16,
        page="https://drive.google.com/file/d/19eeQrK-nl4B9ksFQ_QnewGHVKYDQF4Yw",
        options={"class_token": False, "global_pool": "avg", "fc_norm": False, "final_norm": False},
        notes="Its blocks see no CLS token, so the facets cls and attention do not exist; it has no final norm.",
    ),
    Entry(
        "densecl_resnet101",
        "resnet101",
        "densecl_r101_imagenet_200ep.pth",
        "bsd-2-clause",
        16,
        page="https://github.com/WXinlong/DenseCL",
        family="cnn",
        notes="The authors' host (CloudStor) has closed; any copy of this file or of the training checkpoint is read. "
        "Last stage dilated: output stride 16.",
    ),
    Entry(
        "dinov2_vits14",
        "vit_small_patch14_dinov2",
        "dinov2_vits14_pretrain.pth",
        "apache-2.0",
        14,
        url=f"{_FACEBOOK}/dinov2/dinov2_vits14/dinov2_vits14_pretrain.pth",
        timm="vit_small_patch14_dinov2.lvd142m",
        dropped=("head.", "mask_token"),
    ),
    Entry(
        "dinov2_vitb14",
        "vit_base_patch14_dinov2",
        "dinov2_vitb14_pretrain.pth",
        "apache-2.0",
        14,
        url=f"{_FACEBOOK}/dinov2/dinov2_vitb14/dinov2_vitb14_pretrain.pth",
        timm="vit_base_patch14_dinov2.lvd142m",
        dropped=("head.", "mask_token"),
    ),
    Entry(
        "dinov3_vits16",
        "vit_small_patch16_dinov3_qkvb",
        "dinov3_vits16_pretrain_lvd1689m-08c60483.pth",
        "dinov3-license",
        16,
        timm="vit_small_patch16_dinov3_qkvb.lvd1689m",
        page="https://ai.meta.com/dinov3",
        gated=True,
        dropped=("head.", "mask_token", "rope_embed."),
        remap="dinov3",
        sha256="08c60483",
        notes="Licence: ai.meta.com/resources/models-and-libraries/dinov3-license.",
    ),
    Entry(
        "dinov3_vitb16",
        "vit_base_patch16_dinov3_qkvb",
        "dinov3_vitb16_pretrain_lvd1689m-73cec8be.pth",
        "dinov3-license",
        16,
        timm="vit_base_patch16_dinov3_qkvb.lvd1689m",
        page="https://ai.meta.com/dinov3",
        gated=True,
        dropped=("head.", "mask_token", "rope_embed."),
        remap="dinov3",
        sha256="73cec8be",
        notes="Licence: ai.meta.com/resources/models-and-libraries/dinov3-license.",
    ),
)

BACKBONES: dict[str, Entry] = {entry.name: entry for entry in _ENTRIES}
