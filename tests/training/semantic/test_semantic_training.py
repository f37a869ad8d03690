"""Segmenters on label maps: the loss, rates and groups, that one learns, goes on after a stop, and what is refused."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from labelled_discs import CLUSTERS, disc, settings, write_discs

from foundling.backbones import load_backbone
from foundling.categories.pseudo_masks import PseudoMasks
from foundling.datasets.index_masks import write_labels
from foundling.errors import ParameterError, TrainingError, WeightsError
from foundling.training.semantic import task as training
from foundling.training.semantic.images import MappedBatch
from foundling.training.semantic.networks import load_encoder
from foundling.training.semantic.predict import load_segmenter, segment
from foundling.training.semantic.settings import Semantic
from foundling.training.semantic.task import SemanticTask, pixel_losses, train_semantic, with_steps
from foundling.types import Sample

Discs = tuple[list[Sample], PseudoMasks]


@pytest.fixture
def discs(tmp_path: Path) -> Discs:
    return write_discs(tmp_path / "images")


# The loss


def test_the_loss_by_its_definition() -> None:
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(2, 4, 3, 5)), rng.integers(0, 4, (2, 3, 5))
    labels[0, 1], labels[1, 2, 3] = 255, 255
    total, right, count = 0.0, 0, 0
    for image, row, column in np.ndindex(2, 3, 5):
        label = labels[image, row, column]
        if label != 255:
            z = logits[image, :, row, column]
            total += float(np.log(np.exp(z).sum()) - z[label])
            right += int(z.argmax() == label)
            count += 1
    found = pixel_losses(torch.from_numpy(logits), torch.from_numpy(labels))
    assert found["loss"].item() == pytest.approx(total / count, rel=1e-9)
    assert found["agreement"].item() == pytest.approx(right / count)


def test_void_alone_costs_nothing() -> None:
    logits = torch.randn(2, 3, 4, 4, requires_grad=True)
    parts = pixel_losses(logits, torch.full((2, 4, 4), 255))
    parts["loss"].backward()
    assert parts["loss"].item() == 0 and parts["agreement"].item() == 0
    assert logits.grad is not None and not logits.grad.any()


# Rates and steps


def task(**changes: Any) -> SemanticTask:
    told = settings(**changes)
    return SemanticTask(told, load_encoder(told), CLUSTERS + 1)


def test_each_parameter_has_one_rate() -> None:
    one = task(backbone_rate=0.25, weight_decay=0.1)
    groups = one.make_optimiser(one.settings).param_groups
    assert [(g["rate"], g["weight_decay"]) for g in groups] == [(1.0, 0.1), (1.0, 0.0), (0.25, 0.1), (0.25, 0.0)]
    seen = [id(p) for g in groups for p in g["params"]]
    assert sorted(seen) == sorted(id(p) for p in one.parameters())
    frozen = task(backbone_rate=0.0)
    assert [g["rate"] for g in frozen.make_optimiser(frozen.settings).param_groups] == [1.0, 1.0]


def test_the_rate_over_a_run() -> None:
    one = task(schedule="constant", warmup=2, learning_rate=0.5)
    assert [one.learning_rate(step, one.settings) for step in range(5)] == [0.25, 0.5, 0.5, 0.5, 0.5]
    one = task(schedule="cosine", warmup=2, steps=6, learning_rate=0.5)
    rates = [one.learning_rate(step, one.settings) for step in range(6)]
    assert rates[:3] == [0.25, 0.5, 0.5] and rates[4] == pytest.approx(0.25) and 0 < rates[5] < rates[4]


def test_epochs_set_the_steps() -> None:
    told = settings(epochs=10, batch=4, warmup=2)
    assert with_steps(told, 11).steps == 20
    assert with_steps(settings(steps=7), 11).steps == 7
    with pytest.raises(ParameterError, match="warmup = 2 must be less than the 2 steps that epochs = 1 over 11 images"):
        with_steps(settings(epochs=1, batch=4, warmup=2), 11)
    with pytest.raises(ParameterError, match=r"batch = 12 is more than there are images to learn from \(11\)"):
        with_steps(settings(batch=12), 11)


def test_a_step_of_deeplab() -> None:
    one = task(network="deeplab_r50").train()
    pixels, labels = zip(*(map(torch.from_numpy, disc(seed)) for seed in range(2)), strict=True)
    batch = MappedBatch([p.permute(2, 0, 1) for p in pixels], list(labels))
    before = one.segmenter.encoder["bn1"].running_mean.clone()  # type: ignore[index]
    parts = one(one.make_views(batch, torch.Generator().manual_seed(0)))
    parts["loss"].backward()
    assert 0.5 < parts["loss"].item() < 3 and 0 <= parts["agreement"].item() <= 1
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in one.parameters())
    assert not torch.equal(one.segmenter.encoder["bn1"].running_mean, before)  # type: ignore[index]


# Runs


def test_it_learns_what_its_maps_show(discs: Discs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Red discs and green ones, on images that it has not seen; the encoder is drawn at random, and stays so."""
    told = settings(steps=60, learning_rate=1e-2, backbone_rate=0.0, detail=16, channels=16, log_every=10, min_area=0.8)
    outcome = train_semantic(*discs, told, tmp_path / "run", progress=False)
    assert outcome.finished and outcome.history[-1]["loss"] < 0.4 * outcome.history[0]["loss"]
    segmenter = load_segmenter(outcome.file)
    samples, _ = write_discs(tmp_path / "new", 6, first=100)
    ious = []
    for sample, labels in segment(segmenter, samples):
        truth = disc(sample.image_id)[1]
        kind = truth.max()
        ious.append(((labels == kind) & (truth == kind)).sum() / ((labels == kind) | (truth == kind)).sum())
    assert np.mean(ious) > 0.6
    with (tmp_path / "run.history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:4] == ["step", "loss", "agreement", "gradient_norm"]
    assert capsys.readouterr().err == ""


def test_a_run_that_was_stopped_ends_as_one_that_was_not(discs: Discs, tmp_path: Path) -> None:
    whole = train_semantic(*discs, settings(), tmp_path / "whole", progress=False)
    parts = [
        train_semantic(*discs, settings(), tmp_path / "parts", minutes=minutes, progress=False)
        for minutes in (1e-9, 1e-9, 9e9, 9e9)
    ]
    assert [(outcome.steps, outcome.finished) for outcome in parts] == [(1, False), (2, False), (6, True), (6, True)]
    assert parts[-1].file.read_bytes() == whole.file.read_bytes()


def test_a_batch_in_parts_and_an_encoder_that_learns(discs: Discs, tmp_path: Path) -> None:
    told = settings(weights="scenes_odin", steps=2, warmup=0, accumulate=2, precision="bf16", backbone_rate=0.5)
    outcome = train_semantic(*discs, told, tmp_path / "run", progress=False, cpu=True)
    assert np.isfinite(outcome.history[-1]["loss"])
    encoder = load_segmenter(outcome.file).network.encoder.state_dict()
    before = load_backbone("scenes_odin", device="cpu").network.state_dict()
    assert not torch.allclose(encoder["blocks.0.attn.qkv.weight"], before["blocks.0.attn.qkv.weight"], atol=1e-4)


def test_what_is_left_out_is_said(discs: Discs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples, masks = discs
    masks = PseudoMasks((None, *masks.files[1:]), CLUSTERS, (), ())
    train_semantic(samples, masks, settings(steps=1, warmup=0), tmp_path / "run")
    told = capsys.readouterr().err
    assert "11 images with maps of 2 clusters (" in told
    assert "1 × image without a label map (left out): 0.png" in told


def test_what_cannot_be_trained_is_refused(discs: Discs, tmp_path: Path) -> None:
    samples, masks = discs
    run = tmp_path / "run"
    with pytest.raises(ParameterError, match=r"batch = 13 is more than there are images to learn from \(12\)"):
        train_semantic(samples, masks, settings(batch=13), run, progress=False)
    train_semantic(samples, masks, settings(), run, minutes=1e-9, progress=False)
    with pytest.raises(ParameterError, match=r"channels = 8, not 9"):
        train_semantic(samples, masks, settings(channels=9), run, progress=False)
    with pytest.raises(ParameterError, match=r"maps of 2 clusters .* not 12 images with maps of 3 clusters"):
        train_semantic(samples, PseudoMasks(masks.files, 3, (), ()), settings(), run, progress=False)
    file = masks.files[0]
    assert file is not None
    write_labels(file, np.ones_like(disc(0)[1]))
    with pytest.raises(ParameterError, match="belongs to a run with other settings"):
        train_semantic(samples, masks, settings(), run, progress=False)
    (tmp_path / "run.state").write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="damaged"):
        train_semantic(samples, masks, settings(), run, progress=False)


def test_a_loss_that_is_no_number_stops_the_run(discs: Discs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, calls = training.pixel_losses, []

    def bad(logits: Any, labels: Any) -> Any:
        calls.append(1)
        return plain(logits * (torch.nan if len(calls) == 3 else 1), labels)

    monkeypatch.setattr(training, "pixel_losses", bad)
    with pytest.raises(TrainingError, match=r"step 3 of 6: the loss is nan"):
        train_semantic(*discs, settings(), tmp_path / "run", progress=False)
    assert torch.load(tmp_path / "run.state", weights_only=True)["done"] == 2


def test_a_run_says_how_it_was_made(discs: Discs, tmp_path: Path) -> None:
    outcome = train_semantic(*discs, settings(steps=1, warmup=0), tmp_path / "run", progress=False)
    segmenter = load_segmenter(outcome.file)
    assert segmenter.settings == settings(steps=1, warmup=0) and segmenter.clusters == CLUSTERS
    assert isinstance(segmenter.settings, Semantic) and not segmenter.network.training
