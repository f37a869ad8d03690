"""Training of h and then of f: what moves when, that it learns and goes on, and what is done about what goes wrong."""

import copy
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from plain_squares import refine_in_a_group, settings, write_squares
from torch import Generator, Tensor

from foundling.errors import DataMissing, ParameterError, TrainingError, WeightsError
from foundling.training.refinement import task as training
from foundling.training.refinement.images import PlainBatch, random_squares, split, squeezed
from foundling.training.refinement.sources import Look, PatchSource
from foundling.training.refinement.task import RefinementTask, discovery_share, refine
from foundling.types import Sample


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    return write_squares(tmp_path / "images")


def run(samples: Sequence[Sample], out: Path, minutes: float = 9e9, **changes: Any) -> Any:
    return refine(samples, settings(**changes), out, minutes=minutes, progress=False, cpu=True)


# What a step sees


def test_crops_are_squares_of_most_of_an_image() -> None:
    ramp = torch.arange(48).expand(3, 40, 48).byte() * 5
    views = random_squares([ramp] * 20, 32, (0.9, 1.0), Generator().manual_seed(0))
    assert views.shape == (20, 3, 32, 32) and views.min() >= 0 and views.max() <= 1
    slopes = (views[:, 0, 16, 24] - views[:, 0, 16, 8]) * 255 / 5 / 16  # pixels of the image a pixel of the view
    assert {bool(slope > 0) for slope in slopes} == {True, False}  # mirrored, or not
    assert (slopes.abs() > 1.2).all() and (slopes.abs() < 1.55).all()
    assert len({round(slope.item(), 3) for slope in slopes.abs()}) > 5
    whole = squeezed(ramp, 32)
    assert (whole[0, 16, 24] - whole[0, 16, 8]).item() * 255 / 5 / 16 == pytest.approx(1.5, abs=0.02)


def test_held_out_images_lie_evenly_and_are_not_trained_on(samples: list[Sample]) -> None:
    trained, held = split(samples, 3, 4)
    assert [sample.name for sample in held.samples] == ["0.png", "6.png", "11.png"]
    assert {s.name for s in trained.samples} == {s.name for s in samples} - {s.name for s in held.samples}
    assert len(split(samples, 0, 4)[1]) == 0
    with pytest.raises(ParameterError, match=r"batch = 10 and held_out = 3 are more than there are images \(12\)"):
        split(samples, 3, 10)


# A step


def moved(before: dict[str, Tensor], after: dict[str, Tensor]) -> set[str]:
    """Which of the networks have other parameters: source, frozen, head."""
    return {name.split(".")[0] for name, value in before.items() if not torch.equal(value, after[name])}


def test_each_phase_moves_its_network_and_h_is_frozen_but_differentiable() -> None:
    task = RefinementTask(settings(phases=[{"h": 1}, {"f": 1}, {"h": 1}]))
    task.train()
    optimiser = task.make_optimiser(task.settings)
    views = torch.randn(4, 3, 32, 32, generator=Generator().manual_seed(0))
    for step, (network, training_h) in enumerate([("head", True), ("source", False), ("head", True)]):
        task.begin_step(step)
        assert task.head.training is training_h and task.source.training is not training_h
        before = copy.deepcopy(task.state_dict())
        parts = task(views)
        parts["loss"].backward()
        optimiser.step()
        optimiser.zero_grad()
        after = task.state_dict()
        assert moved(before, after) == {network}
        assert float(parts["phase"]) == float(network == "source")
        assert float(parts["skipped"]) == 0 and float(parts["found"]) == 1
        if network == "source":  # by its first block as well: through the input of the frozen h
            assert not torch.equal(before["source.network.blocks.0.mlp.fc1.weight"],
                                   after["source.network.blocks.0.mlp.fc1.weight"])  # fmt: skip


def test_a_step_of_f_is_eq_6_and_eq_17() -> None:
    """The loss of phase f, put together by hand from its parts."""
    task = RefinementTask(settings(phases=[{"f": 1}], regulariser=3.0))
    task.begin_step(0)
    with torch.no_grad():
        for parameter in task.source.parameters():
            parameter.add_(0.01 * torch.randn(parameter.shape, generator=Generator().manual_seed(1)))
    views = torch.randn(4, 3, 32, 32, generator=Generator().manual_seed(0))
    parts = task(views)
    new, old = (source.look(views).output for source in (task.source, task.frozen))
    assert new is not None and old is not None
    difference = 3 * ((new - old) ** 2).sum() / (4 * 192)
    assert parts["regulariser"].item() == pytest.approx(difference.item(), rel=1e-5)
    total = sum(parts[name].item() for name in ("class", "l1", "giou", "regulariser"))
    assert parts["loss"].item() == pytest.approx(total, rel=1e-6)


