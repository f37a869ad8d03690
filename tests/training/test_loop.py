"""The training loop: resuming, stopping, watching, what is written when; several processes."""

import csv
import socket
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_objective import TinyObjective, tiny, train_in_a_group, write_images

from foundling.errors import FoundlingError, ParameterError, TrainingError, WeightsError
from foundling.training import checkpoints, loop
from foundling.training.data import order
from foundling.training.loop import seed_of, spread_over, train

CLOCKED = ("seconds", "images_per_second")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_images(tmp_path / "photos")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[TinyObjective]:
    """The loop trains the tiny objective; every one that it makes is in the list."""
    objectives: list[TinyObjective] = []

    def make(settings: Any, count: int) -> TinyObjective:
        objectives.append(TinyObjective(settings, count))
        return objectives[-1]

    monkeypatch.setattr(loop, "make_objective", make)
    return objectives


def run(settings: Any, out: Path, **options: Any) -> loop.Outcome:
    return train(settings, out, progress=False, cpu=True, **options)


def curve(out: Path) -> list[dict[str, str]]:
    with checkpoints.beside(out, ".history.csv").open() as file:
        return [{k: v for k, v in row.items() if k not in CLOCKED} for row in csv.DictReader(file)]


def parameters(out: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoints.beside(out, ".state"), weights_only=True)["objective"]


def same(first: Path, second: Path) -> None:
    assert curve(first) == curve(second)
    one, other = parameters(first), parameters(second)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert first.with_suffix(".safetensors").read_bytes() == second.with_suffix(".safetensors").read_bytes()


# A whole run


@pytest.mark.usefixtures("made")
def test_a_run_leaves_its_files(photos: Path, tmp_path: Path) -> None:
    outcome = run(tiny(photos, export_at=[4], export_dense=True), tmp_path / "r" / "a")
    assert outcome[:3] == (True, 7, tmp_path / "r" / "a.safetensors")
    names = sorted(path.name for path in (tmp_path / "r").iterdir())
    assert names == ["a.history.csv", "a.safetensors", "a.state", "a_4.safetensors", "a_dense.safetensors"]
    rows = curve(tmp_path / "r" / "a")
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4, 6, 7]
    assert [bool(row["feature_variance"]) for row in rows] == [True, False, True, False, True, True]
    for row, kept in zip(outcome.history, rows, strict=True):
        assert row["twice"] == pytest.approx(2 * row["loss"]) and row["gradient_norm"] > 0
        assert row["images_per_second"] > 0 and float(kept["loss"]) == pytest.approx(row["loss"], rel=1e-5)
    backbone, dense = (load_file(tmp_path / "r" / f"a{end}.safetensors") for end in ("", "_dense"))
    assert {f"backbone.{name}" for name in backbone} == {n for n in dense if n.startswith("backbone.")}
    assert dense["projector.weight"].shape == (4, 12)
    assert any(not torch.equal(t, load_file(tmp_path / "r" / "a_4.safetensors")[n]) for n, t in backbone.items())


@pytest.mark.filterwarnings("ignore:.*features have collapsed")  # as they may: nothing in this loss forbids it
def test_training_lowers_the_loss(photos: Path, tmp_path: Path, made: list[TinyObjective]) -> None:
    history = run(tiny(photos, steps=40, learning_rate=0.1), tmp_path / "a").history
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]
    assert int(made[0].steps_done) == 40


def test_steps_see_the_images_that_the_order_says(photos: Path, tmp_path: Path, made: list[TinyObjective]) -> None:
    run(tiny(photos), tmp_path / "a")
    assert made[0].seen == [list(step) for step in order(10, 4, 0, 0, 7)]
    assert made[0].epochs == [0, 1, 2, 3]  # of two steps


@pytest.mark.usefixtures("made")
def test_a_row_is_the_mean_over_its_steps(photos: Path, tmp_path: Path) -> None:
    each = run(tiny(photos, log_every=1), tmp_path / "each").history
    some = run(tiny(photos), tmp_path / "some").history
    losses = [row["loss"] for row in each]
    assert [row["step"] for row in each] == list(range(1, 8))
    assert some[3]["step"] == 4 and some[4]["step"] == 6
    assert some[4]["loss"] == pytest.approx((losses[4] + losses[5]) / 2)


