"""The segmenter: published names, a forward pass from the parameters alone, files as they are published, boxes."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from scipy import ndimage
from torch import Tensor

from foundling.backbones import Backbone, load_backbone
from foundling.errors import ParameterError, WeightsError
from foundling.saliency.masks import SaliencyMasks
from foundling.saliency.segmenter import (
    WIDTHS,
    Segmenter,
    SegmenterHead,
    load_segmenter,
    make_segmenter,
    segmenter_arguments,
    segmenter_tensors,
)
from foundling.saliency.segments import LABEL, discover_segments, segment_box, soft_mask
from foundling.saliency.sources import masks_of
from foundling.training import checkpoints
from foundling.types import Sample

SMALL = (6, 4, 3, 2)  # widths for patches of 8 pixels


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("scenes_odin", device="cpu")


@pytest.fixture
def segmenter(backbone: Backbone) -> Segmenter:
    return moved(make_segmenter(backbone, SMALL, seed=3))


def moved(segmenter: Segmenter) -> Segmenter:
    """In evaluation mode, with statistics and a norm that are not those of the start."""
    torch.manual_seed(1)
    for module in segmenter.head.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    torch.nn.init.uniform_(segmenter.norm.weight, 0.5, 1.5)
    return segmenter.eval().requires_grad_(False)


# The network


def test_names_and_shapes_are_the_published_ones() -> None:
    with torch.device("meta"):
        state = SegmenterHead(384, WIDTHS).state_dict()
    told = {name: list(value.shape) for name, value in state.items() if value.ndim > 1}
    assert told == {
        "model.0.1.weight": [192, 384, 3, 3],  # the doubling comes first and has no parameters
        "model.1.1.weight": [128, 192, 3, 3],
        "model.2.1.weight": [128, 128, 3, 3],
        "model.3.0.weight": [128, 128, 3, 3],  # not doubled
        "model.4.weight": [1, 128, 1, 1],
    }
    norms = {name for name in state if "running_var" in name}
    assert norms == {f"model.{i}.running_var" for i in ("0.2", "1.2", "2.2", "3.1")}
    deeper = SegmenterHead(5, (4, 3), depth=2).state_dict()
    assert [name for name, value in deeper.items() if value.ndim == 4] == [
        "model.0.1.weight", "model.0.4.weight", "model.1.0.weight", "model.1.3.weight", "model.2.weight"
    ]  # fmt: skip


def plain_logits(segmenter: Segmenter, images: Tensor) -> Tensor:
    """The same from the parameters alone: timm's blocks but the last, layer norm, then the head layer by layer."""
    vit: Any = segmenter.vit
    x = vit.patch_embed(images)
    x = torch.cat([vit.cls_token.expand(len(x), -1, -1), x], 1) + vit.pos_embed
    for block in vit.blocks[:-1]:
        x = block(x)
    x = x[:, 1:]
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, correction=0) + 1e-6).sqrt()
    x = x * segmenter.norm.weight + segmenter.norm.bias
    side = images.shape[-1] // 8
    x = x.reshape(len(x), side, side, -1).permute(0, 3, 1, 2)
    p = segmenter.head.state_dict()
    for i in range(len(SMALL)):
        j = int(i < len(SMALL) - 1)
        if j:
            x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        x = F.conv2d(x, p[f"model.{i}.{j}.weight"], p[f"model.{i}.{j}.bias"], padding=1)
        mean, var, weight, bias = (
            p[f"model.{i}.{j + 1}.{name}"][:, None, None] for name in ("running_mean", "running_var", "weight", "bias")
        )
        x = (x - mean) / (var + 1e-5).sqrt() * weight + bias
        x = torch.where(x > 0, x, 0.01 * x)
    last = len(SMALL)
    return F.conv2d(x, p[f"model.{last}.weight"], p[f"model.{last}.bias"])


def test_logits_are_those_of_a_plain_pass(segmenter: Segmenter) -> None:
    images = torch.randn(2, 3, 96, 96)
    expected = plain_logits(segmenter, images)
    assert expected.std() > 1e-3
    torch.testing.assert_close(segmenter(images), expected.transpose(0, 1), rtol=1e-4, atol=1e-5)
    assert segmenter(images).shape == (1, 2, 96, 96)
    torch.testing.assert_close(segmenter(images[1:]), expected[1:].transpose(0, 1), rtol=1e-4, atol=1e-5)


