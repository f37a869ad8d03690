"""Runs of a detector's training: that it learns, goes on after a stop, stops where it must, and what it refuses."""

import csv
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from boxed import SIDE, boxed_images, small, train_in_a_group
from torch import Generator

from foundling.errors import FoundlingError, ParameterError, TrainingError, WeightsError
from foundling.evaluation.boxes import iou
from foundling.training import loop
from foundling.training.detection.bodies import load_body
from foundling.training.detection.images import BoxedBatch, BoxedImages, BoxedSet
from foundling.training.detection.predict import detect, load_detector
from foundling.training.detection.settings import Detector
from foundling.training.detection.task import DetectorTask, learning_rate, mirrored, train_detector
from foundling.training.pseudo_labels import PseudoLabels
from foundling.types import Sample

Data = tuple[list[Sample], PseudoLabels]


@pytest.fixture
def scenes(tmp_path: Path) -> Data:
    return boxed_images(tmp_path / "images")


def run(scenes: Data, out: Path, settings: Detector, **how: Any) -> Any:
    return train_detector(*scenes, settings, out, progress=False, cpu=True, **how)


def test_it_learns_where_the_squares_are(scenes: Data, tmp_path: Path) -> None:
    outcome = run(scenes, tmp_path / "run", small(steps=30, batch=8, learning_rate=5e-3, weights="scenes_odin"))
    assert outcome.finished and outcome.steps == 30
    first, last = outcome.history[0], outcome.history[-1]
    assert last["loss"] < 0.6 * first["loss"]
    found = {sample.name: seen for sample, seen in detect(load_detector(outcome.file), scenes[0])}
    overlaps = [iou(found[image.name].boxes[:1], image.boxes).max(initial=0.0) for image in scenes[1].images]
    assert np.mean(overlaps) > 0.5
    with (tmp_path / "run.history.csv").open() as file:
        rows = list(csv.DictReader(file))
    columns = ["step", "loss", "loss_classifier", "loss_box_reg", "loss_objectness", "loss_rpn_box_reg"]
    assert list(rows[0])[:6] == columns and float(rows[-1]["loss"]) == pytest.approx(
        sum(float(rows[-1][name]) for name in columns[2:]), rel=1e-4
    )


def test_a_run_that_was_stopped_ends_as_one_that_was_not(scenes: Data, tmp_path: Path) -> None:
    settings = small(steps=3, min_sizes=[24, SIDE], precise_bn=0)
    whole = run(scenes, tmp_path / "whole", settings)
    parts = [run(scenes, tmp_path / "parts", settings, minutes=minutes) for minutes in (1e-9, 9e9, 9e9)]
    assert [(outcome.steps, outcome.finished) for outcome in parts] == [(1, False), (3, True), (3, True)]
    assert parts[-1].file.read_bytes() == whole.file.read_bytes()
    other = run(scenes, tmp_path / "other", small(steps=3, min_sizes=[24, SIDE], seed=1))
    assert other.file.read_bytes() != whole.file.read_bytes()


