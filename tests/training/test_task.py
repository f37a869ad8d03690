"""A task of any kind on the loop: a line through points, whose steps can be written out by hand."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor, nn

from foundling.errors import ParameterError
from foundling.training.checkpoints import beside
from foundling.training.loop import Outcome, carry_out
from foundling.training.settings import Steps, settings_from
from foundling.training.task import Task

POINTS = torch.tensor([[0.0, 1.0], [1.0, 3.0], [2.0, 2.0], [3.0, 5.0], [4.0, 4.0], [5.0, 9.0]])


class Points:
    """Six points; notes which were asked for."""

    identity = "six points"

    def __init__(self) -> None:
        self.asked: list[tuple[int, ...]] = []

    def __len__(self) -> int:
        return len(POINTS)

    def batches(self, plan: Iterable[Sequence[int]]) -> Iterator[Tensor]:
        for positions in plan:
            self.asked.append(tuple(positions))
            yield POINTS[list(positions)]


class Line(Task):
    """y = slope x, by least squares; plain gradient descent."""

    def __init__(self, accelerator: Accelerator) -> None:
        super().__init__()
        self.slope = nn.Parameter(torch.zeros((), device=accelerator.device))
        self.steps: list[int] = []
        self.draws: list[float] = []

    def make_views(self, batch: Any, generator: Generator) -> Any:
        self.draws.append(float(torch.rand((), generator=generator)))
        return batch

    def forward(self, views: Any) -> dict[str, Tensor]:
        x, y = views.T
        return {"loss": (self.slope * x - y).square().mean()}

    def after_step(self, step: int) -> None:
        self.steps.append(step)

    def make_optimiser(self, settings: Steps) -> torch.optim.Optimizer:
        return torch.optim.SGD([{"params": [self.slope], "rate": 0.5}])

    def learning_rate(self, step: int, settings: Steps) -> float:
        return settings.learning_rate / (1 + step)

    def export(self, run: Any, file: Path) -> None:
        save_file({"slope": self.slope.detach().clone()}, file)


def go(out: Path, **changes: Any) -> tuple[Outcome, Line, Points]:
    settings = Steps(
        **{"objective": "line", "steps": 3, "batch": 4, "warmup": 0, "learning_rate": 0.1, "clip": 0.0, **changes}
    )
    made: list[Any] = []

    def prepare(accelerator: Accelerator) -> tuple[Task, Points]:
        made.extend((Line(accelerator), Points()))
        return made[0], made[1]

    return carry_out(settings, out, prepare, progress=False, cpu=True), made[0], made[1]


def by_hand(batches: Sequence[Sequence[int]]) -> float:
    """Gradient descent with half of 0.1 / (1 + step) on these batches."""
    slope = 0.0
    for step, positions in enumerate(batches):
        x, y = POINTS[list(positions)].double().numpy().T
        slope -= 0.05 / (1 + step) * float(np.mean(2 * (slope * x - y) * x))
    return slope


def test_a_task_has_its_own_optimiser_rates_and_export(tmp_path: Path) -> None:
    outcome, line, points = go(tmp_path / "a", export_at=[1])
    assert outcome.finished and line.steps == [0, 1, 2]
    assert [len(positions) for positions in points.asked] == [4, 4, 4]
    assert line.slope.item() == pytest.approx(by_hand(points.asked), rel=1e-5)
    assert float(load_file(outcome.file)["slope"]) == line.slope.item()
    first = load_file(beside(tmp_path / "a", "_1.safetensors"))["slope"]
    assert float(first) == pytest.approx(by_hand(points.asked[:1]), rel=1e-5)
    assert outcome.history[-1]["learning_rate"] == pytest.approx(0.1 / 3)
    assert 0 <= outcome.history[-1]["waiting"] <= 1


def test_a_file_that_does_not_say_whose_it_is_is_exported_at_every_call(tmp_path: Path) -> None:
    first, line, _ = go(tmp_path / "a")
    save_file({"slope": torch.zeros(())}, first.file)
    again, _, points = go(tmp_path / "a")
    assert again.finished and points.asked == []
    assert float(load_file(again.file)["slope"]) == line.slope.item()


@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_in_parts_gives_the_gradient_of_the_whole(tmp_path: Path, parts: int) -> None:
    whole, line, points = go(tmp_path / "whole", log_every=1)
    split, other, asked = go(tmp_path / "split", log_every=1, accumulate=parts)
    assert other.slope.item() == pytest.approx(line.slope.item(), rel=1e-5)
    assert [row["loss"] for row in split.history] == pytest.approx([row["loss"] for row in whole.history], rel=1e-5)
    assert [row["gradient_norm"] for row in split.history] == pytest.approx(
        [row["gradient_norm"] for row in whole.history], rel=1e-5
    )
    assert [len(positions) for positions in asked.asked] == [4 // parts] * 3 * parts
    assert [p for part in asked.asked for p in part] == [p for batch in points.asked for p in batch]
    assert len(set(other.draws)) == 3 * parts and other.draws[::parts] == line.draws


def test_a_batch_that_cannot_be_taken_in_equal_parts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"accumulate = 3 does not divide the 4 images that a process has"):
        go(tmp_path / "a", accumulate=3)


def test_a_loss_over_the_whole_batch_takes_no_parts() -> None:
    with pytest.raises(ParameterError, match="accumulate = 2 must be 1"):
        settings_from({"objective": "odin", "accumulate": 2}, "a.yaml")
