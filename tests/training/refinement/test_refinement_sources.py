"""f: the map that h sees, the boxes found through it, and what cannot be refined."""

from typing import Any

import numpy as np
import pytest
import torch
from plain_squares import settings, write_squares

from foundling.backbones import extract, load_backbone
from foundling.backbones.apply import normalise
from foundling.datasets.images import read_image
from foundling.discovery import lost, tokencut
from foundling.errors import ParameterError, WeightsError
from foundling.training.refinement.sources import make_source, usable_boxes
from foundling.types import Discovery


def views(count: int = 3, side: int = 32) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def test_h_sees_queries_keys_and_values_as_an_image_of_three_channels() -> None:
    source = make_source(settings())
    look = source.look(views(2, 96))
    assert look.map.shape == (2, 3, 144, 192) and look.output is not None and look.output.shape == (2, 192)
    network: Any = source.trained()
    seen: list[torch.Tensor] = []
    network.blocks[-1].attn.qkv.register_forward_hook(lambda layer, given, out: seen.append(out))
    whole = network.forward_features(views(2, 96))
    qkv = seen[0].unflatten(-1, (3, 192))[:, 1:]  # [image, patch, 3, channel]
    torch.testing.assert_close(look.map, qkv.movedim(2, 1), atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(look.output, whole[:, 0], atol=2e-5, rtol=1e-4)  # the CLS token after the last norm


def test_or_all_on_the_patch_grid() -> None:
    flat, grid = (make_source(settings(layout=layout)).look(views()).map for layout in ("products", "grid"))
    assert grid.shape == (3, 576, 4, 4)
    for image, product, channel, row, column in [(0, 0, 5, 1, 2), (2, 1, 191, 3, 0), (1, 2, 0, 0, 3)]:
        assert grid[image, 192 * product + channel, row, column] == flat[image, product, 4 * row + column, channel]


def test_gradients_reach_f_through_the_map_but_not_through_the_boxes() -> None:
    source = make_source(settings())
    look = source.look(views(), output=False)
    assert look.output is None
    found = source.discover(look)
    assert not any(boxes.requires_grad for boxes in found)
    look.map.square().mean().backward()
    network: Any = source.trained()
    assert network.blocks[-1].attn.qkv.weight.grad.abs().sum() > 0
    assert network.blocks[-1].mlp.fc1.weight.grad is None  # beyond what h sees: only L_f moves it


@pytest.mark.parametrize(("method", "discovery"), [("lost", {"k": 4, "centre": True}), ("tokencut", {"tau": 0.3})])
def test_boxes_are_those_of_discovery(tmp_path: Any, method: Any, discovery: dict[str, Any]) -> None:
    """On images of the very size, features and boxes are those that everyone else gets."""
    source = make_source(settings(method=method, discovery=discovery))
    backbone = load_backbone("scenes_odin", device="cpu")
    samples = write_squares(tmp_path, 1)
    features = next(iter(extract(backbone, samples)))
    pixels = features.image_sizes[0].tolist()
    assert pixels == [48, 40]
    image = torch.from_numpy(np.array(read_image(samples[0].path))).permute(2, 0, 1)[None].float() / 255
    look = source.look(normalise(image, backbone.mean, backbone.std))
    expected = (lost if method == "lost" else tokencut)(features, **discovery)[0]
    np.testing.assert_array_equal(source.discover(look)[0].numpy(), expected.boxes)


def test_a_discovery_that_failed_has_no_box() -> None:
    box = np.array([[0.0, 0.0, 32.0, 32.0]])
    assert usable_boxes(Discovery(box, np.ones(1), flags=("not_finite",))).shape == (0, 4)
    assert usable_boxes(Discovery(box, np.ones(1), flags=("undefined_cut",))).tolist() == box.tolist()
    source = make_source(settings())
    found = source.discover(source.look(views() * torch.tensor([1.0, torch.nan, 1.0]).view(3, 1, 1, 1)))
    assert [len(boxes) for boxes in found] == [1, 0, 1]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"backbone": "dino_resnet50"}, ParameterError,
         "backbone = dino_resnet50 cannot be refined: it is a CNN: it has no queries, keys and values.*choose one of"),
        ({"backbone": "selfpatch_vits16"}, ParameterError, "selfpatch_vits16 cannot be refined: it has no CLS token"),
        ({"backbone": "scenes_odn"}, ParameterError, "unknown backbone 'scenes_odn': did you mean 'scenes_odin'"),
        ({"weights": "nowhere.pth"}, WeightsError, "nowhere.pth"),
        ({"side": 36}, ParameterError, "side = 36 must be a multiple of 8, the patch size of scenes_odin"),
        ({"discovery": {"facet": "tokens"}}, ParameterError, "choose a facet among queries, keys, values, not tokens"),
        ({"discovery": {"tau": 0.2}}, ParameterError, "method lost has no setting 'tau'; its settings are: k, facet"),
        ({"discovery": {"k": 0}}, ParameterError, "k is 0: give a whole number of patches, at least 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_refined(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make_source(settings(**changes))
