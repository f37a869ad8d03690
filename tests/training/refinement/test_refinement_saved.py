"""What a refinement leaves: f as any backbone, h and its boxes, and runs found again."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plain_squares import settings, write_squares
from safetensors.torch import load_file

from foundling import cli
from foundling.backbones import load_backbone
from foundling.discovery import discover_images
from foundling.errors import ImageError, WeightsError
from foundling.training.detection.bodies import named_body
from foundling.training.refinement.runs import State, boxes_of, boxes_of_h, chosen, refine_seeds, run_path, states
from foundling.training.refinement.saved import HBoxes, h_boxes, h_file, load_refined
from foundling.training.refinement.task import refine
from foundling.types import Failure, Sample


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> list[Sample]:
    return write_squares(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def run(samples: list[Sample], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a run, with a state after its fourth step."""
    out = tmp_path_factory.mktemp("runs") / "a"
    return refine(samples, settings(export_at=[4]), out, progress=False, cpu=True).file


def test_f_is_read_as_any_backbone_to_the_last_bit(run: Path) -> None:
    state = torch.load(run.with_suffix(".state"), weights_only=True)["task"]
    network = load_backbone("scenes_odin", weights=run, device="cpu").network.state_dict()
    assert all(torch.equal(value, state[f"source.network.{name}"]) for name, value in network.items())
    before = load_backbone("scenes_odin", device="cpu").network.state_dict()
    assert not torch.equal(network["blocks.3.attn.qkv.weight"], before["blocks.3.attn.qkv.weight"])
    body = named_body("vit", str(run))  # as detectors and segmenters take it
    assert torch.equal(body.network.state_dict()["norm.weight"], network["norm.weight"])


def test_h_is_read_with_the_f_that_it_looks_through(run: Path) -> None:
    refined = load_refined(run, "cpu")
    state = torch.load(run.with_suffix(".state"), weights_only=True)["task"]
    assert all(torch.equal(value, state[f"head.{name}"]) for name, value in refined.head.state_dict().items())
    assert not refined.head.training and refined.settings == settings(export_at=[4])
    between = load_refined(run.with_name("a_4.safetensors"), "cpu")
    assert between.checksum != refined.checksum
    assert not any(p.requires_grad for p in (*between.source.parameters(), *between.head.parameters()))


def test_boxes_of_h_lie_in_the_original_images_whatever_the_batch(run: Path, samples: list[Sample]) -> None:
    refined = load_refined(run, "cpu")
    found = h_boxes(refined, samples[:5], batch_size=3)
    assert found.boxes.shape == (5, 3, 4) and found.scores.shape == (5, 3)
    assert (found.boxes >= 0).all() and ((found.scores > 0) & (found.scores < 1)).all()
    for i in range(5):
        height, width = (40, 48) if i % 2 else (48, 40)
        assert (found.boxes[i, :, 2] <= width).all() and (found.boxes[i, :, 3] <= height).all()
    np.testing.assert_allclose(h_boxes(refined, samples[:5], batch_size=1).boxes, found.boxes, atol=1e-3)
    best = found.scores.argmax(1)
    np.testing.assert_array_equal(found.surest, found.boxes[np.arange(5), best])
    np.testing.assert_array_equal(boxes_of_h(run, samples[:5], device="cpu"), found.surest)


