"""A saliency network on found masks: its loss, its crops, that it learns, goes on after a stop, and what it refuses."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from foundling import cli
from foundling.backbones import load_backbone
from foundling.discovery.export import encode_mask
from foundling.errors import ImageError, ParameterError, TrainingError, WeightsError
from foundling.saliency import SaliencyMasks, load_saliency_network, predict_masks, saliency_masks
from foundling.saliency.segmenter import load_segmenter
from foundling.saliency.segments import discover_segments
from foundling.saliency.sources import masks_of
from foundling.training import saliency as training
from foundling.training.reading import open_images
from foundling.training.saliency import MaskedImages, find_masks, train_saliency, views
from foundling.training.saliency_loss import saliency_loss, soft_iou, structural_similarity
from foundling.training.saliency_settings import Saliency, SaliencyOnSources, Segmentation, SegmentationOnSources
from foundling.training.settings import settings_from
from foundling.types import Failure, Sample

# The loss


def example() -> tuple[Tensor, Tensor]:
    """A ramp and a rectangle, as [map, image, h, w]."""
    mask = torch.zeros(1, 1, 32, 24)
    mask[..., 10:25, 5:15] = 1
    return torch.linspace(0.05, 0.95, 32 * 24).view(1, 1, 32, 24), mask


def test_the_loss_is_that_of_the_published_code() -> None:
    """Its three numbers for this example, computed once."""
    maps, mask = example()
    parts = saliency_loss(torch.logit(maps), mask[0])
    assert parts.bce.item() == pytest.approx(0.8552049, abs=1e-5)
    assert parts.ssim.item() == pytest.approx(1 - 0.0098099, abs=1e-5)
    assert parts.iou.item() == pytest.approx(0.8212328, abs=1e-5)


def test_similarity_by_its_definition() -> None:
    """Every pixel's patch with Gaussian weights, written out (Wang et al., 2004, Eq. 13)."""
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0, 1, (2, 7, 9))
    weights = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    weights = np.outer(weights, weights) / weights.sum() ** 2
    expected = np.empty((7, 9))
    for y, x in np.ndindex(7, 9):
        patch_a, patch_b = (np.pad(m, 5)[y : y + 11, x : x + 11] for m in (a, b))
        mean_a, mean_b = (weights * patch_a).sum(), (weights * patch_b).sum()
        variance_a, variance_b = (weights * patch_a**2).sum() - mean_a**2, (weights * patch_b**2).sum() - mean_b**2
        covariance = (weights * patch_a * patch_b).sum() - mean_a * mean_b
        above = (2 * mean_a * mean_b + 1e-4) * (2 * covariance + 9e-4)
        expected[y, x] = above / ((mean_a**2 + mean_b**2 + 1e-4) * (variance_a + variance_b + 9e-4))
    found = structural_similarity(torch.from_numpy(a)[None, None], torch.from_numpy(b)[None, None])
    np.testing.assert_allclose(found[0, 0].numpy(), expected, rtol=1e-9)


def test_a_perfect_map_costs_nothing_and_each_map_counts_alone() -> None:
    _, mask = example()
    sure = torch.where(mask > 0, 30.0, -30.0)
    parts = saliency_loss(torch.cat([sure, -sure, torch.zeros_like(sure)]), mask[0])
    assert all(part[0].item() == pytest.approx(0.0, abs=1e-5) for part in parts)
    assert parts.iou[1].item() == pytest.approx(1.0) and parts.bce[1].item() == pytest.approx(30.0)
    share = mask.mean().item()
    assert parts.iou[2].item() == pytest.approx(1 - 0.5 * share / (0.5 + share - 0.5 * share))
    assert parts.bce[2].item() == pytest.approx(np.log(2))


def test_an_empty_mask_has_a_finite_loss() -> None:
    logits = torch.full((2, 3, 32, 32), -200.0, requires_grad=True)
    parts = saliency_loss(logits, torch.zeros(3, 32, 32))
    torch.stack(parts).sum().backward()
    assert torch.isfinite(torch.stack(parts)).all() and logits.grad is not None and torch.isfinite(logits.grad).all()
    assert soft_iou(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)).item() == 0


# What a step sees


