"""How a run is made: what is compiled, which states go together."""

from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import Block
from tiny_objective import TINY, write_images
from torch import nn

from foundling.errors import TrainingError
from foundling.training import running
from foundling.training.loop import find_gradient
from foundling.training.representation import prepare
from foundling.training.running import check_together, make_accelerator, open_run, spread_over
from foundling.training.settings import OBJECTIVES, settings_from

SIDES: dict[str, dict[str, Any]] = {
    "odin": {"masks": 3, "span_side": 16, "view_side": 16, "hidden": 8, "projection": 4},
    "dino": {"prototypes": 8, "hidden": 8, "bottleneck": 4, "global_side": 16, "local_side": 8, "local_crops": 2},
    "mae": {"view_side": 16, "decoder_width": 12, "decoder_depth": 2},
}


class Compiled:
    """``nn.Module.compile`` without a compiler: notes which modules' calls a step goes through, and what lies within.

    ``called`` counts the calls of compiled modules; ``blocks`` says of every transformer block that ran whether it
    ran within one.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.called: dict[nn.Module, int] = {}
        self.blocks: list[bool] = []
        self.depth = 0
        forward, compiled = Block.forward, self

        def block(module: Block, *args: Any, **kwargs: Any) -> Any:
            compiled.blocks.append(compiled.depth > 0)
            return forward(module, *args, **kwargs)

        monkeypatch.setattr(Block, "forward", block)
        monkeypatch.setattr(nn.Module, "compile", lambda module: compiled.add(module))

    def add(self, module: nn.Module) -> None:
        self.called[module] = 0

        def call(*args: Any, **kwargs: Any) -> Any:
            self.called[module] += 1
            self.depth += 1
            try:
                return module._call_impl(*args, **kwargs)
            finally:
                self.depth -= 1

        module._compiled_call_impl = call  # type: ignore[assignment]


@pytest.mark.parametrize("compiles", [True, False])
@pytest.mark.parametrize(("objective", "calls"), [("odin", [1, 2, 2]), ("dino", [1, 2]), ("mae", [1, 1])])
def test_what_is_compiled_does_the_work_of_a_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, objective: str, calls: list[int], compiles: bool
) -> None:
    """Odin sees two views with two networks and the spanning view with one; DINO's student sees two sizes of views."""
    photos, compiled = write_images(tmp_path / "photos"), Compiled(monkeypatch)
    values = {**TINY, "objective": objective, "root": str(photos), "compile": compiles, **SIDES[objective]}
    settings = settings_from(values, "a.yaml")
    run = open_run(settings, tmp_path / "a", make_accelerator(settings, cpu=True), prepare(settings))
    before = {name: value.clone() for name, value in run.task.named_parameters()}
    find_gradient(run, [run.images.batch(range(4))], 0)
    assert sorted(compiled.called.values()) == (calls if compiles else [])
    assert set(compiled.blocks) == {compiles} and len(compiled.blocks) >= sum(calls)
    assert all(torch.equal(value, before[name]) for name, value in run.task.named_parameters())
    assert set(run.task.state_dict()) >= set(before)  # under the names that they had


def test_every_objective_is_asked_what_it_compiles() -> None:
    assert SIDES.keys() == OBJECTIVES.keys()


def test_processes_that_would_go_on_from_different_steps_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    where = Path("runs/a.state"), 40, torch.device("cpu")
    monkeypatch.setattr(running, "gather", lambda done: done.repeat(4))
    check_together(*where)
    monkeypatch.setattr(running, "gather", lambda done: torch.tensor([40, 40, 0, 0]))
    with pytest.raises(
        TrainingError,
        match=r"different steps \(process 0 from step 40, process 2 from step 0\): .* the same runs/a\.state, which "
        r"process 0 writes\. Put --out on a disk that all machines share, or copy",
    ):
        check_together(*where)


def test_positions_lie_evenly() -> None:
    assert spread_over(10, 3) == [0, 4, 9] and spread_over(2, 5) == [0, 1]
