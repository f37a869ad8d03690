"""Features of the convolutional backbones: LOST's whole-map normalisation, and what they do not have."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from foundling.backbones import Backbone, extract, load_backbone
from foundling.backbones.cnn import as_it_left_relu, cnn_facets
from foundling.errors import ParameterError


@pytest.fixture(scope="module")
def resnet() -> Backbone:
    return load_backbone("supervised_resnet50", weights="random", device="cpu", seed=1)


def test_one_mean_and_one_variance_by_hand() -> None:
    """Two patches of two channels, 0 1 / 3 4: mean 2, biased variance 2.5 over all four."""
    pixels = torch.zeros(1, 3, 1, 2)
    pixels[0, :2, 0, 0] = torch.tensor([0.0, 1.0])
    pixels[0, :2, 0, 1] = torch.tensor([3.0, 4.0])
    take_two = nn.Conv2d(3, 2, 1, bias=False).requires_grad_(False)
    take_two.weight.copy_(torch.eye(2, 3).view(2, 3, 1, 1))
    found = cnn_facets(take_two, pixels, ["keys"])["keys"][0]
    expected = (torch.tensor([[0.0, 1.0], [3.0, 4.0]]) - 2) / (2.5 + 1e-5) ** 0.5
    assert torch.allclose(found, expected, atol=1e-6)


def test_resnet_against_torchvision(resnet: Backbone, rng: np.random.Generator) -> None:
    """The trunk is torchvision's network up to layer4, dilated; its map is standardised image by image."""
    import torchvision

    full = torchvision.models.resnet50(replace_stride_with_dilation=[False, False, True]).eval()
    full.load_state_dict(resnet.network.state_dict(), strict=False)
    images = [Image.fromarray(rng.integers(0, 256, (60, 90, 3), dtype=np.uint8)) for _ in range(2)]
    (features,) = extract(resnet, images, facets=("keys", "tokens"))
    assert (features.grid, features.patch_size) == ((4, 6), 16)
    for image, keys in zip(images, features.facet("keys"), strict=True):
        x = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None] / 255
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (resnet.mean, resnet.std))
        x = torch.nn.functional.pad((x - mean) / std, (0, 6, 0, 4))
        for layer in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"):
            x = getattr(full, layer)(x)
        flat = x[0].detach().flatten(1).T
        expected = (flat - flat.mean()) / (flat.var(unbiased=False) + 1e-5).sqrt()
        assert torch.allclose(keys, expected, atol=1e-3 * expected.abs().max().item())
    assert torch.equal(features.facet("keys"), features.facet("tokens"))


def test_scaling_the_map_changes_nothing(rng: np.random.Generator) -> None:
    pixels = torch.from_numpy(rng.standard_normal((1, 3, 5, 4)).astype(np.float32))
    a = cnn_facets(nn.Identity(), pixels, ["keys"])["keys"]
    b = cnn_facets(nn.Identity(), 7 * pixels + 3, ["keys"])["keys"]
    assert torch.allclose(a, b, atol=1e-4)


def test_what_left_the_last_relu_comes_back_up_to_a_factor(resnet: Backbone, rng: np.random.Generator) -> None:
    images = [Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)) for _ in range(2)]
    (features,) = extract(resnet, images, facets=("tokens",))
    found = as_it_left_relu(resnet, features, "tokens").facet("tokens")
    mean, std = (torch.tensor(x)[:, None, None] for x in (resnet.mean, resnet.std))
    for image, mine in zip(images, found, strict=True):
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
        plain = resnet.network(((pixels - mean) / std)[None])[0].flatten(1).T
        assert plain.min() == 0
        torch.testing.assert_close(mine / mine.norm(), plain / plain.norm(), rtol=0, atol=1e-6)


def test_features_of_a_transformer_are_left_as_they_are(rng: np.random.Generator) -> None:
    backbone = load_backbone("scenes_odin", weights="random", device="cpu")
    image = Image.fromarray(rng.integers(0, 256, (16, 24, 3), dtype=np.uint8))
    (features,) = extract(backbone, [image], facets=("tokens",))
    assert as_it_left_relu(backbone, features, "tokens") is features


@pytest.mark.parametrize("facet", ["queries", "values", "cls", "attention"])
def test_a_cnn_has_no_attention(resnet: Backbone, facet: str) -> None:
    message = rf"supervised_resnet50 has no facet '{facet}' \(a CNN has no such facet\): choose among keys, tokens"
    with pytest.raises(ParameterError, match=message):
        extract(resnet, [], facets=(facet,))


def test_a_cnn_has_one_stage(resnet: Backbone) -> None:
    with pytest.raises(ParameterError, match=r"block=3: supervised_resnet50 has blocks 0 to 0 \(or -1 to -1\)"):
        extract(resnet, [], block=3)
    assert (resnet.family, resnet.heads, resnet.blocks, resnet.channels) == ("cnn", 0, 1, 2048)