def test_boxes_come_from_the_network_that_is_refined_unless_they_are_frozen() -> None:
    views = torch.randn(4, 3, 32, 32, generator=Generator().manual_seed(0))
    for targets, expected in (("refined", "source"), ("frozen", "frozen")):
        task = RefinementTask(settings(phases=[{"f": 1}, {"h": 1}], targets=targets, regulariser=0.0))
        with torch.no_grad():
            task.source.network.blocks[-1].attn.qkv.weight.mul_(-2)  # type: ignore[attr-defined]
        asked: list[Look] = []
        discover = task.source.discover

        def spy(look: Look, kept: list[Look] = asked, real: Callable[[Look], Any] = discover) -> Any:
            kept.append(look)
            return real(look)

        task.source.discover = spy  # type: ignore[method-assign]
        for step in (0, 1):
            task.begin_step(step)
            task(views)
            teacher = getattr(task, expected).look(views)
            torch.testing.assert_close(asked[step].inner[0]["keys"], teacher.inner[0]["keys"].detach())


def test_the_optimiser_decays_as_adam_does_and_leaves_the_other_network_alone() -> None:
    """L2 through the moments: a parameter without a gradient in its own phase moves by its sign."""
    task = RefinementTask(settings(phases=[{"h": 1}, {"f": 1}], weight_decay=0.1, learning_rate=1e-2))
    optimiser = task.make_optimiser(task.settings)
    assert type(optimiser) is torch.optim.Adam
    weight = task.head.body.fc.weight  # type: ignore[union-attr]
    task.begin_step(0)
    before = weight.detach().clone()  # type: ignore[operator]
    weight.grad = torch.zeros_like(before)  # type: ignore[union-attr]
    for group in optimiser.param_groups:
        group["lr"] = task.learning_rate(0, task.settings)
    optimiser.step()
    torch.testing.assert_close(before - weight.detach(), 1e-2 * before.sign(), atol=1e-5, rtol=1e-3)  # type: ignore[operator]
    assert all(p not in optimiser.state for p in task.source.parameters())


# A run


def test_h_learns_the_boxes_and_the_history_tells(samples: list[Sample], tmp_path: Path) -> None:
    out = run(
        samples, tmp_path / "a", phases=[{"h": 40}, {"f": 4}], log_every=4, boxes=1, save_every=100, look_every=22,
        learning_rate=5e-3,
    )  # fmt: skip
    first, last = out.history[0], out.history[9]
    assert last["loss"] < 0.9 * first["loss"]
    assert [row["phase"] for row in out.history] == [0] * 11 + [1]
    assert all(row["discovery_seconds"] > 0 for row in out.history)
    assert 0 < discovery_share(out.history, settings()) < 1
    looks = [row for row in out.history if "agreement" in row]
    assert [row["step"] for row in looks] == [22, 44]
    assert looks[0]["drift"] == 0 < looks[1]["drift"] and all(0 <= row["agreement"] <= 1 for row in looks)


def test_a_run_that_was_stopped_goes_on_to_the_last_bit(samples: list[Sample], tmp_path: Path) -> None:
    changes: dict[str, Any] = {"phases": [{"h": 1}, {"f": 2}, {"h": 1}], "look_every": 2}
    whole = run(samples, tmp_path / "whole", **changes)
    for step in range(1, 5):
        parts = run(samples, tmp_path / "parts", 1e-9, **changes)
        assert parts.steps == step
    assert parts.finished
    for ending in (".safetensors", "_h.safetensors"):
        assert (tmp_path / f"whole{ending}").read_bytes() == (tmp_path / f"parts{ending}").read_bytes()
    assert [row["loss"] for row in whole.history] == [row["loss"] for row in parts.history]
    (tmp_path / "parts_h.safetensors").unlink()
    run(samples, tmp_path / "parts", **changes)
    assert (tmp_path / "parts_h.safetensors").is_file()


def test_parts_of_a_batch_and_frozen_boxes_train_too(samples: list[Sample], tmp_path: Path) -> None:
    out = run(samples, tmp_path / "a", accumulate=2, targets="frozen", layout="grid", regulariser=0.0)
    assert out.finished and all(row["regulariser"] == 0 for row in out.history)


@pytest.mark.slow  # two processes start
def test_two_processes_move_one_network_a_phase_though_one_finds_nothing(tmp_path: Path) -> None:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    torch.multiprocessing.start_processes(refine_in_a_group, (2, port, tmp_path), nprocs=2, start_method="spawn")
    parts = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert parts[0]["losses"] == parts[1]["losses"] and all(0 < loss < 99 for loss in parts[0]["losses"])
    state = parts[0]["state"]
    trained = [name for name in state if "num_batches_tracked" not in name]
    assert all(torch.equal(state[name], parts[1]["state"][name]) for name in trained)
    qkv = "network.blocks.3.attn.qkv.weight"
    assert not torch.equal(state[f"source.{qkv}"], state[f"frozen.{qkv}"])


