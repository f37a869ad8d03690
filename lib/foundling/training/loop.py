"""The training loop: one for all tasks, on a CPU, a GPU, or many of them on many machines (accelerate).

Step number s is a function of the networks, the settings, s and the number of processes: its images are those of
:func:`foundling.training.data.order`, and every random number is drawn from a seed made of these. A run that was
killed goes on from its last state as if nothing had happened; on a CPU, to the last bit.
"""

import math
import sys
import time
from collections.abc import Generator as Going
from collections.abc import Iterator
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor
from tqdm import tqdm

from foundling.errors import TrainingError
from foundling.training import checkpoints
from foundling.training.checkpoints import beside
from foundling.training.data import order
from foundling.training.running import Prepare, Row, Run, make_accelerator, open_run
from foundling.training.settings import Steps

TOLD = ("skipped", "step_seconds", "waiting_seconds")  # of a step, beside what its task logs


class Outcome(NamedTuple):
    """What a call of :func:`carry_out` leaves: whether all steps are done, how many, the exported file, the history."""

    finished: bool
    steps: int
    file: Path
    history: list[Row]


def carry_out(
    settings: Steps, out: Path, prepare: Prepare, minutes: float = math.inf, progress: bool = True, cpu: bool = False
) -> Outcome:
    """Train, or go on training, and export what was trained.

    ``out`` names the run: ``out.safetensors`` is what the task exports, ``out.state`` what a later call goes on from,
    ``out.history.csv`` the losses. ``prepare(accelerator)`` makes the task and its training set
    (:class:`~foundling.training.task.Task`, :class:`~foundling.training.task.Images`); PyTorch's generator has been
    seeded. ``minutes`` bounds this call and not the schedule: call again to go on. ``progress`` shows a bar on stderr;
    ``cpu`` leaves a GPU alone. A run that has ended, and whose files are all there, is left as it is.

    Raises ParameterError and WeightsError if ``out.state`` is of another run, or damaged; TrainingError if the loss or
    its gradient is no number: the last state stays; or if processes would go on from different steps; FoundlingError
    if the disk is full: the last state stays.
    """
    start = time.monotonic()
    accelerator = make_accelerator(settings, cpu)
    devices = [accelerator.device] if accelerator.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        run = open_run(settings, out, accelerator, prepare)
        first, file = run.done, beside(out, ".safetensors")
        with closing(_steps(run, start + 60 * minutes)) as steps, _bar(run, progress) as bar:
            for _ in steps:
                bar.set_postfix_str(describe(run), refresh=False)
                bar.update()
        if accelerator.is_main_process and not (first == settings.steps and _is_complete(run, file)):
            _save(run)
            run.task.export(run, file)
        accelerator.wait_for_everyone()
    return Outcome(run.done == settings.steps, run.done, file, run.history)


