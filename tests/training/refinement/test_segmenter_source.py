"""A segmenter as what is refined: what moves, what h sees, which boxes teach, and files that come back."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from foundling.backbones import Backbone, load_backbone
from foundling.errors import WeightsError
from foundling.saliency.segmenter import (
    Segmenter,
    load_segmenter,
    make_segmenter,
    segmenter_arguments,
    segmenter_tensors,
)
from foundling.saliency.segments import segment_box
from foundling.training import checkpoints
from foundling.training.refinement.runs import boxes_of
from foundling.training.refinement.segmenter import SegmenterSource, found_by_segmenter, segmenter_of, widths_for
from foundling.training.refinement.settings import Refinement
from foundling.types import Failure, Sample

SMALL = (6, 4, 3, 2)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("scenes_odin", device="cpu")


@pytest.fixture
def file(backbone: Backbone, tmp_path: Path) -> Path:
    segmenter = make_segmenter(backbone, SMALL, seed=3)
    path = tmp_path / "segmenter.safetensors"
    return write(path, segmenter)


def write(path: Path, segmenter: Segmenter) -> Path:
    checkpoints.export(path, segmenter_tensors(segmenter), {"arguments": segmenter_arguments(segmenter)})
    return path


def told(weights: Path | str, **changes: Any) -> Refinement:
    return Refinement(method="segmenter", weights=str(weights), side=64, **changes)


def test_only_the_head_moves_and_gradients_reach_it(file: Path) -> None:
    source = SegmenterSource(told(file))
    assert source.multiple == 8 and source.mean == source.segmenter.mean
    look = source.look(torch.randn(2, 3, 64, 64))
    assert look.map.shape == (2, 1, 64, 64) and look.output is look.map and not look.inner.requires_grad
    assert 0 < look.inner.min() < look.inner.max() < 1
    assert source.look(torch.randn(1, 3, 64, 64), output=False).output is None
    look.map.sum().backward()
    moving = {name for name, p in source.named_parameters() if p.grad is not None}
    assert moving == {f"segmenter.head.{name}" for name, _ in source.trained().named_parameters()}


def test_boxes_are_those_of_the_masks(file: Path) -> None:
    source = SegmenterSource(told(file)).eval()
    look = source.look(torch.randn(3, 3, 64, 64))
    mask = look.map.detach()
    look = look.__class__(mask, None, (mask - mask.mean()) * 50 + 0.5)  # on both sides of the threshold
    found = source.discover(look)
    for boxes, mask in zip(found, look.inner[:, 0].numpy(), strict=True):
        assert boxes.dtype == torch.float32 and boxes.tolist() == [segment_box(mask)[0].tolist()]
    nothing = look.__class__(look.map, None, torch.zeros(1, 1, 64, 64))
    assert source.discover(nothing)[0].tolist() == [[0, 0, 64, 64]]  # all of it, as in the authors' code


def test_a_fresh_head_is_drawn_from_the_seed(file: Path) -> None:
    fresh = {"fresh": True}
    plain, one, same, other = (
        SegmenterSource(told(file, **changes)) for changes in ({}, fresh, fresh, {**fresh, "seed": 5})
    )
    before = one.segmenter.head.model[0][1].weight.detach().clone()
    for source in (plain, one, same, other):
        source.begin()
    weights = [source.segmenter.head.model[0][1].weight for source in (plain, one, same, other)]
    assert torch.equal(weights[0], before) and torch.equal(weights[1], weights[2])
    assert not torch.equal(weights[1], before) and not torch.equal(weights[1], weights[3])
    assert all(weight.requires_grad for weight in weights)


def test_a_refined_head_comes_back_from_its_file(file: Path, tmp_path: Path) -> None:
    source = SegmenterSource(told(file, fresh=True))
    source.begin()
    path = tmp_path / "refined.safetensors"
    checkpoints.export(path, source.tensors(), source.about(), half=False)
    again = load_segmenter(path)
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(again(images), source.segmenter.eval()(images))
    assert source.about()["architecture"] == "segmenter"


def test_boxes_of_images_before_and_after(file: Path, backbone: Backbone, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    samples = []
    for i in range(2):
        path = tmp_path / f"{i}.png"
        Image.fromarray(rng.integers(0, 255, (40, 50, 3)).astype(np.uint8)).save(path)
        samples.append(Sample(path.name, path, i))
    samples.append(Sample("none.png", tmp_path / "none.png", 2))
    refined = write(tmp_path / "refined.safetensors", make_segmenter(backbone, SMALL, seed=8))
    failures: list[Failure] = []
    before = boxes_of(told(file), file, samples, device="cpu", failures=failures)
    after = boxes_of(told(file), refined, samples, device="cpu")
    assert before.shape == after.shape == (3, 4) and np.isnan(before[2]).all()
    assert [failure.name for failure in failures] == ["none.png"]
    assert np.isfinite(after[:2]).all()
    found = found_by_segmenter(told(file), file, samples, device="cpu")
    np.testing.assert_array_equal(found.boxes["segmenter"], before)


def test_where_it_begins(backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    untrained = segmenter_of(told("random"), "cpu")
    assert untrained.head.widths == (192, 128, 128, 128) and not untrained.training
    assert widths_for(load_backbone("dino_vits16", "random", "cpu")) == [192, 128, 128, 128, 128]
    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path))
    with pytest.raises(WeightsError, match="move: the weights are not on this machine"):
        segmenter_of(told("pretrained"), "cpu")
