"""The segmenters: torchvision's DeepLabv3 to the last bit, a light head on a ViT, encoders that stay as they are."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from labelled_discs import settings
from torchvision.models.segmentation import deeplabv3_resnet50

from foundling.backbones import load_backbone
from foundling.errors import ParameterError, WeightsError
from foundling.training.semantic.networks import DeepLab, LightHead, UnetSegmenter, load_encoder, make_segmenter
from foundling.training.semantic.settings import Semantic


@pytest.fixture(scope="module")
def deeplab() -> DeepLab:
    torch.manual_seed(0)
    told = settings(network="deeplab_r50")
    network = make_segmenter(told, load_encoder(told), 5)
    assert isinstance(network, DeepLab)
    return network


def test_deeplab_is_torchvisions(deeplab: DeepLab) -> None:
    published: Any = deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=5, aux_loss=False)
    published.backbone.load_state_dict(deeplab.encoder.state_dict())
    published.classifier.load_state_dict(deeplab.head.state_dict())
    images = torch.randn(1, 3, 40, 56)
    with torch.inference_mode():
        found, expected = deeplab.eval()(images), published.eval()(images)["out"]
    assert found.shape == (1, 5, 40, 56)
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize(("stride", "cells"), [(8, 8), (16, 4), (32, 2)])
def test_the_output_stride_of_deeplab(stride: int, cells: int) -> None:
    told = settings(network="deeplab_r50", output_stride=stride)
    with torch.inference_mode():
        network = make_segmenter(told, load_encoder(told), 3).eval()
        assert network.logits(torch.zeros(1, 3, 64, 64)).shape == (1, 3, cells, cells)


def test_deeplab_has_the_encoder_that_it_was_given() -> None:
    told = settings(network="deeplab_r50")
    body = load_encoder(told)
    network = make_segmenter(told, body, 3)
    given, taken = body.network.state_dict(), network.encoder.state_dict()
    assert set(given) == set(taken) and all(torch.equal(given[name], taken[name]) for name in given)


def test_a_vit_with_a_light_head() -> None:
    told = settings(weights="scenes_odin", channels=64, detail=16)
    network = make_segmenter(told, load_encoder(told), 13)
    trained = load_backbone("scenes_odin", device="cpu").network.state_dict()
    assert all(torch.equal(value, trained[name]) for name, value in network.encoder.state_dict().items())
    with torch.inference_mode():
        images = torch.randn(2, 3, 96, 128)
        assert network.logits(images).shape == (2, 13, 24, 32)
        assert network.eval()(images).shape == (2, 13, 96, 128)
        coarse = network.logits(images)
        assert torch.allclose(network(images), F.interpolate(coarse, (96, 128), mode="bilinear"))


def test_a_unet_has_the_encoder_that_it_was_given_and_maps_of_all_its_levels() -> None:
    told = settings(network="unet", weights="scenes_objects", channels=8)
    body = load_encoder(told)
    network = make_segmenter(told, body, 5)
    assert isinstance(network, UnetSegmenter)
    trained = load_backbone("scenes_objects", device="cpu").network.state_dict()
    assert set(trained) == set(network.encoder.state_dict())
    assert all(torch.equal(value, trained[name]) for name, value in network.encoder.state_dict().items())
    images = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        network.eval()
        maps = network.encoder(images)
        assert [tuple(level.shape[-2:]) for level in maps] == [(32, 48), (16, 24), (8, 12), (4, 6), (2, 3)]
        found = maps[4]
        for width, level in ((32, 3), (24, 2), (16, 1), (8, 0)):  # the way up, written out
            enlarged = F.interpolate(found, maps[level].shape[-2:], mode="bilinear")
            convolution, norm, _ = network.head.up[level]
            found = F.relu(norm(convolution(torch.cat([enlarged, maps[level]], 1))))
            assert found.shape[1] == width
        assert torch.allclose(network.logits(images), network.head.name(found), atol=1e-6)
        assert network(images).shape == (2, 5, 64, 96)


def test_a_unet_stands_on_a_small_convolutional_network() -> None:
    drawn = load_encoder(settings(network="unet", weights="random"))
    assert drawn.architecture == "resnet10t"
    with pytest.raises(WeightsError, match="scenes_odin is not what network = unet stands on, a small convolutional"):
        load_encoder(settings(network="unet", weights="scenes_odin"))
    with pytest.raises(WeightsError, match="scenes_objects is not what network = vit stands on, a ViT"):
        load_encoder(settings(network="vit", weights="scenes_objects"))
    with pytest.raises(WeightsError, match="stands on, a ResNet-50"):
        load_encoder(settings(network="deeplab_r50", weights="scenes_objects"))


@pytest.mark.parametrize("detail", [0, 4])
def test_the_head_sees_details_if_it_is_to(detail: int) -> None:
    head = LightHead(6, 3, 8, detail).eval()
    tokens, images = torch.randn(1, 6, 4, 4), torch.randn(1, 3, 32, 32)
    with torch.inference_mode():
        same = torch.equal(head(tokens, images), head(tokens, torch.randn(1, 3, 32, 32)))
    assert same == (detail == 0)


@pytest.mark.parametrize("network", ["vit", "deeplab_r50", "unet"])
def test_an_encoder_without_a_rate_stays_as_it_is(network: str) -> None:
    told = settings(network=network, backbone_rate=0.0)
    segmenter = make_segmenter(told, load_encoder(told), 3).train()
    before = {name: value.clone() for name, value in segmenter.encoder.state_dict().items()}
    segmenter(torch.randn(2, 3, 32, 32)).square().mean().backward()
    assert not segmenter.encoder.training and segmenter.head.training
    assert all(p.grad is None for p in segmenter.encoder.parameters())
    assert all(torch.equal(value, before[name]) for name, value in segmenter.encoder.state_dict().items())
    assert all(p.grad is not None for p in segmenter.head.parameters())


def test_encoders_of_the_wrong_kind_are_refused() -> None:
    with pytest.raises(
        WeightsError, match=r"weights = scenes_odin is not what network = deeplab_r50 stands on, a ResNet-50"
    ):
        load_encoder(settings(network="deeplab_r50", weights="scenes_odin"))
    with pytest.raises(WeightsError, match=r"weights = supervised_resnet50 is not what network = vit stands on, a ViT"):
        load_encoder(settings(weights="supervised_resnet50"))
    with pytest.raises(WeightsError, match="no such file"):
        load_encoder(settings(weights="nowhere.safetensors"))


def test_sides_must_fit_the_patches() -> None:
    told = settings(weights="dino_vits16", side=40, test_side=32)
    body = load_encoder(settings(weights="random"))
    body.network.patch_embed.patch_size = (16, 16)
    with pytest.raises(ParameterError, match="side = 40 must be a multiple of 16, the patch size of dino_vits16"):
        make_segmenter(told, body, 3)


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match=r"min_area = 0\.8 must be at most max_area = 0\.5"):
        Semantic(min_area=0.8, max_area=0.5)
    with pytest.raises(ValueError, match=r"min_area = 1\.5: a crop inside the image has an area of 1 at most"):
        Semantic(min_area=1.5, max_area=2.0)
    with pytest.raises(ValueError, match="accumulate = 8 takes a batch of 8 apart into single images"):
        Semantic(network="deeplab_r50", accumulate=8)
    assert Semantic(network="vit", accumulate=8).accumulate == 8
    assert not [name for name, field in Semantic.model_fields.items() if not field.description]
