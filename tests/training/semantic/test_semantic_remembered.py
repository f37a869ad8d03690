"""Tokens computed once: those of the encoder, as images are and mirrored; a head that learns on them and goes on."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from labelled_discs import CLUSTERS, disc, settings, write_discs

from foundling.backbones.apply import normalise
from foundling.categories.pseudo_masks import PseudoMasks
from foundling.training.semantic.images import MappedImages
from foundling.training.semantic.networks import VitSegmenter, load_encoder
from foundling.training.semantic.predict import load_segmenter, segment
from foundling.training.semantic.remembered import OnRemembered, Remembered
from foundling.training.semantic.settings import Semantic
from foundling.training.semantic.task import train_semantic
from foundling.types import Sample

Discs = tuple[list[Sample], PseudoMasks]


@pytest.fixture
def discs(tmp_path: Path) -> Discs:
    return write_discs(tmp_path / "images")


def told(**changes: object) -> Semantic:
    return settings(**{"remember": True, "backbone_rate": 0.0, "detail": 0, "channels": 16} | changes)


def remembered(discs: Discs) -> tuple[OnRemembered, Remembered]:
    source = MappedImages(*discs)
    task = OnRemembered(told(), load_encoder(told()), source.classes)
    return task, Remembered(source, task, Accelerator(cpu=True).device, 0)


def test_tokens_are_the_encoders(discs: Discs) -> None:
    task, images = remembered(discs)
    (batch,) = images.batches([[3, 0]])
    assert len(images) == 12 and batch.tokens.shape == (2, 2, 192, 4, 4) and batch.labels.shape == (2, 16, 16)
    pixels, labels = disc(3)
    square = F.interpolate(torch.from_numpy(pixels).permute(2, 0, 1)[None].float(), (32, 32), mode="bilinear") / 255
    assert isinstance(task.segmenter, VitSegmenter)
    for image, tokens in zip((square, square.flip(-1)), batch.tokens[0], strict=True):
        with torch.inference_mode():
            expected = task.segmenter.tokens(normalise(image, task.body.mean, task.body.std))[0]
        assert torch.allclose(tokens.float(), expected, atol=5e-3)
    small = F.interpolate(torch.from_numpy(labels)[None, None].float(), (16, 16), mode="nearest")[0, 0]
    assert torch.equal(batch.labels[0], small.byte())


def test_images_and_labels_are_mirrored_together(discs: Discs) -> None:
    task, images = remembered(discs)
    (batch,) = images.batches([list(range(12))])
    views = task.make_views(batch, torch.Generator().manual_seed(0))
    mirrored = 0
    for tokens, labels, both, given in zip(views.tokens, views.labels, *batch, strict=True):
        flip = torch.equal(tokens, both[1].float())
        mirrored += flip
        assert torch.equal(tokens, both[int(flip)].float())
        assert torch.equal(labels, (given.flip(-1) if flip else given).long())
    assert 0 < mirrored < 12


def test_a_head_learns_on_them(discs: Discs, tmp_path: Path) -> None:
    samples, masks = discs
    run = told(steps=80, learning_rate=1e-2, log_every=20, batch=6, object_first=True)
    outcome = train_semantic(samples, masks, run, tmp_path / "run", progress=False)
    assert outcome.finished and outcome.history[-1]["agreement"] > 0.85
    segmenter = load_segmenter(outcome.file)
    shared = total = 0
    for (_, labels), seed in zip(segment(segmenter, samples), range(12), strict=True):
        true = disc(seed)[1]
        shared += int(((labels == true) & (true > 0)).sum())
        total += int(((labels > 0) | (true > 0)).sum())
    assert segmenter.clusters == CLUSTERS and shared / total > 0.5


def test_a_run_that_was_stopped_ends_as_one_that_was_not(discs: Discs, tmp_path: Path) -> None:
    samples, masks = discs
    whole = train_semantic(samples, masks, told(), tmp_path / "whole", progress=False)
    first = train_semantic(samples, masks, told(), tmp_path / "run", minutes=1e-9, progress=False)
    assert not first.finished
    rest = train_semantic(samples, masks, told(), tmp_path / "run", progress=False)
    assert rest.finished and rest.file.read_bytes() == whole.file.read_bytes()


@pytest.mark.parametrize("changes", [{"backbone_rate": 0.1}, {"detail": 4}, {"network": "deeplab_r50"}])
def test_what_would_change_is_not_remembered(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="remember goes with network = vit, backbone_rate = 0 and detail = 0, not"):
        told(**changes)