def test_crops_of_images_and_masks_go_together() -> None:
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.integers(0, 256, (40, 12, 12, 3), dtype=np.uint8))
    masks = (pixels[..., 0] > 127).to(torch.uint8)
    images, targets = views(pixels, masks, 8, torch.Generator().manual_seed(0))
    assert images.shape == (40, 3, 8, 8) and targets.shape == (40, 8, 8)
    assert torch.equal(images[:, 0] > 0.5, targets > 0)
    found = set()
    for view, image in zip(images, pixels, strict=True):
        plain = image.permute(2, 0, 1) / 255
        fits = [
            (top, left, mirrored)
            for top in range(5)
            for left in range(5)
            for mirrored in (False, True)
            if torch.allclose(view.flip(-1) if mirrored else view, plain[:, top : top + 8, left : left + 8])
        ]
        assert len(fits) == 1
        found |= set(fits)
    assert {top for top, _, _ in found} == set(range(5)) and {mirrored for *_, mirrored in found} == {False, True}


@pytest.fixture
def scenes(tmp_path: Path) -> tuple[list[Sample], SaliencyMasks]:
    """Images of a red disc on blue noise, and masks of them; of the third there is none, the fourth is no image."""
    rng = np.random.default_rng(0)
    samples, masks, sizes = [], [], []
    for i in range(12):
        height, width = (40, 48) if i % 2 else (48, 40)
        y, x = rng.uniform(14, 26, 2)
        mask = np.hypot(*(np.mgrid[:height, :width] - np.array([y, x])[:, None, None])) < 9
        pixels = rng.integers(0, 120, (height, width, 3), dtype=np.uint8)
        pixels[..., 0][mask], pixels[..., 2][~mask] = 250, 250
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        samples.append(Sample(f"{i}.png", tmp_path / f"{i}.png", i))
        masks.append(None if i in (2, 3) else encode_mask(mask))
        sizes.append([0, 0] if i == 3 else [height, width])
    samples[3].path.write_bytes(b"no image")
    failures = (Failure("3.png", 3, "3.png: no image"),)
    return samples, SaliencyMasks("disc", tuple(s.name for s in samples), np.array(sizes), tuple(masks), failures)


def settings(**changes: Any) -> Saliency:
    return Saliency(
        **({"width": 2, "side": 32, "crop": 32, "steps": 6, "warmup": 2, "batch": 4, "workers": 0} | changes)
    )


def test_images_without_a_mask_are_left_out(scenes: tuple[list[Sample], SaliencyMasks]) -> None:
    samples, found = scenes
    images = MaskedImages(samples, found, 32)
    assert len(images) == 10
    pixels, mask = images[2]  # the fifth image
    assert pixels.shape == (32, 32, 3) and mask.shape == (32, 32)
    red = pixels[..., 0] > 185
    assert (red != mask.bool()).float().mean() < 0.05
    assert images.identity.startswith("10 images with masks of disc (")
    assert images.identity != MaskedImages(samples[:8], part(found, 8), 32).identity


def part(found: SaliencyMasks, count: int) -> SaliencyMasks:
    return SaliencyMasks(found.source, found.names[:count], found.sizes[:count], found.masks[:count])


# Runs


def test_it_learns_what_its_masks_show(scenes: tuple[list[Sample], SaliencyMasks], tmp_path: Path) -> None:
    samples, found = scenes
    outcome = train_saliency(
        samples, found, settings(steps=24, width=4, learning_rate=1e-2), tmp_path / "run", progress=False
    )
    assert outcome.finished and outcome.steps == 24
    assert outcome.history[-1]["loss"] < 0.85 * outcome.history[0]["loss"]
    network = load_saliency_network(outcome.file)
    assert (network.side, network.network.width) == (32, 4)
    seen = predict_masks(network, samples, progress=False)
    overlaps = [
        (seen.mask(i) & found.mask(i)).sum() / (seen.mask(i) | found.mask(i)).sum()
        for i, mask in enumerate(found.masks)
        if mask is not None
    ]
    assert np.mean(overlaps) > 0.5
    with (tmp_path / "run.history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert (
        list(rows[0])[:6] == ["step", "loss", "bce", "ssim", "iou", "gradient_norm"]
        and "feature_variance" not in rows[0]
    )
    assert [int(row["step"]) for row in rows] == [10, 20, 24]


def test_a_small_network_learns_it_too(scenes: tuple[list[Sample], SaliencyMasks], tmp_path: Path) -> None:
    samples, found = scenes
    told = settings(network="unet", loss="bce", colour=1.0, steps=30, width=4, side=48, crop=32, learning_rate=1e-2)
    outcome = train_saliency(samples, found, told, tmp_path / "run", progress=False)
    assert outcome.history[-1]["loss"] < 0.85 * outcome.history[0]["loss"]
    network = load_saliency_network(outcome.file)
    assert (network.side, network.network.width) == (48, 4)
    seen = predict_masks(network, samples, progress=False)
    shared = sum((seen.mask(i) & found.mask(i)).sum() for i in range(12))
    assert shared / sum((seen.mask(i) | found.mask(i)).sum() for i in range(12)) > 0.5