def test_a_batch_in_parts_gives_the_mean_gradient_of_its_images(
    scenes: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a step's gradient against those of its halves, each from a pass of its own."""
    settings = small(steps=1, warmup=0, accumulate=2, clip=0.0, optimiser="sgd", learning_rate=1e-4, precise_bn=0)
    find_gradient, seen = loop.find_gradient, dict[str, Any]()

    def watched(going: Any, batch: Any, step: int) -> Any:
        told = find_gradient(going, batch, step)
        trained = {name: p for name, p in going.task.named_parameters() if p.grad is not None}
        seen["whole"] = {name: p.grad.clone() for name, p in trained.items()}
        for part, half in enumerate(batch):
            seed = loop.seed_of(settings.seed, step, 0, *([part] if part else []))
            torch.manual_seed(seed)
            views = going.task.make_views(half, Generator().manual_seed(seed))
            loss = going.task(views)["loss"]
            seen[f"half {part}"] = dict(zip(trained, torch.autograd.grad(loss, list(trained.values())), strict=True))
            seen[f"images {part}"] = len(half.images)
        return told

    monkeypatch.setattr(loop, "find_gradient", watched)
    assert run(scenes, tmp_path / "run", settings).finished
    assert seen["images 0"] == seen["images 1"] == 2 and len(seen["whole"]) > 8
    for name, gradient in seen["whole"].items():
        one, other = seen["half 0"][name], seen["half 1"][name]
        torch.testing.assert_close(gradient, (one + other) / 2, rtol=1e-4, atol=1e-6)
    assert any(not torch.allclose(seen["half 0"][name], seen["half 1"][name], rtol=0.1) for name in seen["whole"])


def test_a_detector_that_is_done_is_not_exported_again(
    scenes: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = small(steps=2, save_every=1)
    whole = run(scenes, tmp_path / "run", settings)
    written = whole.file.stat().st_mtime_ns
    monkeypatch.setattr(DetectorTask, "export", None)
    assert run(scenes, tmp_path / "run", settings) == whole and whole.file.stat().st_mtime_ns == written


@pytest.mark.slow  # 15 s: two processes start
def test_two_processes_move_one_detector(tmp_path: Path) -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    torch.multiprocessing.start_processes(train_in_a_group, (2, port, tmp_path), nprocs=2, start_method="spawn")
    parts = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert parts[0]["loss"] == parts[1]["loss"] and np.isfinite(parts[0]["loss"])
    assert all(torch.equal(value, parts[1]["state"][name]) for name, value in parts[0]["state"].items())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        before = DetectorTask(small(), load_body(small()), ("object",)).state_dict()
    moved = {name for name, value in parts[0]["state"].items() if not torch.equal(value, before[name])}
    assert "detector.rpn.head.cls_logits.weight" in moved and "detector.backbone.body.blocks.3.attn.qkv.weight" in moved
    assert "detector.backbone.body.blocks.0.attn.qkv.weight" not in moved
    assert load_detector(tmp_path / "run.safetensors").classes == ("object",)


def test_images_and_boxes_are_mirrored_together(scenes: Data) -> None:
    images = BoxedImages(*scenes)
    task = DetectorTask(small(), load_body(small()), ("object",))
    batches = list(BoxedSet(images).batches([range(8)] * 4))
    flipped = []
    for seed, batch in enumerate(batches):
        for i, (view, target) in enumerate(task.make_views(batch, Generator().manual_seed(seed))):
            x0, y0, x1, y1 = target["boxes"][0].int().tolist()
            assert (view[0, y0:y1, x0:x1] > 0.9).all() and (view[0] > 0.9).sum() == (y1 - y0) * (x1 - x0)
            assert target["labels"].tolist() == [1]  # torchvision's 0 is the background
            flipped.append(not torch.equal(view, batch.images[i].float() / 255))
    assert 8 < sum(flipped) < 24
    boxes = torch.tensor([[0.0, 1.0, 4.0, 5.0], [2.5, 0.0, 10.0, 3.0]])
    assert mirrored(boxes, 10).tolist() == [[6, 1, 10, 5], [0, 0, 7.5, 3]]
    assert torch.equal(mirrored(mirrored(boxes, 10), 10), boxes)


def test_images_of_different_sizes_make_a_batch() -> None:
    task = DetectorTask(small(), load_body(small()), ("a", "b")).train()
    images = [torch.zeros(3, 20, 50, dtype=torch.uint8), torch.zeros(3, 40, 30, dtype=torch.uint8)]
    boxes = [torch.tensor([[1.0, 2.0, 30.0, 19.0]]), torch.tensor([[0.0, 0.0, 30.0, 40.0], [3.0, 3.0, 9.0, 20.0]])]
    batch = BoxedBatch(images, boxes, [torch.tensor([1]), torch.tensor([0, 1])])
    with pytest.raises(IndexError):  # two classes, in a network that knows one
        task(task.make_views(batch, Generator()))
    settings = small(classes=2)
    parts = DetectorTask(settings, load_body(settings), ("a", "b"))(task.make_views(batch, Generator()))
    assert parts["loss"].item() == pytest.approx(sum(v.item() for name, v in parts.items() if name != "loss"), rel=1e-5)


def test_the_learning_rate_over_a_run() -> None:
    steps = {"optimiser": "sgd", "schedule": "steps", "learning_rate": 0.02, "gamma": 0.1}
    paper = small(**steps, steps=24000, warmup=100, decay_at=[18000, 22000])
    expected = {0: 2e-5, 50: 0.02 * 0.5005, 100: 0.02, 17999: 0.02, 18000: 2e-3, 21999: 2e-3, 22000: 2e-4, 23999: 2e-4}
    assert {step: learning_rate(step, paper) for step in expected} == pytest.approx(expected)
    cosine = small(steps=101, warmup=1, learning_rate=1.0)
    assert [learning_rate(step, cosine) for step in (0, 1, 51, 100)] == pytest.approx(
        [0.001, 1, 0.5, 0.000247], abs=1e-6
    )


# What is refused, and what stops a run


def test_what_cannot_be_trained_is_refused(scenes: Data, tmp_path: Path) -> None:
    samples, labels = scenes
    with pytest.raises(ParameterError, match=r"classes = 1, but the labels have 2: set classes to that number"):
        run((samples, replace(labels, classes=("a", "b"))), tmp_path / "run", small())
    with pytest.raises(ParameterError, match=r"batch = 9 is more than there are images with a box \(8\)"):
        run(scenes, tmp_path / "run", small(batch=9))
    nothing = replace(labels, images=tuple(replace(i, boxes=i.boxes[:0], labels=i.labels[:0]) for i in labels.images))
    with pytest.raises(ParameterError, match="none of the 8 images has a box: there is nothing to train on"):
        run((samples, nothing), tmp_path / "run", small())
    outside = replace(labels.images[0], boxes=labels.images[0].boxes + 1000)
    with pytest.raises(ParameterError, match=r"0\.png: the box .* does not lie inside the image"):
        run((samples, replace(labels, images=(outside, *labels.images[1:]))), tmp_path / "run", small())
    assert not list(tmp_path.glob("run*"))


def test_a_run_does_not_go_on_as_another(scenes: Data, tmp_path: Path) -> None:
    samples, labels = scenes
    run(scenes, tmp_path / "run", small(), minutes=1e-9)
    before = (tmp_path / "run.state").read_bytes()
    for changed, message in (
        ({"learning_rate": 0.5}, r"learning_rate = 0\.001, not 0\.5"),
        ({"freeze_at": 4}, "freeze_at = 5, not 4"),
        ({"channels": 24}, "channels = 16, not 24"),
    ):
        with pytest.raises((ParameterError, WeightsError), match=message):
            run(scenes, tmp_path / "run", small(**changed))
    moved = replace(labels.images[0], boxes=labels.images[0].boxes / 2)
    with pytest.raises(ParameterError, match=r"8 images with boxes of 1 classes \(\w+\), not 8 images"):
        run((samples, replace(labels, images=(moved, *labels.images[1:]))), tmp_path / "run", small())
    assert (tmp_path / "run.state").read_bytes() == before
    assert run(scenes, tmp_path / "run", small(save_every=7)).finished  # no step depends on it


def test_a_loss_that_is_no_number_stops_the_run_and_the_last_state_stays(
    scenes: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, calls = DetectorTask.forward, []

    def bad(task: Any, views: Any) -> Any:
        calls.append(1)
        parts = forward(task, views)
        return parts | {"loss": parts["loss"] * (torch.nan if len(calls) == 3 else 1)}

    monkeypatch.setattr(DetectorTask, "forward", bad)
    with pytest.raises(TrainingError, match=r"step 3 of 4: the loss is nan"):
        run(scenes, tmp_path / "run", small(save_every=2))
    assert torch.load(tmp_path / "run.state", weights_only=True)["done"] == 2


def test_a_disk_that_fills_up_leaves_the_last_state(
    scenes: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = Path.write_bytes, []

    def fills(path: Path, content: Any) -> int:
        calls.append(path.name)
        if sum(".run.state" in name for name in calls) == 2:
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", fills)
    with pytest.raises(FoundlingError, match=r"run\.state cannot be written \(No space left on device\): make room"):
        run(scenes, tmp_path / "run", small(save_every=1))
    monkeypatch.setattr(Path, "write_bytes", write)
    assert torch.load(tmp_path / "run.state", weights_only=True)["done"] == 1
    assert run(scenes, tmp_path / "run", small(save_every=1)).finished
