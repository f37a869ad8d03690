"""Objects told from each other: the loss, the views, a run, and what it refuses."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file

from foundling import cli
from foundling.categories.crops import objects_of_masks
from foundling.discovery.export import encode_mask
from foundling.errors import ParameterError
from foundling.training import contrast
from foundling.training.contrast import CropSet, contrast_loss, cut, make_trunk, make_view, windows
from foundling.training.contrast_settings import Contrast, ContrastOnSources
from foundling.training.views import MEAN, STD
from foundling.types import Sample


def test_the_loss_by_its_definition() -> None:
    """SimCLR's Eq. 1, written out over every pair of views."""
    rng = np.random.default_rng(0)
    views = rng.normal(size=(8, 5))
    unit = views / np.linalg.norm(views, axis=1, keepdims=True)
    expected = []
    for i in range(8):
        similar = np.exp(unit @ unit[i] / 0.3)
        expected.append(-math.log(similar[(i + 4) % 8] / (similar.sum() - similar[i])))
    found = contrast_loss(torch.from_numpy(views).float(), 0.3)
    assert found["loss"].item() == pytest.approx(np.mean(expected), abs=1e-5)


def test_views_that_agree_are_found() -> None:
    views = torch.eye(6).repeat(2, 1)
    assert contrast_loss(views, 0.1)["found"].item() == 1
    assert contrast_loss(views, 0.1)["loss"].item() < 1e-2 < contrast_loss(torch.rand(12, 6), 0.1)["loss"].item()
    scaled = contrast_loss(views * torch.arange(1.0, 13.0)[:, None], 0.1)
    assert scaled["loss"].item() == pytest.approx(contrast_loss(views, 0.1)["loss"].item(), abs=1e-6)


@pytest.fixture
def squares(tmp_path: Path) -> tuple[list[Sample], Any]:
    """Images of 32 × 40 pixels with an orange rectangle each, and masks of these."""
    samples, masks = [], []
    for i in range(6):
        mask = np.zeros((32, 40), dtype=bool)
        mask[4 : 16 + i, 6 + i : 30] = True
        pixels = np.full((32, 40, 3), 40, dtype=np.uint8)
        pixels[mask] = (220, 120, 20 * i)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        samples.append(Sample(f"{i}.png", tmp_path / f"{i}.png", i))
        masks.append(encode_mask(mask))
    return samples, objects_of_masks(samples, masks, 0)


def test_crops_are_the_tight_boxes(squares: tuple[list[Sample], Any]) -> None:
    crops = cut(*squares, 16)
    assert crops.shape == (6, 4, 16, 16)
    assert (crops[:, 3] == 255).all()  # a rectangle fills its box
    assert crops[:, 0].float().mean().item() == pytest.approx(220, abs=1) and crops[3, 2, 5, 5] == 60
    images = CropSet(*squares, 16, "cpu")
    assert len(images) == 6 and images.identity.startswith("6 crops of 16 px (")
    assert torch.equal(next(images.batches([(4, 1)])), crops[[4, 1]])
    assert CropSet(squares[0], squares[1][list(range(5))], 16, "cpu").identity != images.identity


def plain(**changes: Any) -> Contrast:
    still = {"view": 16, "crop": 16, "turn": 0.0, "zoom": 1.0, "hue": 0.0, "strength": 0.0, "batch": 4, "workers": 0}
    return Contrast(**(still | changes))


def test_background_is_painted_in_the_mean_colour() -> None:
    crops = torch.full((4, 4, 16, 16), 200, dtype=torch.uint8)
    crops[:, 3] = 0
    crops[:, 3, 4:12, 4:12] = 255
    view = make_view(crops, plain(hue=0.5, strength=1.0), torch.Generator().manual_seed(0))
    assert view.shape == (4, 3, 16, 16)
    assert (view[:, :, 0, 0] == 0).all() and (view != 0).any()  # 0 is the mean, normalised