def test_of_sources_that_agree_one_may_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own masks, where the others' are much the same; nothing elsewhere."""
    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path / "data"))
    sources: dict[str, dict[str, Any]] = {"centre_box": {}, "lost": {"k": 1, "facet": "keys"}}
    told = {"images": 12, "batch": 2, "scene_side": 96, "sources": sources, "least": 0.3}
    samples = open_images(SaliencyOnSources(**told))
    found = {
        taken: find_masks(
            SaliencyOnSources(**told, taken=taken), samples, tmp_path / "masks", torch.device("cpu"), False
        )
        for taken in ("", "lost", "centre_box")
    }
    own = saliency_masks(sources, samples, load_backbone("scenes_odin", device="cpu"), progress=False)
    there = [mask is not None for mask in found[""].masks]
    assert 0 < sum(there) < 12
    for taken in ("lost", "centre_box"):
        masks = zip(own[taken].masks, there, strict=True)
        assert found[taken].masks == tuple(mask if agreed else None for mask, agreed in masks)
        assert found[taken].source.startswith(f"{taken}, where ")


def test_a_head_learns_the_same_on_a_network_that_stays(
    scenes: tuple[list[Sample], SaliencyMasks], tmp_path: Path
) -> None:
    samples, found = scenes
    small = {"side": 32, "crop": 32, "steps": 24, "warmup": 2, "batch": 4, "workers": 0, "learning_rate": 3e-2}
    told = Segmentation(widths=[32, 16, 8, 8], **small)
    outcome = train_saliency(samples, found, told, tmp_path / "run", progress=False)
    assert outcome.finished and outcome.history[-1]["loss"] < 0.85 * outcome.history[0]["loss"]
    segmenter = load_segmenter(outcome.file)
    assert segmenter.backbone == "scenes_odin" and segmenter.head.widths == (32, 16, 8, 8) and segmenter.block == -2
    names = set(load_file(outcome.file))
    assert "feature_extractor.norm.weight" in names and not [name for name in names if "vit" in name]
    seen = masks_of(discover_segments(segmenter, samples, progress=False), "segmenter")
    overlaps = [
        (seen.mask(i) & found.mask(i)).sum() / (seen.mask(i) | found.mask(i)).sum()
        for i, mask in enumerate(found.masks)
        if mask is not None
    ]
    assert np.mean(overlaps) > 0.5
    parts = [train_saliency(samples, found, told, tmp_path / "parts", minutes=m, progress=False) for m in (1e-9, 9e9)]
    assert not parts[0].finished and parts[1].file.read_bytes() == outcome.file.read_bytes()
    with pytest.raises(ParameterError, match=r"block = 7: scenes_odin has blocks 0 to 3"):
        train_saliency(samples, found, Segmentation(block=7, **small), tmp_path / "other", progress=False)


def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    scenes: tuple[list[Sample], SaliencyMasks], tmp_path: Path
) -> None:
    samples, found = scenes
    whole = train_saliency(samples, found, settings(), tmp_path / "whole", progress=False)
    parts = [
        train_saliency(samples, found, settings(), tmp_path / "parts", minutes=minutes, progress=False)
        for minutes in (1e-9, 1e-9, 9e9, 9e9)
    ]
    assert [(outcome.steps, outcome.finished) for outcome in parts] == [(1, False), (2, False), (6, True), (6, True)]
    assert parts[-1].file.read_bytes() == whole.file.read_bytes()
    other = train_saliency(samples, found, settings(seed=1), tmp_path / "other", progress=False)
    assert other.file.read_bytes() != whole.file.read_bytes()


