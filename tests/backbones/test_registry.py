"""The registry against timm's own record of the same weights, and each entry against the network it builds."""

import pytest
import timm
import torch
from timm.models import get_pretrained_cfg

from foundling.backbones import BACKBONES, load_backbone
from foundling.backbones.networks import build_network
from foundling.errors import ParameterError

WIDTHS = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12)}
TIMM = [name for name, entry in BACKBONES.items() if entry.timm is not None]


def test_the_backbones_of_the_five_papers_are_there() -> None:
    assert set(BACKBONES) == {
        *("scenes_odin", "scenes_mae", "scenes_objects"),
        *("dino_vits16", "dino_vits8", "dino_vits8_300ep", "dino_vitb16", "dino_vitb8", "dino_resnet50"),
        *("deit_vits16", "supervised_resnet50", "supervised_vgg16", "mae_vitb16", "mocov3_vits16", "mocov3_vitb16"),
        *("msn_vitb16", "selfpatch_vits16", "densecl_resnet101"),
        *("dinov2_vits14", "dinov2_vitb14", "dinov3_vits16", "dinov3_vitb16"),
    }


@pytest.mark.parametrize("name", TIMM)
def test_as_timm_records_it(name: str) -> None:
    entry = BACKBONES[name]
    assert entry.timm in timm.list_pretrained()
    record = get_pretrained_cfg(entry.timm)
    assert record is not None
    assert record.license == entry.licence
    assert (record.mean, record.std) == (entry.mean, entry.std)
    assert record.hf_hub_id == f"timm/{entry.timm}"
    if record.url:
        assert record.url == entry.url


def test_the_two_checkpoints_of_s8_differ() -> None:
    assert BACKBONES["dino_vits8"].url != BACKBONES["dino_vits8_300ep"].url


@pytest.mark.parametrize("name", BACKBONES)
def test_the_network_is_the_one_named(name: str) -> None:
    entry = BACKBONES[name]
    with torch.device("meta"):
        network = build_network(entry)
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())
    has_cls = getattr(network, "cls_token", None) is not None
    assert ("attention" in entry.facets, "cls" in entry.facets) == (has_cls, has_cls)
    if entry.family == "cnn":
        assert entry.patch_size == (32 if entry.embedded else 16)
        return
    width, heads = WIDTHS["tiny" if entry.embedded else "small" if "vits" in name else "base"]
    assert network.embed_dim == width
    assert network.blocks[0].attn.num_heads == (12 if name == "mocov3_vits16" else heads)
    assert len(network.blocks) == (4 if entry.embedded else 12)
    assert network.patch_embed.patch_size == (entry.patch_size, entry.patch_size)
    assert network.blocks[0].norm1.eps == (1e-5 if "dinov3" in name else 1e-6)


@pytest.mark.parametrize("name", ["dino_resnet50", "supervised_resnet50", "densecl_resnet101", "supervised_vgg16"])
def test_cnn_stride_and_width(name: str) -> None:
    """Output stride 16; 2,048 channels of layer4, or 512 of conv5_3 after its ReLU."""
    with torch.device("meta"):
        network = build_network(BACKBONES[name])
        maps = network(torch.zeros(1, 3, 64, 96))
    assert maps.shape == (1, 512 if "vgg" in name else 2048, 4, 6)
    assert isinstance(list(network.modules())[-1], torch.nn.ReLU)


def test_the_network_of_objects_sees_a_crop_as_four_cells() -> None:
    with torch.device("meta"):
        maps = build_network(BACKBONES["scenes_objects"])(torch.zeros(1, 3, 64, 64))
    assert maps.shape == (1, 224, 2, 2)


def test_unknown_name() -> None:
    with pytest.raises(ParameterError, match=r"'dino_vit16' \(did you mean 'dino_vits16'\?\): choose one of scenes"):
        load_backbone("dino_vit16", weights="random")


def test_unknown_device() -> None:
    with pytest.raises(ParameterError, match="unknown device 'gpu'"):
        load_backbone("dino_vits16", weights="random", device="gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ParameterError, match="finds no CUDA GPU here: choose 'cpu'"):
            load_backbone("dino_vits16", weights="random", device="cuda")