def test_a_convolutional_network_is_laid_out_by_channels_and_exported_with_its_pyramid(
    photos: Path, tmp_path: Path, made: list[TinyObjective]
) -> None:
    settings = tiny(photos, architecture="resnet18", options={}, image_side=32, steps=2, warmup=1)
    run(settings, tmp_path / "whole")
    weights = [p for p in made[0].parameters() if p.ndim == 4 and min(p.shape[1:]) > 1]
    assert weights and all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)
    dense = load_file(tmp_path / "whole_dense.safetensors")
    assert {name.split(".")[0] for name in dense} == {"backbone", "fpn", "projector"}
    for _ in range(2):
        run(settings, tmp_path / "parts", minutes=1e-9)
    same(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("options", [{}, {"architecture": "resnet18", "options": {}, "image_side": 32}])
def test_a_gpu_learns_what_a_cpu_learns(
    photos: Path, tmp_path: Path, made: list[TinyObjective], options: dict[str, Any]
) -> None:
    settings = tiny(photos, log_every=1, **options)
    slow = run(settings, tmp_path / "cpu").history
    fast = train(settings, tmp_path / "gpu", progress=False).history
    assert next(made[-1].parameters()).is_cuda
    assert fast[0]["loss"] == pytest.approx(slow[0]["loss"], rel=1e-2)
    assert [row["step"] for row in fast] == [row["step"] for row in slow]


# Resuming


def test_a_run_in_many_parts_equals_an_undisturbed_one(photos: Path, tmp_path: Path, made: list[TinyObjective]) -> None:
    run(tiny(photos), tmp_path / "whole")
    steps = []
    while not steps or steps[-1] < 7:
        steps.append(run(tiny(photos), tmp_path / "parts", minutes=1e-9).steps)
    assert steps == list(range(1, 8))
    assert run(tiny(photos), tmp_path / "parts").finished  # nothing is left to do
    same(tmp_path / "whole", tmp_path / "parts")
    assert [o.epochs for o in made[1:5]] == [[0], [0], [1], [1]]  # begun again with every part


@pytest.mark.parametrize("killed_at", [3, 5])
def test_a_killed_run_goes_on_from_its_last_state_to_the_same_curve(
    photos: Path, tmp_path: Path, made: list[TinyObjective], killed_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tiny(photos), tmp_path / "whole")
    do_step = loop.do_step

    def dies(run: Any, batch: Any, step: int) -> Any:
        if step == killed_at:
            raise KeyboardInterrupt
        return do_step(run, batch, step)

    monkeypatch.setattr(loop, "do_step", dies)
    with pytest.raises(KeyboardInterrupt):
        run(tiny(photos), tmp_path / "killed")
    monkeypatch.setattr(loop, "do_step", do_step)
    run(tiny(photos), tmp_path / "killed")
    assert made[-1].seen[0] == made[0].seen[killed_at - 1]  # saved every two steps
    same(tmp_path / "whole", tmp_path / "killed")


@pytest.mark.usefixtures("made")
def test_another_seed_gives_another_run(photos: Path, tmp_path: Path) -> None:
    losses = [run(tiny(photos, seed=s), tmp_path / f"{i}").history[-1]["loss"] for i, s in enumerate((0, 1, 0))]
    assert losses[0] == losses[2] != losses[1]


@pytest.mark.usefixtures("made")
def test_a_run_with_other_settings_or_another_network_is_refused(photos: Path, tmp_path: Path) -> None:
    run(tiny(photos), tmp_path / "a")
    with pytest.raises(ParameterError, match=r"a\.state belongs to a run with other settings \(batch = 4, not 5\)"):
        run(tiny(photos, batch=5), tmp_path / "a")
    with pytest.raises(WeightsError, match=r"a\.state holds another network"):
        run(tiny(photos, options={**tiny(photos).options, "depth": 2}), tmp_path / "a")


# What goes wrong


def prepared(made: list[TinyObjective], monkeypatch: pytest.MonkeyPatch, **values: Any) -> None:
    make = loop.make_objective

    def prepare(settings: Any, count: int) -> TinyObjective:
        objective = make(settings, count)
        for name, value in values.items():
            setattr(objective, name, value)
        return objective  # type: ignore[return-value]

    monkeypatch.setattr(loop, "make_objective", prepare)


def test_a_loss_that_is_no_number_stops_the_run_and_leaves_the_last_state(
    photos: Path, tmp_path: Path, made: list[TinyObjective], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tiny(photos), tmp_path / "calm")
    with monkeypatch.context() as patch:
        prepared(made, patch, nan_at=4)
        with pytest.raises(
            TrainingError, match=r"step 5 of 7: the loss is nan \(loss nan, .*a\.state still holds the last good state"
        ):
            run(tiny(photos), tmp_path / "a")
    state = torch.load(tmp_path / "a.state", weights_only=True)
    assert state["done"] == 4 and all(v.isfinite().all() for v in state["objective"].values())
    assert not (tmp_path / "a.safetensors").exists()
    run(tiny(photos), tmp_path / "a")
    same(tmp_path / "calm", tmp_path / "a")


def test_a_nan_before_the_first_state_says_so(
    photos: Path, tmp_path: Path, made: list[TinyObjective], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(made, monkeypatch, nan_at=0)
    with pytest.raises(TrainingError, match=r"step 1 of 7: .*no state had been saved yet\. A lower learning_rate"):
        run(tiny(photos), tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_a_step_that_is_skipped_changes_nothing_and_is_counted(
    photos: Path, tmp_path: Path, made: list[TinyObjective], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(made, monkeypatch, skip_at=2)
    after_steps: list[int] = []
    monkeypatch.setattr(TinyObjective, "after_step", lambda self, step: after_steps.append(step))
    do_step, states = loop.do_step, []

    def watched(run: Any, batch: Any, step: int) -> Any:
        run.objective.steps_done.fill_(step)
        result = do_step(run, batch, step)
        states.append({n: v.clone() for n, v in run.objective.named_parameters()})
        return result

    monkeypatch.setattr(loop, "do_step", watched)
    history = run(tiny(photos, log_every=4, monitor_every=100), tmp_path / "a").history
    assert after_steps == [0, 1, 3, 4, 5, 6]
    assert all(torch.equal(states[1][n], states[2][n]) for n in states[1])
    assert any(not torch.equal(states[0][n], states[1][n]) for n in states[1])
    assert [(row["step"], row["skipped"]) for row in history] == [(1, 0), (4, 1), (7, 0)]
    assert history[1]["loss"] > 0.4 * history[0]["loss"]  # the mean over two steps, not over three


def test_a_full_disk_stops_the_run_and_leaves_the_last_state(
    photos: Path, tmp_path: Path, made: list[TinyObjective], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tiny(photos), tmp_path / "calm")
    write, calls = Path.write_bytes, []

    def fills(path: Path, content: Any) -> int:
        calls.append(path.name)
        if sum(".a.state" in name for name in calls) == 2:
            write(path, bytes(content)[:1000])
            raise OSError(28, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", fills)
    with pytest.raises(FoundlingError, match=r"a\.state cannot be written \(No space left on device\): make room"):
        run(tiny(photos), tmp_path / "a")
    monkeypatch.setattr(Path, "write_bytes", write)
    assert torch.load(tmp_path / "a.state", weights_only=True)["done"] == 2
    run(tiny(photos), tmp_path / "a")
    same(tmp_path / "calm", tmp_path / "a")


def test_a_collapse_is_warned_of(
    photos: Path, tmp_path: Path, made: list[TinyObjective], monkeypatch: pytest.MonkeyPatch
) -> None:
    make = loop.make_objective

    def collapsed(settings: Any, count: int) -> Any:
        objective = make(settings, count)
        torch.nn.init.zeros_(objective.network.backbone.norm.weight)
        torch.nn.init.ones_(objective.network.backbone.norm.bias)
        return objective

    monkeypatch.setattr(loop, "make_objective", collapsed)
    with pytest.warns(UserWarning, match=r"step 1: the features have collapsed: their variance is") as caught:
        history = run(tiny(photos, learning_rate=1e-9), tmp_path / "a").history
    assert len(caught) == 1  # and not at every look
    assert history[-1]["feature_variance"] < 1e-3
    assert history[0]["feature_variance"] < 1e-3


def test_progress_shows_loss_speed_and_the_look_for_collapse(
    photos: Path, tmp_path: Path, made: list[TinyObjective], capsys: pytest.CaptureFixture[str]
) -> None:
    train(tiny(photos), tmp_path / "a", cpu=True)
    shown = capsys.readouterr().err
    assert "7/7" in shown and "loss " in shown and " images/s, variance 0." in shown and " %, image " in shown


def test_seeds_and_positions() -> None:
    seeds = {seed_of(a, b, c) for a in range(3) for b in range(3) for c in range(3)}
    assert len(seeds) == 27 and all(0 <= seed < 2**63 for seed in seeds)
    assert spread_over(10, 3) == [0, 4, 9] and spread_over(2, 5) == [0, 1]


# Several processes


@pytest.mark.slow  # 15 s, most of them for loading PyTorch once more
def test_two_processes_keep_the_same_parameters_and_share_every_batch(
    photos: Path, tmp_path: Path, unused_port: int
) -> None:
    context = get_context("forkserver")
    context.set_forkserver_preload(["foundling.training.loop"])
    processes = [
        context.Process(target=train_in_a_group, args=(rank, 2, unused_port, photos, tmp_path)) for rank in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=300)
    assert [process.exitcode for process in processes] == [0, 0]
    first, second = (torch.load(tmp_path / f"rank{i}.pt", weights_only=True) for i in (0, 1))
    assert first["steps"] == second["steps"] == [1, 7]
    assert all(torch.equal(first["state"][name], second["state"][name]) for name in first["state"])
    kept = parameters(tmp_path / "a")
    assert all(torch.equal(kept[name], value) for name, value in first["state"].items())
    assert first["losses"] == second["losses"]
    whole = list(order(10, 4, 0, 0, 7))
    for part, steps in enumerate(([0], range(1, 7))):
        shares = zip(first["seen"][part], second["seen"][part], strict=True)
        assert [one + other for one, other in shares] == [list(whole[step]) for step in steps]
    assert "batch = 5 cannot be shared among 2 processes: use a multiple" in first["refused"]


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
