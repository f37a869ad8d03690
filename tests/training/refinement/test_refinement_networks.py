"""h: what it looks at, what it says, what it starts from, and what it refuses."""

from pathlib import Path

import pytest
import torch
from plain_squares import SMALL
from safetensors.torch import save_file

from foundling.errors import ParameterError, WeightsError
from foundling.training.refinement.boxes import decode
from foundling.training.refinement.networks import make_box_network


@pytest.mark.parametrize(("channels", "shape"), [(1, (40, 40)), (3, (16, 192)), (576, (4, 4))])
def test_it_takes_any_map(channels: int, shape: tuple[int, int]) -> None:
    head = make_box_network("resnet18", SMALL, 7, channels)
    boxes, logits = head(torch.randn(2, channels, *shape))
    assert boxes.shape == (2, 7, 4) and logits.shape == (2, 7, 2)
    assert (boxes > 0).all() and (boxes < 1).all()


def test_one_channel_is_shown_three_times() -> None:
    head = make_box_network("resnet18", SMALL, 2, 1).eval()
    mask = torch.rand(1, 1, 32, 32)
    expected = decode(head.body(torch.cat([mask, mask, mask], 1)))
    torch.testing.assert_close(head(mask), expected)


def test_in_evaluation_an_image_does_not_depend_on_its_batch_and_its_input_has_a_gradient() -> None:
    head = make_box_network("resnet18", SMALL, 2, 3).eval().requires_grad_(False)
    maps = torch.randn(3, 3, 24, 24, requires_grad=True)
    boxes, _ = head(maps)
    torch.testing.assert_close(boxes[:1], head(maps[:1])[0], atol=1e-6, rtol=1e-5)
    boxes.sum().backward()
    assert maps.grad is not None and maps.grad.abs().sum() > 0


def test_it_starts_from_weights_except_for_its_last_layer(tmp_path: Path) -> None:
    given = make_box_network("resnet18", SMALL, 5, 3).body.state_dict()
    kept = {name: tensor for name, tensor in given.items() if not name.startswith("fc.")}
    told = '{"architecture": "resnet18", "arguments": {}, "mean": [0], "std": [1]}'
    save_file(kept, tmp_path / "a.safetensors", {"foundling": told})
    file = str(tmp_path / "a.safetensors")
    made = make_box_network("resnet18", SMALL, 2, 3, file).body.state_dict()
    assert made["fc.weight"].shape == (12, 16)
    assert all(torch.equal(made[name], given[name]) for name in given if not name.startswith("fc."))
    many = make_box_network("resnet18", SMALL, 2, 12, file).body.state_dict()
    assert many["conv1.weight"].shape[1] == 12
    assert torch.equal(many["layer1.0.conv1.weight"], given["layer1.0.conv1.weight"])
    with pytest.raises(WeightsError, match=r"network_weights = .* of another shape: .*network and network_options"):
        make_box_network("resnet18", {"channels": [8, 8, 16, 32]}, 2, 3, file)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet5", {}, r"network = 'resnet5' is no network of timm's: use a ResNet.* \(near this name: resnet"),
        ("resnet18", {"chanels": [8]}, "network_options .* do not fit network = 'resnet18'"),
    ],
)
def test_what_there_is_no_h_of(name: str, options: dict[str, list[int]], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        make_box_network(name, options, 2, 3)


def test_weights_of_another_network() -> None:
    with pytest.raises(WeightsError, match="network_weights = scenes_odin are not of this network"):
        make_box_network("resnet18", SMALL, 2, 3, "scenes_odin")


def test_a_map_of_other_channels() -> None:
    with pytest.raises(ParameterError, match="h takes maps of 3 channels, and this one has 1"):
        make_box_network("resnet18", SMALL, 2, 3)(torch.zeros(1, 1, 32, 32))