def test_only_norm_and_head_are_trained(backbone: Backbone) -> None:
    segmenter = make_segmenter(backbone, SMALL).train()
    assert segmenter.head.training and not segmenter.vit.training
    segmenter(torch.randn(2, 3, 32, 32)).sum().backward()
    moving = {name for name, p in segmenter.named_parameters() if p.grad is not None}
    assert moving == {name for name, _ in segmenter.named_parameters() if not name.startswith("vit.")}
    a, b, c = (segmenter.fresh_head(seed).model[0][1].weight for seed in (0, 0, 1))
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_what_does_not_go_together_is_refused(backbone: Backbone, segmenter: Segmenter) -> None:
    with pytest.raises(
        ParameterError, match=r"2 blocks serves patches of 2 pixels, .* scenes_odin have 8: give 4 width"
    ):
        make_segmenter(backbone, (4, 4))
    with pytest.raises(ParameterError, match="block = 4: scenes_odin has blocks 0 to 3"):
        make_segmenter(backbone, SMALL, block=4)
    with pytest.raises(ParameterError, match=r"widths = \[\], depth = 1: give a width or more"):
        make_segmenter(backbone, ())
    with pytest.raises(ParameterError, match="dino_resnet50 is a CNN"):
        make_segmenter(load_backbone("dino_resnet50", "random", "cpu"), SMALL)
    with pytest.raises(ParameterError, match="96×30 pixels: this segmenter takes sides that are multiples of 8"):
        segmenter(torch.zeros(1, 3, 30, 96))


# Files


def as_published(
    segmenter: Segmenter, prefix: str = "segmenter.", dtype: torch.dtype = torch.float32
) -> dict[str, Any]:
    """MOVE's training checkpoint: the whole composer, its arguments, and optimisers."""
    state = {f"{prefix}{name}": t.to(dtype) if t.is_floating_point() else t
             for name, t in segmenter_tensors(segmenter).items()}  # fmt: skip
    model = {"mae_model.cls_token": torch.zeros(1, 1, 8), **state}
    args = argparse.Namespace(feature_extractor="dino_vits8", extractor_block_layer=segmenter.block, lr=2e-4)
    return {
        "args": args,
        "epoch": 80,
        "model": model,
        "optimizer": {"state": {}},
        "discriminator": {"a": torch.ones(1)},
    }


def test_files_as_they_are_published(segmenter: Segmenter, backbone: Backbone, tmp_path: Path) -> None:
    images = torch.randn(1, 3, 64, 64)
    expected = segmenter(images)
    torch.save(as_published(segmenter), tmp_path / "move.pth")
    adapted = {"feature_extractor.model.cls_token": torch.zeros(1, 1, 192), **segmenter_tensors(segmenter)}
    torch.save(adapted, tmp_path / "adapted.pt")  # as box refinement reads it
    other = moved(make_segmenter(backbone, SMALL, seed=9))
    refined = segmenter_tensors(other) | {
        f"random_segmenter.{name}": value for name, value in segmenter.head.state_dict().items()
    }
    refined |= {
        name: value for name, value in segmenter_tensors(segmenter).items() if "norm" in name and "head" not in name
    }
    torch.save({f"module.{name}": value for name, value in refined.items()}, tmp_path / "refined.pt")
    for name in ("move.pth", "adapted.pt", "refined.pt"):
        loaded = load_segmenter(tmp_path / name, backbone=backbone)
        torch.testing.assert_close(loaded(images), expected)
        assert loaded.weights == str(tmp_path / name) and len(loaded.checksum) == 12 and loaded.block == -2
        assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    assert loaded.head.widths == SMALL and loaded.head.depth == 1


def test_the_arguments_of_a_checkpoint_say_which_block(backbone: Backbone, tmp_path: Path) -> None:
    deep = make_segmenter(backbone, SMALL, block=-1, depth=2)
    torch.save(as_published(deep), tmp_path / "move.pth")
    loaded = load_segmenter(tmp_path / "move.pth", backbone=backbone)
    assert (loaded.block, loaded.head.depth, loaded.head.widths) == (-1, 2, SMALL)