def test_images_that_cannot_be_used_have_no_box_of_h(run: Path, samples: list[Sample], tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    some = [samples[0], Sample("bad.png", tmp_path / "bad.png", 99)]
    failures: list[Failure] = []
    found = h_boxes(load_refined(run, "cpu"), some, failures=failures)
    assert [failure.name for failure in failures] == ["bad.png"]
    assert np.isfinite(found.surest[0]).all() and np.isnan(found.surest[1]).all()
    with pytest.raises(ImageError, match=r"bad\.png"):
        h_boxes(load_refined(run, "cpu"), some)
    assert HBoxes(np.zeros((0, 2, 4)), np.zeros((0, 2))).surest.shape == (0, 4)


def test_boxes_through_f_are_those_of_discovery(run: Path, samples: list[Sample], tmp_path: Path) -> None:
    told = settings()
    refined = boxes_of(told, run, samples, tmp_path / "boxes", device="cpu", progress=False)
    network = load_backbone("scenes_odin", weights=run, device="cpu")
    expected = discover_images(network, samples, {"lost": told.discovery}, progress=False).boxes["lost"]
    np.testing.assert_array_equal(refined, expected)
    assert list((tmp_path / "boxes").iterdir())
    before = boxes_of(told, told.weights, samples, device="cpu", progress=False)
    assert before.shape == refined.shape


def test_runs_of_several_seeds_are_found_again(samples: list[Sample], tmp_path: Path) -> None:
    told = settings(phases=[{"h": 1}, {"f": 2}], export_at=[1, 2])
    first = refine_seeds(samples, told, [0, 3], tmp_path, cpu=True)
    assert [one.seed for one in first] == [0, 3] and all(one.outcome.finished for one in first)
    times = [one.file.stat().st_mtime_ns for one in first]
    again = refine_seeds(samples, told, [0, 3], tmp_path, cpu=True)
    assert [one.file.stat().st_mtime_ns for one in again] == times
    other = refine_seeds(samples, told.model_copy(update={"regulariser": 0.0}), [0], tmp_path, cpu=True)
    fewer = refine_seeds(samples[1:], told, [0], tmp_path, cpu=True)
    assert len({one.file for one in (*first, *other, *fewer)}) == 4
    larger = write_squares(tmp_path / "larger", bigger=8)  # the same names, as scenes of another size have
    assert [one.name for one in larger] == [one.name for one in samples]
    assert run_path(tmp_path, "a", told, larger) != run_path(tmp_path, "a", told, samples)
    moved = shutil.copytree(samples[0].path.parent, tmp_path / "moved")
    copies = [replace(one, path=moved / one.path.name) for one in samples]
    assert run_path(tmp_path, "a", told, copies) == run_path(tmp_path, "a", told, samples)
    those = states(again[0])
    assert [state.step for state in those] == [1, 2, 3] and all(state.file.is_file() for state in those)
    assert those[-1].file == again[0].file and those[0].drift == 0 and those[1].drift
    assert all(h_file(state.file).is_file() and state.agreement is not None for state in those)


def test_the_state_of_most_agreement_is_chosen_without_labels() -> None:
    def state(step: int, agreement: float | None) -> State:
        return State(step, Path("a"), agreement, 0.0)

    assert chosen([state(1, 0.2), state(2, 0.5), state(3, 0.5), state(4, 0.1)]).step == 3
    assert chosen([state(1, None), state(2, None)]).step == 2


def test_the_command_refines(samples: list[Sample], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        "objective: refinement", "dataset: folder", f"root: {samples[0].path.parent}", "images: 0",
        "phases: [{h: 1}, {f: 1}]", "side: 32", "batch: 4", "held_out: 0", "workers: 0",
        "network_options: {channels: [8, 8, 16, 16]}",
    ]  # fmt: skip
    file = tmp_path / "a.yaml"
    file.write_text("\n".join(lines))
    assert cli.main(["train", str(file), "--out", str(tmp_path / "run"), "--cpu"]) == 0
    assert "all steps done" in capsys.readouterr().out
    assert load_refined(tmp_path / "run.safetensors", "cpu").settings.side == 32


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda file: h_file(file).unlink(), "there is no such file; name one that refine"),
        (lambda file: h_file(file).write_bytes(b"x"), "is no safetensors file, or damaged"),
        (lambda file: h_file(file).write_bytes(file.read_bytes()), "holds no h of a refinement but a network of the"),
        (lambda file: file.unlink(), "there is no such file"),
    ],
)
def test_files_that_are_missing_or_of_something_else(run: Path, tmp_path: Path, spoil: Any, message: str) -> None:
    for source in (run, h_file(run)):
        (tmp_path / source.name).write_bytes(source.read_bytes())
    spoil(tmp_path / run.name)
    with pytest.raises(WeightsError, match=message):
        load_refined(tmp_path / run.name, "cpu")


def test_files_are_in_full_precision(run: Path) -> None:
    assert {tensor.dtype for tensor in load_file(run).values()} == {torch.float32}