def _steps(run: Run, deadline: float) -> Going[int, None, None]:
    """Do the steps that are left, until ``deadline`` (monotonic seconds); yields after each, once all is written."""
    settings, accelerator = run.settings, run.accelerator
    if run.done == settings.steps:
        return
    first = run.done
    batches = run.images.batches(plan(run, first))
    with closing(batches):
        batch, clock, waiting = take(batches, settings.accumulate), time.monotonic(), 0.0
        for step in range(first, settings.steps):
            if step % run.epoch_steps == 0 or step == first:
                with torch.no_grad():
                    run.task.begin_epoch(step // run.epoch_steps, run.images)
            names, values = find_gradient(run, batch, step)
            asked = time.monotonic()
            batch = take(batches, settings.accumulate)  # while a GPU is at work on the step
            waiting = time.monotonic() - asked
            late = values.new_tensor([time.monotonic() > deadline])  # for one process means for all
            *means, over = accelerator.reduce(torch.cat([values, late]), "mean").tolist()
            row = dict(zip(names, means, strict=True))
            check_finite(run, row, step)
            move(run, row, step)
            now = time.monotonic()
            run.done = step + 1
            run.pending.append({**row, "step_seconds": now - clock, "waiting_seconds": waiting})
            run.seconds, clock = run.seconds + now - clock, now
            _write_down(run)
            yield run.done
            if over:
                return


def plan(run: Run, first: int) -> Iterator[tuple[int, ...]]:
    """The positions of this process's images in every part of every batch, from step ``first`` on."""
    settings, rank = run.settings, run.accelerator.process_index
    share = settings.batch // run.accelerator.num_processes
    part = share // settings.accumulate
    for indices in order(len(run.images), settings.batch, settings.seed, first, settings.steps):
        mine = indices[rank * share : (rank + 1) * share]
        yield from (mine[start : start + part] for start in range(0, share, part))


def take(batches: Iterator[Any], parts: int) -> list[Any]:
    """The next ``parts`` batches; none once there are no more."""
    return [batch for _, batch in zip(range(parts), batches, strict=False)]


def seed_of(*numbers: int) -> int:
    """A seed of 63 bits that depends on all of ``numbers`` (0 or more each)."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def find_gradient(run: Run, batch: list[Any], step: int) -> tuple[list[str], Tensor]:
    """The first half of step number ``step``, on this process's share of the batch: the clipped gradient.

    ``batch`` holds the parts that it is taken in. No parameter has moved yet. Returns names and values of what is to
    be logged, the means over the parts, the values on the device.
    """
    settings, logged = run.settings, []
    run.task.begin_step(step)
    for number, part in enumerate(batch):
        last = number == len(batch) - 1
        with nullcontext() if last else run.accelerator.no_sync(run.model):
            logged.append(_add_gradient(run, part, step, number, len(batch)))
    trained = [p for group in run.optimiser.param_groups for p in group["params"]]
    norm = run.accelerator.clip_grad_norm_(trained, settings.clip or math.inf)
    means = {name: torch.stack([one[name] for one in logged]).mean(0) for name in logged[0]}
    if "skipped" in means:  # only if there was nothing to learn from in any part
        means["skipped"] = torch.stack([one["skipped"] for one in logged]).amin()
    means["gradient_norm"] = torch.as_tensor(norm).float().to(means["loss"].device)
    return list(means), torch.stack(list(means.values()))


def _add_gradient(run: Run, batch: Any, step: int, number: int, parts: int) -> dict[str, Tensor]:
    """Add the gradient of part ``number`` of a batch in ``parts``; returns what is to be logged of it."""
    seed = seed_of(run.settings.seed, step, run.accelerator.process_index, *([number] if number else []))
    torch.manual_seed(seed)  # for whatever is random inside the networks
    with torch.no_grad():
        views = run.task.make_views(batch, Generator().manual_seed(seed))
    logged: dict[str, Tensor] = run.model(views)
    run.accelerator.backward(logged["loss"] / parts)
    return {name: value.detach().float().to(logged["loss"].device) for name, value in logged.items()}


def check_finite(run: Run, row: Row, step: int) -> None:
    """Stop where the loss or its gradient is no number, before anything moves or is written.

    ``row`` holds means over the processes: all of them stop, or none.
    """
    if math.isfinite(row["loss"]) and math.isfinite(row["gradient_norm"]):
        return
    wrong = f"the loss is {row['loss']}"
    if math.isfinite(row["loss"]):
        wrong = f"the norm of the gradient is {row['gradient_norm']}, though the loss is finite"
    file = beside(run.out, ".state")
    kept = f"{file} still holds the last good state" if file.is_file() else "no state had been saved yet"
    parts = ", ".join(f"{name} {value:.4g}" for name, value in row.items())
    raise TrainingError(
        f"step {step + 1} of {run.settings.steps}: {wrong} ({parts}); training has stopped, and "
        f"{kept}. A lower learning_rate, a longer warmup, clip = 1 or precision = fp32 may help"
    )


def move(run: Run, row: Row, step: int) -> None:
    """The second half of a step: the optimiser, then the moving averages; neither if the step is to be skipped."""
    if not row.get("skipped"):
        for group in run.optimiser.param_groups:
            group["lr"] = run.task.learning_rate(step, run.settings) * group.get("rate", 1.0)
        run.optimiser.step()
        run.task.after_step(step)
    run.optimiser.zero_grad()


def _write_down(run: Run) -> None:
    """The row, the state and the networks that are due after a step."""
    settings, done = run.settings, run.done
    looked = run.task.is_look_due(run)
    if looked or done == settings.steps or done % settings.log_every == 0:
        seen = run.task.look(run) if looked and run.accelerator.is_main_process else {}
        run.history.append(summarise(run, seen))
        run.pending.clear()
    if done in settings.export_at and run.accelerator.is_main_process:
        run.task.export(run, beside(run.out, f"_{done}.safetensors"))
    if done % settings.save_every == 0:
        _save(run)


def summarise(run: Run, seen: Row) -> Row:
    """A row of the history: the means over the pending steps (over those not skipped, if any), their speed, the share
    (0 to 1) of their time in which the next images were waited for, and what was ``seen`` of the networks."""
    pending = run.pending
    counted = [row for row in pending if not row.get("skipped")] or pending
    names = [name for name in pending[0] if name not in TOLD]
    row: Row = {"step": run.done, **{name: float(np.mean([r[name] for r in counted])) for name in names}}
    row["skipped"] = sum(bool(r.get("skipped")) for r in pending)
    row["learning_rate"] = run.task.learning_rate(run.done - 1, run.settings)
    seconds = sum(r["step_seconds"] for r in pending)
    row["images_per_second"] = run.settings.batch * len(pending) / seconds
    row["waiting"] = sum(r["waiting_seconds"] for r in pending) / seconds
    row["seconds"] = run.seconds
    return {**row, **seen}


def _is_complete(run: Run, file: Path) -> bool:
    """Whether all that a run leaves is there: it may have been killed once its last state was saved."""
    return beside(run.out, ".history.csv").is_file() and bool(run.task.is_exported(run, file))


def _save(run: Run) -> None:
    if not run.accelerator.is_main_process:
        return
    state = {
        "task": run.task.state_dict(),
        "optimiser": run.optimiser.state_dict(),
        **{name: getattr(run, name) for name in checkpoints.PROGRESS},
    }
    checkpoints.save_state(beside(run.out, ".state"), state, run.settings, run.images.identity)
    checkpoints.write_history(beside(run.out, ".history.csv"), run.history)


def describe(run: Run) -> str:
    """One line on where the run is: loss, speed, and the last look for collapse, if the task is watched for one."""
    steps = run.pending or run.history[-1:]
    last = steps[-1]
    rate = run.settings.batch / last["step_seconds"] if "step_seconds" in last else last["images_per_second"]
    text = f"loss {last['loss']:.3f}, {rate:.0f} images/s"
    if look := next((row for row in reversed(run.history) if "feature_variance" in row), None):
        text += f", variance {look['feature_variance']:.2f}"
        text += f" (place {100 * look['by_position']:.0f} %, image {100 * look['by_image']:.0f} %)"
    return text


def _bar(run: Run, shown: bool) -> Any:
    return tqdm(
        total=run.settings.steps,
        initial=run.done,
        desc=run.settings.objective,
        unit="step",
        file=sys.stderr,
        mininterval=1 if sys.stderr.isatty() else 30,
        disable=not (shown and run.accelerator.is_local_main_process),
    )