def test_own_files_name_the_network_below(segmenter: Segmenter, backbone: Backbone, tmp_path: Path) -> None:
    file = tmp_path / "own.safetensors"
    checkpoints.export(file, segmenter_tensors(segmenter), {"arguments": segmenter_arguments(segmenter)})
    loaded = load_segmenter(file)
    assert loaded.backbone == "scenes_odin" and loaded.backbone_checksum == backbone.checksum
    images = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(loaded(images), segmenter(images), rtol=0.01, atol=0.01)  # half precision
    with pytest.raises(
        WeightsError, match=f"was trained on scenes_odin with weights {backbone.checksum}, .* scenes_mae"
    ):
        load_segmenter(file, backbone=load_backbone("scenes_mae", device="cpu"))


def test_files_that_are_none_are_refused(segmenter: Segmenter, backbone: Backbone, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="there is no such file; give the path of a segmenter, or one of 'move'"):
        load_segmenter(tmp_path / "none.pth")
    monkey = tmp_path / "data"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FOUNDLING_DATA", str(monkey))
        with pytest.raises(WeightsError, match=r"move: the weights are not on this machine; .*move_dino_vits8\.pth"):
            load_segmenter("move")
    torch.save({"model": {"fc.weight": torch.ones(2, 2)}}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match=r"a\.pth: no segmenter, .*it has fc\.weight"):
        load_segmenter(tmp_path / "a.pth", backbone=backbone)
    torch.save({"segmenter_head.model.weight": torch.ones(2, 2)}, tmp_path / "b.pth")
    with pytest.raises(WeightsError, match="is no chain of convolutional blocks"):
        load_segmenter(tmp_path / "b.pth", backbone=backbone)
    state = segmenter_tensors(segmenter)
    torch.save({name: value for name, value in state.items() if "norm" not in name}, tmp_path / "c.pth")
    with pytest.raises(WeightsError, match=r"does not fit a segmenter on scenes_odin: .*Missing key"):
        load_segmenter(tmp_path / "c.pth", backbone=backbone)
    state["segmenter_head.model.0.1.weight"] = torch.ones(6, 384, 3, 3)
    save_file(state, tmp_path / "d.safetensors", {"foundling": json.dumps({"arguments": {"backbone": "scenes_odin"}})})
    with pytest.raises(WeightsError, match=r"does not fit a segmenter on scenes_odin: .*size mismatch"):
        load_segmenter(tmp_path / "d.safetensors")
    (tmp_path / "e.pth").write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="not a"):
        load_segmenter(tmp_path / "e.pth", backbone=backbone)


# Boxes


def soft(*rectangles: tuple[int, int, int, int], size: tuple[int, int] = (40, 60)) -> np.ndarray:
    mask = np.full(size, 0.2)
    for x0, y0, x1, y1 in rectangles:
        mask[y0:y1, x0:x1] = 0.9
    return mask


def test_the_component_with_the_largest_box() -> None:
    box, mask, found = segment_box(soft((2, 3, 10, 13), (20, 5, 30, 30)))
    assert found and box.tolist() == [20, 5, 30, 30] and mask.sum() == 250
    ring = soft((2, 2, 30, 30))
    ring[3:29, 3:29] = 0.1  # few pixels, but the largest box
    ring[5:20, 40:58] = 0.9
    box, mask, _ = segment_box(ring)
    assert box.tolist() == [2, 2, 30, 30] and mask.sum() == 28 * 4 - 4
    corners = soft((5, 5, 10, 10), (10, 10, 20, 20), (40, 5, 52, 17))  # the first two touch in a corner: one component
    assert segment_box(corners)[0].tolist() == [5, 5, 20, 20]
    assert segment_box(soft((0, 5, 10, 10), (20, 5, 30, 10)))[0].tolist() == [20, 5, 30, 10]  # the last of equals


def test_nothing_found_is_the_whole_image() -> None:
    for nothing in (soft(), soft((3, 3, 5, 5)), np.full((40, 60), 0.5)):  # 2x2 is (0.05 x 40)²: too small
        box, mask, found = segment_box(nothing)
        assert not found and box.tolist() == [0, 0, 60, 40] and mask.all()
    assert segment_box(soft((3, 3, 6, 5)))[0].tolist() == [3, 3, 6, 5]
    assert segment_box(soft((0, 0, 60, 40)))[0].tolist() == [0, 0, 60, 40] and segment_box(soft((0, 0, 60, 40)))[2]


