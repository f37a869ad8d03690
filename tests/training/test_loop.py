"""The training loop: what a step does, resuming, stopping, watching, what is written when; several processes."""

import copy
import csv
import math
import socket
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_objective import TinyObjective, tiny, train_in_a_group, write_images

from foundling.errors import FoundlingError, ParameterError, TrainingError, WeightsError
from foundling.training import checkpoints, loop, representation, task
from foundling.training.data import order
from foundling.training.loop import seed_of
from foundling.training.representation import train

CLOCKED = ("seconds", "images_per_second", "waiting")


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

    monkeypatch.setattr(representation, "make_objective", make)
    return objectives


def run(settings: Any, out: Path, **options: Any) -> loop.Outcome:
    return train(settings, out, progress=False, cpu=True, **options)


def curve(out: Path) -> list[dict[str, str]]:
    with checkpoints.beside(out, ".history.csv").open() as file:
        return [{k: v for k, v in row.items() if k not in CLOCKED} for row in csv.DictReader(file)]


def parameters(out: Path) -> dict[str, torch.Tensor]:
    return torch.load(checkpoints.beside(out, ".state"), weights_only=True)["task"]


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


# A step


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """The norm of the gradient that every step of the optimiser is given, and its learning rate."""
    seen: list[tuple[float, float]] = []
    make = task.make_optimiser

    def note(optimiser: torch.optim.Optimizer, *_: Any) -> None:
        gradients = [p.grad.flatten() for group in optimiser.param_groups for p in group["params"]]
        rates = {group["lr"] for group in optimiser.param_groups}
        assert len(rates) == 1
        seen.append((float(torch.cat(gradients).norm()), rates.pop()))

    def watched(*args: Any) -> torch.optim.Optimizer:
        optimiser = make(*args)
        optimiser.register_step_pre_hook(note)
        return optimiser

    monkeypatch.setattr(task, "make_optimiser", watched)
    return seen


@pytest.mark.usefixtures("made")
@pytest.mark.parametrize(("clip", "share"), [(0.0, None), (0.01, None), (None, 0.5)])
def test_the_gradient_is_clipped(
    photos: Path, tmp_path: Path, moves: list[tuple[float, float]], clip: float | None, share: float | None
) -> None:
    """To a norm of ``clip`` where it is longer: never with 0, at every step with 0.01, at some with half the first."""
    norms = [row["gradient_norm"] for row in run(tiny(photos, clip=0.0, log_every=1), tmp_path / "free").history]
    assert [norm for norm, _ in moves] == pytest.approx(norms, rel=1e-4) and min(norms) > 0.02
    moves.clear()
    clip = norms[0] * share if clip is None and share else clip
    history = run(tiny(photos, clip=clip, log_every=1), tmp_path / "clipped").history
    expected = [min(row["gradient_norm"], clip or math.inf) for row in history]
    assert [norm for norm, _ in moves] == pytest.approx(expected, rel=1e-3)


@pytest.mark.usefixtures("made")
def test_every_step_has_its_learning_rate(photos: Path, tmp_path: Path, moves: list[tuple[float, float]]) -> None:
    """Two steps of warm-up, then a cosine over the five others; resumed in its middle."""
    settings = tiny(photos, learning_rate=0.02)
    run(settings, tmp_path / "a", minutes=1e-9)
    run(settings, tmp_path / "a")
    cosine = [0.02 * (1 + math.cos(math.pi * i / 5)) / 2 for i in range(5)]
    assert [rate for _, rate in moves] == pytest.approx([0.01, 0.02, *cosine])