def test_views_are_drawn_from_the_generator_alone() -> None:
    crops = torch.randint(256, (5, 4, 16, 16), dtype=torch.uint8)
    views = [make_view(crops, plain(turn=0.6), torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(views[0], views[1]) and not torch.equal(views[0], views[2])


def test_windows_turn_zoom_and_mirror() -> None:
    found = windows(2000, plain(turn=0.5, zoom=0.6), torch.Generator().manual_seed(0))
    linear = found[:, :, :2]
    area = linear[:, 0, 0] * linear[:, 1, 1] - linear[:, 0, 1] * linear[:, 1, 0]
    assert 0.36 <= area.abs().min() < 0.37 and 1.4 < area.abs().max() <= 1.44 + 1e-6
    assert (area < 0).float().mean().item() == pytest.approx(0.5, abs=0.05)
    turns = torch.atan2(linear[:, 1, 0] * area.sign(), linear[:, 0, 0] * area.sign()).abs()
    assert 0.45 < turns.max() <= 0.5 + 1e-6


def test_a_colour_is_no_help() -> None:
    """Two hues of one crop give the same views but for the hue, which is drawn anew."""
    crops = torch.zeros(1, 4, 16, 16, dtype=torch.uint8)
    crops[:, 3], crops[:, 0] = 255, 200
    generator = torch.Generator().manual_seed(0)
    mean, std = (torch.tensor(values)[None, :, None, None] for values in (MEAN, STD))
    seen = torch.cat([make_view(crops, plain(hue=0.5), generator) * std + mean for _ in range(20)])
    strongest = seen[:, :, 8, 8].argmax(1)
    assert set(strongest.tolist()) == {0, 1, 2}


def test_only_residual_networks() -> None:
    assert make_trunk("resnet10t", {"channels": [4, 8, 8, 8]})(torch.rand(1, 3, 64, 64)).shape == (1, 8, 2, 2)
    for name in ("vit_tiny_patch16_224", "resnet1"):
        with pytest.raises(ParameterError, match=f"architecture = '{name}': give timm's name of a ResNet"):
            make_trunk(name, {})


def test_a_run_goes_on_and_its_network_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`foundling train` on scenes, in two parts and in one."""
    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path / "data"))
    file = tmp_path / "contrast.yaml"
    file.write_text(
        "objective: contrast\nimages: 8\nscene_side: 96\nsources: {centre_box: {}}\nsteps: 3\nwarmup: 1\nbatch: 4\n"
        "crop: 32\nview: 32\noptions: {channels: [4, 4, 8, 8]}\nhidden: 8\nprojection: 4\nworkers: 0\nmin_area: 0\n"
    )
    whole, parts = (["train", str(file), "--cpu", "--out", str(tmp_path / name)] for name in ("whole", "parts"))
    assert cli.main(whole) == 0 and cli.main([*parts, "--minutes", "1e-9"]) == 0 and cli.main(parts) == 0
    assert (tmp_path / "parts.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    network = timm.create_model("resnet10t", num_classes=0, global_pool="", channels=[4, 4, 8, 8])
    network.load_state_dict({name: value.float() for name, value in load_file(tmp_path / "whole.safetensors").items()})


def test_it_learns_to_tell_objects_apart(squares: tuple[list[Sample], Any]) -> None:
    torch.manual_seed(0)
    told = plain(options={"channels": [4, 4, 8, 8]}, hidden=16, projection=8)
    task = contrast.ContrastTask(told)
    crops = torch.randint(256, (8, 4, 1, 1), dtype=torch.uint8).repeat(1, 1, 16, 16)  # of one colour each
    crops[:, 3] = 255
    optimiser, generator = torch.optim.Adam(task.parameters(), 1e-2), torch.Generator().manual_seed(0)
    losses = []
    for _ in range(25):
        loss = task(task.make_views(crops, generator))["loss"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert min(losses[-3:]) < 0.8 * losses[0]


def test_what_cannot_be_trained_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path / "data"))
    few = ContrastOnSources(images=3, scene_side=96, sources={"centre_box": {}}, batch=4, steps=50, min_area=0)
    with pytest.raises(ParameterError, match=r"batch = 4 is more than there are objects \(3\)"):
        contrast.train_contrast(few, tmp_path / "run", progress=False, cpu=True)
    with pytest.raises(ValueError, match="accumulate = 2 must be 1: this loss compares the objects of a batch"):
        Contrast(accumulate=2)
    with pytest.raises(ValueError, match="taken = 'tokencut' is no label of sources: choose one of lost"):
        ContrastOnSources(sources={"lost": {}}, taken="tokencut")
    assert not [name for name, field in ContrastOnSources.model_fields.items() if not field.description]