def slow_box(mask: np.ndarray) -> list[int]:
    labels, _ = ndimage.label(mask > 0.5, np.ones((3, 3)))
    best, largest = [0, 0, mask.shape[1], mask.shape[0]], (0.05 * mask.shape[0]) ** 2
    for place in ndimage.find_objects(labels):
        rows, columns = place
        area = (rows.stop - rows.start) * (columns.stop - columns.start)
        if area > largest:
            best, largest = [columns.start, rows.start, columns.stop, rows.stop], area
    return best


def test_boxes_are_those_of_a_search_over_all_components() -> None:
    rng = np.random.default_rng(0)
    for size in (3, 5, 9):
        mask = ndimage.gaussian_filter(rng.normal(size=(50, 70)), size / 3)
        mask = 0.5 + mask - np.quantile(mask, 0.8)
        box, pixels, _ = segment_box(mask)
        assert box.tolist() == slow_box(mask)
        flipped = segment_box(mask[:, ::-1])[0]
        assert [70 - flipped[2], flipped[1], 70 - flipped[0], flipped[3]] == box.tolist()
        rows, columns = np.nonzero(pixels)
        assert [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] == box.tolist()


# Many images


@pytest.fixture
def images(tmp_path: Path) -> list[Sample]:
    rng = np.random.default_rng(2)
    samples = []
    for i, (height, width) in enumerate(((40, 48), (37, 51), (5, 3))):
        pixels = rng.integers(0, 255, (height, width, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(path := tmp_path / f"{i}.png")
        samples.append(Sample(f"{i}.png", path, i))
    return samples


def test_masks_have_the_size_of_the_image(segmenter: Segmenter, images: list[Sample]) -> None:
    pixels = torch.from_numpy(np.array(Image.open(images[1].path)))
    mask = soft_mask(segmenter, pixels)
    assert mask.shape == (37, 51) and 0 < mask.min() < mask.max() < 1
    mirrored = np.pad(pixels.numpy(), ((0, 3), (0, 5), (0, 0)), mode="reflect")
    values = (torch.from_numpy(mirrored).permute(2, 0, 1)[None] / 255 - torch.tensor(segmenter.mean)[:, None, None]) / (
        torch.tensor(segmenter.std)[:, None, None]
    )
    expected = segmenter(values)[0, 0, :37, :51].sigmoid()
    np.testing.assert_allclose(mask, expected.numpy(), atol=1e-5)


def test_found_in_images(segmenter: Segmenter, images: list[Sample], tmp_path: Path) -> None:
    missing = Sample("none.png", tmp_path / "none.png", 9)
    samples, out = [images[0], missing, *images[1:]], tmp_path / "kept"
    found = discover_segments(segmenter, samples, out=out, chunk=2, progress=False)
    assert found.names == ("0.png", "none.png", "1.png", "2.png") and found.sizes.tolist()[1] == [0, 0]
    assert np.isnan(found.boxes[LABEL][1]).all() and [f.index for f in found.failures] == [1]
    for i in (0, 2, 3):
        pixels = torch.from_numpy(np.array(Image.open(samples[i].path)))
        box, mask, seen = segment_box(soft_mask(segmenter, pixels))
        assert found.boxes[LABEL][i].tolist() == box.tolist()
        saliency: SaliencyMasks = masks_of(found, LABEL)
        assert (saliency.mask(i) == mask).all()
        record = next(record for record in found.records if record["index"] == i)
        assert record["methods"][LABEL]["flags"] == ([] if seen else ["whole_image"])
    kept = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    again = discover_segments(segmenter, samples[2:], out=None, chunk=2, progress=False)
    np.testing.assert_array_equal(again.boxes[LABEL], found.boxes[LABEL][2:])
    discover_segments(segmenter, samples, out=out, chunk=2, progress=False)
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()}["boxes_000002.json"] == kept[
        "boxes_000002.json"
    ]
    with pytest.raises(ParameterError, match="chunk=0: must be at least 1"):
        discover_segments(segmenter, samples, chunk=0)