@pytest.mark.parametrize(("precision", "kind"), [("bf16", torch.bfloat16), ("fp32", torch.float32)])
def test_networks_compute_in_the_precision_of_the_settings(
    photos: Path, tmp_path: Path, made: list[TinyObjective], precision: str, kind: torch.dtype
) -> None:
    run(tiny(photos, steps=3, precision=precision), tmp_path / "a")
    assert made[0].precisions == [kind] * 3
    assert {p.dtype for p in made[0].parameters()} == {torch.float32}


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


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are exported."""
    names: list[str] = []
    export = checkpoints.export

    def note(file: Path, *rest: Any) -> None:
        names.append(file.name)
        export(file, *rest)

    monkeypatch.setattr(checkpoints, "export", note)
    return names


def stamps(out: Path) -> dict[str, int]:
    """When the files of a run were written."""
    return {path.name: path.stat().st_mtime_ns for path in out.parent.iterdir() if path.name.startswith(out.name)}


@pytest.mark.usefixtures("made")
def test_a_run_that_has_ended_is_left_as_it_is(photos: Path, tmp_path: Path, exports: list[str]) -> None:
    whole = run(tiny(photos), tmp_path / "a")
    before = stamps(tmp_path / "a")
    assert exports == ["a.safetensors"] and len(before) == 3
    again = run(tiny(photos, save_every=3), tmp_path / "a")  # no step depends on it
    assert again == whole and stamps(tmp_path / "a") == before and len(exports) == 1
    run(tiny(photos, export_dense=True), tmp_path / "a")  # another file is asked for
    assert exports[1:] == ["a.safetensors", "a_dense.safetensors"]
    (tmp_path / "a_dense.safetensors").unlink()
    run(tiny(photos, export_dense=True), tmp_path / "a")
    assert len(exports) == 5 and (tmp_path / "a_dense.safetensors").is_file()


@pytest.mark.usefixtures("made")
def test_what_a_run_that_has_ended_lacks_is_written(photos: Path, tmp_path: Path, exports: list[str]) -> None:
    run(tiny(photos, seed=1), tmp_path / "other")
    run(tiny(photos), tmp_path / "a")
    file, right = tmp_path / "a.safetensors", (tmp_path / "a.safetensors").read_bytes()
    for wrong in (None, right[:-9], b"", (tmp_path / "other.safetensors").read_bytes()):
        file.unlink()
        if wrong is not None:
            file.write_bytes(wrong)
        assert run(tiny(photos), tmp_path / "a").finished and file.read_bytes() == right
    assert len(exports) == 6
    (tmp_path / "a.history.csv").unlink()
    run(tiny(photos), tmp_path / "a")
    assert len(curve(tmp_path / "a")) == 6


@pytest.mark.usefixtures("made")
def test_a_run_killed_between_its_last_state_and_its_export_is_exported(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tiny(photos), tmp_path / "whole")
    run(tiny(photos), tmp_path / "a", minutes=1e-9)  # leaves an export of its first step
    export = checkpoints.export

    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "export", dies)
    with pytest.raises(KeyboardInterrupt):
        run(tiny(photos), tmp_path / "a")
    monkeypatch.setattr(checkpoints, "export", export)
    run(tiny(photos), tmp_path / "a")
    same(tmp_path / "whole", tmp_path / "a")


@pytest.mark.parametrize("killed_at", [3, 5])
def test_a_killed_run_goes_on_from_its_last_state_to_the_same_curve(
    photos: Path, tmp_path: Path, made: list[TinyObjective], killed_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tiny(photos), tmp_path / "whole")
    find_gradient = loop.find_gradient

    def dies(run: Any, batch: Any, step: int) -> Any:
        if step == killed_at:
            raise KeyboardInterrupt
        return find_gradient(run, batch, step)

    monkeypatch.setattr(loop, "find_gradient", dies)
    with pytest.raises(KeyboardInterrupt):
        run(tiny(photos), tmp_path / "killed")
    monkeypatch.setattr(loop, "find_gradient", find_gradient)
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


@pytest.mark.usefixtures("made")
def test_a_truncated_state_stops_before_anything_is_written(photos: Path, tmp_path: Path) -> None:
    run(tiny(photos), tmp_path / "a", minutes=1e-9)
    state = tmp_path / "a.state"
    state.write_bytes(state.read_bytes()[:-2000])
    before = state.read_bytes()
    with pytest.raises(WeightsError, match=r"a\.state is no state of a training run, or damaged .*: delete it"):
        run(tiny(photos), tmp_path / "a")
    assert state.read_bytes() == before
    state.unlink()
    assert run(tiny(photos), tmp_path / "a").finished


# What goes wrong


def prepared(made: list[TinyObjective], monkeypatch: pytest.MonkeyPatch, **values: Any) -> None:
    make = representation.make_objective

    def prepare(settings: Any, count: int) -> TinyObjective:
        objective = make(settings, count)
        for name, value in values.items():
            setattr(objective, name, value)
        return objective  # type: ignore[return-value]

    monkeypatch.setattr(representation, "make_objective", prepare)


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
    assert state["done"] == 4 and all(v.isfinite().all() for v in state["task"].values())
    assert not (tmp_path / "a.safetensors").exists()
    run(tiny(photos), tmp_path / "a")
    same(tmp_path / "calm", tmp_path / "a")


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_a_gradient_that_is_no_number_stops_the_run_before_anything_moves(
    photos: Path, tmp_path: Path, made: list[TinyObjective], monkeypatch: pytest.MonkeyPatch, bad: float
) -> None:
    """In the fourth step, one after a state was written."""
    run(tiny(photos), tmp_path / "calm")
    find_gradient, before = loop.find_gradient, {}

    def remember(run: Any, batch: Any, step: int) -> Any:
        before["networks"] = copy.deepcopy(run.task.state_dict())
        before["optimiser"] = copy.deepcopy(run.optimiser.state_dict()["state"])
        before["run"] = run
        return find_gradient(run, batch, step)

    with monkeypatch.context() as patch:
        prepared(made, patch, bad_at=3, bad=bad)
        patch.setattr(loop, "find_gradient", remember)
        with pytest.raises(
            TrainingError,
            match=r"step 4 of 7: the norm of the gradient is (inf|nan), though the loss is finite \(loss 0\..*"
            r"a\.state still holds the last good state\. A lower learning_rate",
        ):
            run(tiny(photos), tmp_path / "a")
    assert before["run"].done == 3 and before["optimiser"]
    assert all(torch.equal(v, before["networks"][n]) for n, v in made[1].state_dict().items())
    for number, moments in before["run"].optimiser.state_dict()["state"].items():
        assert all(torch.equal(value, before["optimiser"][number][name]) for name, value in moments.items())
    assert torch.load(tmp_path / "a.state", weights_only=True)["done"] == 2
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
    find_gradient, move, states = loop.find_gradient, loop.move, []

    def numbered(run: Any, batch: Any, step: int) -> Any:
        run.task.steps_done.fill_(step)
        return find_gradient(run, batch, step)

    def watched(run: Any, row: Any, step: int) -> None:
        move(run, row, step)
        states.append({n: v.clone() for n, v in run.task.named_parameters()})

    monkeypatch.setattr(loop, "find_gradient", numbered)
    monkeypatch.setattr(loop, "move", watched)
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
    make = representation.make_objective

    def collapsed(settings: Any, count: int) -> Any:
        objective = make(settings, count)
        torch.nn.init.zeros_(objective.network.backbone.norm.weight)
        torch.nn.init.ones_(objective.network.backbone.norm.bias)
        return objective

    monkeypatch.setattr(representation, "make_objective", collapsed)
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


def test_seeds() -> None:
    seeds = {seed_of(a, b, c) for a in range(3) for b in range(3) for c in range(3)}
    assert len(seeds) == 27 and all(0 <= seed < 2**63 for seed in seeds)


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
        process.kill()  # if it waits for another that has gone
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
    for seen in (first, second):
        assert "batch = 5 cannot be shared among 2 processes: use a multiple" in seen["uneven"]
        assert "different steps (process 0 from step 7, process 1 from step 0)" in seen["elsewhere"]
        assert "step 4 of 7: the norm of the gradient is " in seen["bad"]  # it is process 1's
        assert int(seen["stopped"]["steps_done"]) == 3
    assert all(torch.equal(first["stopped"][n], value) for n, value in second["stopped"].items())
    kept = parameters(tmp_path / "c")
    assert int(kept["steps_done"]) == 2 and all(v.isfinite().all() for v in first["stopped"].values())


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
