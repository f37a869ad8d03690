"""The networks that detectors stand on: made, loaded, and in part kept as they are."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import timm
from timm.layers import freeze_batch_norm_2d
from torch import nn
from torchvision.models import get_model
from torchvision.models.resnet import ResNet

from foundling.backbones import load_backbone
from foundling.backbones.registry import BACKBONES, IMAGENET_MEAN, IMAGENET_STD
from foundling.backbones.transfer import fill, is_common_resnet, read_trained
from foundling.errors import WeightsError
from foundling.training.detection.settings import Detector

EMBEDDED = {"vit": "scenes_odin", "unet": "scenes_objects"}  # whose architecture random weights are of


class Body(NamedTuple):
    """A network that a detector stands on: timm's name and options of it, the mean and deviation of RGB in 0..1."""

    network: Any
    architecture: str
    options: dict[str, Any]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def load_body(settings: Detector) -> Body:
    """The backbone that ``settings`` name, with its weights; raises as :func:`named_body`."""
    return named_body(settings.network, settings.weights)


def named_body(network: str, name: str) -> Body:
    """The backbone that a ``network`` stands on, with the weights called ``name``: that of "vit" is a ViT, that of
    "unet" a convolutional network of timm's, that of "r101_fpn" a ResNet-101, that of others a ResNet-50.

    Raises WeightsError for weights that are missing, damaged, or of another kind of network.
    """
    if name == "random" and network not in EMBEDDED:
        return empty_body(_resnet(network), {}, IMAGENET_MEAN, IMAGENET_STD)
    if name == "random" or name in BACKBONES:
        entry = BACKBONES[EMBEDDED[network] if name == "random" else name]
        _check_kind(network, name, entry.architecture, timms=entry.family == "vit" or bool(entry.options))
        body = empty_body(entry.architecture, dict(entry.options), entry.mean, entry.std)
        if name != "random":
            state = load_backbone(entry.name, device="cpu").network.state_dict()
            body.network.load_state_dict(state)
        return body
    trained = read_trained(name)
    common = is_common_resnet(trained)
    _check_kind(network, name, trained.architecture, timms=not common)
    options = {} if common else trained.options
    body = empty_body(trained.architecture, options, trained.mean, trained.std)
    fill(body.network, trained.backbone, trained)
    return body


def empty_body(architecture: str, options: dict[str, Any], mean: Sequence[float], std: Sequence[float]) -> Body:
    """The backbone of that name, its weights drawn by PyTorch's generator."""
    if architecture in ("resnet50", "resnet101"):
        network: Any = get_model(architecture, weights=None)
        network.fc = nn.Identity()
    else:
        any_size = {"dynamic_img_size": True, "dynamic_img_pad": True} if architecture.startswith("vit") else {}
        network = timm.create_model(architecture, pretrained=False, num_classes=0, **any_size | options)
    return Body(network, architecture, dict(options), tuple(mean), tuple(std))


def _resnet(network: str) -> str:
    return "resnet101" if network == "r101_fpn" else "resnet50"


def _check_kind(network: str, name: str, architecture: str, timms: bool) -> None:
    """``timms``: the network has timm's names and options, as all ViTs have; the common ResNets have torchvision's."""
    vit = architecture.startswith("vit")
    if network == "vit":
        wanted, given = "a ViT", vit
    elif network == "unet":
        wanted, given = "a small convolutional network, such as scenes_objects", timms and not vit
    else:
        wanted, given = (
            f"a ResNet-{_resnet(network).removeprefix('resnet')}",
            architecture == _resnet(network) and not timms,
        )
    if name != "random" and not given:
        raise WeightsError(
            f"weights = {name} is not what network = {network} stands on, {wanted}: choose other weights, or another "
            "network"
        )


def freeze_resnet(resnet: ResNet, freeze_at: int, norm: str, stages: int) -> None:
    """Keep the stem (1) and a stage for each further number, among the first ``stages``; normalisation there, or with
    ``norm`` "frozen" everywhere, becomes a fixed affine map."""
    if norm == "frozen":
        freeze_batch_norm_2d(resnet)
    if freeze_at:
        resnet.bn1 = freeze_batch_norm_2d(resnet.bn1)
    all_stages = [resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4][:stages]
    for part in [resnet.conv1, resnet.bn1, *all_stages][: freeze_at + 1 if freeze_at else 0]:
        freeze_batch_norm_2d(part)
        part.requires_grad_(False)


def freeze_vit(vit: Any, freeze_at: int) -> None:
    """Keep the patch embedding (1), and another quarter of the blocks for each further number; at 5 all of it."""
    if freeze_at == 5:
        vit.requires_grad_(False)
        return
    blocks = list(vit.blocks)
    if freeze_at:
        kept = blocks[: math.ceil(len(blocks) * (freeze_at - 1) / 4)]
        for part in (vit.patch_embed, *kept):
            part.requires_grad_(False)
        for name in ("cls_token", "reg_token", "pos_embed"):
            if isinstance(value := getattr(vit, name, None), nn.Parameter):
                value.requires_grad_(False)