def test_what_cannot_be_trained_is_refused(scenes: tuple[list[Sample], SaliencyMasks], tmp_path: Path) -> None:
    samples, found = scenes
    with pytest.raises(ParameterError, match=r"batch = 11 is more than there are images with a mask \(10\)"):
        train_saliency(samples, found, settings(batch=11), tmp_path / "run", progress=False)
    with pytest.raises(ParameterError, match="the masks are of 12 other images than the 11 samples"):
        train_saliency(samples[1:], found, settings(), tmp_path / "run", progress=False)
    none = SaliencyMasks("disc", found.names[2:3], found.sizes[2:3], (None,))
    with pytest.raises(ParameterError, match="disc found nothing in 1 images"):
        train_saliency(samples[2:3], none, settings(), tmp_path / "run", progress=False)
    train_saliency(samples, found, settings(steps=3), tmp_path / "run", minutes=1e-9, progress=False)
    with pytest.raises(ParameterError, match=r"width = 2, not 3"):
        train_saliency(samples, found, settings(steps=3, width=3), tmp_path / "run", progress=False)
    with pytest.raises(ParameterError, match="10 images with masks of disc"):
        train_saliency(samples[:8], part(found, 8), settings(steps=3), tmp_path / "run", progress=False)
    (tmp_path / "run.state").write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="damaged"):
        train_saliency(samples, found, settings(steps=3), tmp_path / "run", progress=False)
    samples[0].path.unlink()
    with pytest.raises(ImageError, match=r"0\.png: no such file"):
        train_saliency(samples, found, settings(batch=10), tmp_path / "new", progress=False)


def test_sources_and_images_come_from_the_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`foundling train` on scenes, in two parts: masks are found once, and the network is one that notebooks read."""
    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path / "data"))
    file, out = tmp_path / "saliency.yaml", tmp_path / "runs" / "a"
    file.write_text(
        "objective: saliency\nimages: 12\nscene_side: 96\nwidth: 2\nside: 32\ncrop: 32\nsteps: 2\nwarmup: 1\n"
        "batch: 2\nworkers: 0\nleast: 0.0\n"
    )
    command = ["train", str(file), "--out", str(out), "--cpu"]
    assert cli.main([*command, "--minutes", "1e-9"]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"{out}.safetensors: 1 of 2 steps left, run again to go on\n"
    assert "images with masks of lost and tokencut (" in printed.err and "), of 12 images" in printed.err
    kept = out.with_name("a_masks") / "discovery" / "boxes_000000.json"
    written = kept.stat().st_mtime_ns
    assert cli.main(command) == 0 and kept.stat().st_mtime_ns == written
    assert load_saliency_network(f"{out}.safetensors").side == 32
    names = [path.name for path in sorted(out.parent.iterdir())]
    assert names == ["a.history.csv", "a.safetensors", "a.state", "a_masks"]
    capsys.readouterr()
    assert cli.main([*command, "--set", "sources={lost: {q: 1}}"]) == 2
    assert "method lost has no setting 'q'" in capsys.readouterr().err
    assert cli.main([*command, "--set", "sources={lost: {}}"]) == 2  # other masks: another run
    assert "a.state belongs to a run with other settings (sources = " in capsys.readouterr().err
    assert cli.main([*command, "--set", "least=2.0"]) == 2
    assert "least = 2.0, of type float, is not legal" in capsys.readouterr().err


def test_a_loss_that_is_no_number_stops_the_run(
    scenes: tuple[list[Sample], SaliencyMasks], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, calls = training.saliency_loss, []

    def bad(logits: Tensor, masks: Tensor) -> Any:
        calls.append(1)
        return plain(logits * (torch.nan if len(calls) == 3 else 1), masks)

    monkeypatch.setattr(training, "saliency_loss", bad)
    with pytest.raises(TrainingError, match=r"step 3 of 6: the loss is nan .* still holds the last good state"):
        train_saliency(*scenes, settings(save_every=2), tmp_path / "run", progress=False)
    assert torch.load(tmp_path / "run.state", weights_only=True)["done"] == 2


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match="crop = 64 must be at most side = 32"):
        Saliency(side=32, crop=64)
    with pytest.raises(ValueError, match="multiple of 16"):
        Saliency(side=100)
    with pytest.raises(ValueError, match="side = 112 must be a multiple of 32, for basnet"):
        Saliency(side=112)
    with pytest.raises(ValueError, match="taken = 'a' is no label of sources: choose one of lost, tokencut"):
        SaliencyOnSources(taken="a")
    with pytest.raises(ValueError, match="warmup = 10 must be less than steps = 5"):
        Saliency(steps=5, warmup=10)
    with pytest.raises(ValueError, match="batch = 8 is more than images = 5"):
        SaliencyOnSources(images=5)
    with pytest.raises(ValueError, match="dataset 'folder' needs root"):
        SaliencyOnSources(dataset="folder")
    with pytest.raises(ParameterError, match="unknown objective 'saliency'"):  # it is no representation
        settings_from({"objective": "saliency"}, "a.yaml")
    with pytest.raises(ValueError, match="batch = 8 is more than images = 5"):
        SegmentationOnSources(images=5)
    for model in (SaliencyOnSources, SegmentationOnSources):
        assert not [name for name, field in model.model_fields.items() if not field.description]
