"""The small U-Net: shapes, what its depth sees, its file, and what it refuses."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from foundling.errors import ParameterError, WeightsError
from foundling.saliency import load_saliency_network
from foundling.saliency.unet import Unet


@pytest.mark.parametrize("size", [(32, 32), (80, 80), (96, 50)])
def test_one_map_of_the_size_of_the_image(size: tuple[int, int]) -> None:
    network = Unet(2).eval()
    assert network(torch.rand(3, 3, *size)).shape == (1, 3, *size)


def test_every_pixel_depends_on_far_ones() -> None:
    """Its coarsest level spans the image."""
    torch.manual_seed(0)
    network = Unet(4).eval()
    image = torch.rand(1, 3, 64, 64, requires_grad=True)
    network(image)[0, 0, 8, 8].backward()
    assert image.grad is not None and (image.grad[..., -8:, -8:] != 0).any()


def test_an_image_does_not_depend_on_those_beside_it() -> None:
    torch.manual_seed(0)
    network, images = Unet(2).eval(), torch.rand(3, 3, 48, 48)
    alone = torch.cat([network(image[None]) for image in images], 1)
    torch.testing.assert_close(network(images), alone, atol=1e-5, rtol=1e-4)


def test_its_file_is_told_from_basnets(tmp_path: Path) -> None:
    network = Unet(3).eval()
    save_file({name: value.clone() for name, value in network.state_dict().items()}, tmp_path / "unet.safetensors")
    loaded = load_saliency_network(tmp_path / "unet.safetensors", side=80)
    image = torch.rand(1, 3, 80, 80)
    assert (loaded.side, loaded.network.width) == (80, 3)
    torch.testing.assert_close(loaded.network(image), network(image))
    state = load_file(tmp_path / "unet.safetensors")
    del state["out.bias"]
    save_file(state, tmp_path / "less.safetensors")
    with pytest.raises(WeightsError, match=r"1 missing: out\.bias"):
        load_saliency_network(tmp_path / "less.safetensors")
    with pytest.raises(ParameterError, match="side = 16: the network takes squares whose side is 32 pixels or more"):
        load_saliency_network(tmp_path / "unet.safetensors", side=16)


def test_the_embedded_network_needs_no_file_of_ones_own() -> None:
    network = load_saliency_network("scenes_saliency")
    assert isinstance(network.network, Unet) and network.side == 80


def test_impossible_sizes() -> None:
    with pytest.raises(ParameterError, match="width = 0: a network has 1 channel or more"):
        Unet(0)
    with pytest.raises(ParameterError, match="16×64 pixels: this network takes sides of 32 and more"):
        Unet(1)(torch.zeros(1, 3, 16, 64))