# What goes wrong


def find_nothing_in(images: Callable[[int], bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """Discovery is to fail in the images of the batch whose number says so."""
    real = PatchSource.discover

    def discover(self: PatchSource, look: Look) -> list[Tensor]:
        return [boxes[:0] if images(i) else boxes for i, boxes in enumerate(real(self, look))]

    monkeypatch.setattr(PatchSource, "discover", discover)


def test_an_image_in_which_nothing_is_found_teaches_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    views = torch.randn(4, 3, 32, 32, generator=Generator().manual_seed(0))
    task = RefinementTask(settings(phases=[{"f": 1}]))
    task.begin_step(0)
    alone = task(views[:2])
    find_nothing_in(lambda i: i > 1, monkeypatch)
    parts = task(views)
    for name in ("class", "l1", "giou"):
        assert parts[name].item() == pytest.approx(alone[name].item(), rel=1e-4)
    assert float(parts["found"]) == 0.5 and float(parts["skipped"]) == 0


def test_a_batch_without_a_box_is_skipped(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_nothing_in(lambda i: True, monkeypatch)
    out = run(samples, tmp_path / "a", weight_decay=0.5)
    assert out.finished
    assert [row["skipped"] for row in out.history] == [1] * 6 and {row["loss"] for row in out.history} == {0}
    assert all(row["found"] == row["iou"] == 0 for row in out.history)
    state = torch.load(tmp_path / "a.state", weights_only=True)["task"]
    for name, value in state.items():
        if name.startswith("source."):
            assert torch.equal(value, state[name.replace("source.", "frozen.", 1)])


def test_a_box_that_covers_everything_is_a_box_and_is_told(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = torch.tensor([[0.0, 0.0, 32.0, 32.0]])
    monkeypatch.setattr(PatchSource, "discover", lambda self, look: [whole] * len(look.map))
    out = run(samples, tmp_path / "a", phases=[{"h": 3}])
    assert all(row["covering"] == row["found"] == 1 and row["loss"] > 0 for row in out.history)


def test_a_loss_that_is_no_number_stops_and_the_last_state_stays(
    samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = training.normalise
    calls: list[int] = []

    def spoilt(images: Tensor, mean: Any, std: Any) -> Tensor:
        calls.append(1)
        return real(images, mean, std) * (torch.nan if len(calls) > 2 else 1)

    monkeypatch.setattr(training, "normalise", spoilt)
    with pytest.raises(
        TrainingError, match=r"step 3 of 6: the norm of the gradient is nan.*still holds the last good state"
    ):
        run(samples, tmp_path / "a", look_every=100, held_out=0)
    monkeypatch.undo()
    assert run(samples, tmp_path / "a", look_every=100, held_out=0).finished


def test_an_h_whose_numbers_are_none_has_a_loss_that_is_none() -> None:
    task = RefinementTask(settings(phases=[{"h": 1}]))
    task.begin_step(0)
    with torch.no_grad():
        task.head.body.fc.bias.fill_(torch.nan)  # type: ignore[union-attr,operator]
    assert torch.isnan(task(torch.randn(4, 3, 32, 32))["loss"])


def test_too_few_images_other_settings_and_images_that_cannot_be_read(samples: list[Sample], tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="batch = 16 and held_out = 2 are more than there are images"):
        run(samples, tmp_path / "a", batch=16)
    run(samples, tmp_path / "b", 1e-9)
    with pytest.raises(ParameterError, match="belongs to a run with other settings"):
        run(samples, tmp_path / "b", boxes=4)
    with pytest.raises(ParameterError, match="belongs to a run with other settings"):
        run(samples[:-1], tmp_path / "b")
    with pytest.raises(WeightsError, match="is no state of a training run"):
        (tmp_path / "b.state").write_bytes(b"x")
        run(samples, tmp_path / "b")
    missing = [Sample(f"{i}", tmp_path / f"none{i}.png", i) for i in range(8)]
    with pytest.raises(DataMissing, match="none of the 6 images can be read"):
        run(missing, tmp_path / "c")
    some = [*samples[:10], Sample("gone", tmp_path / "gone.png", 10)]
    with pytest.warns(UserWarning, match="gone.*the next image that can be read stands in for it"):
        run(some, tmp_path / "d", held_out=0, phases=[{"h": 6}])


def test_the_views_of_a_step_are_normalised_as_f_wants_them() -> None:
    task = RefinementTask(settings())
    image = torch.full((3, 40, 40), 255, dtype=torch.uint8)
    views = task.make_views(PlainBatch([image]), Generator().manual_seed(0))
    expected = [(1 - mean) / std for mean, std in zip(task.source.mean, task.source.std, strict=True)]
    assert views[0, :, 5, 5].tolist() == pytest.approx(expected)
