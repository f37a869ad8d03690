"""The training loop: one for all objectives, on a CPU, a GPU, or many of them on many machines (accelerate).

Step number s is a function of the networks, the settings, s and the number of processes: its images are those of
:func:`foundling.training.data.order`, and every random number is drawn from a seed made of these. A run that was
killed goes on from its last state as if nothing had happened; on a CPU, to the last bit.
"""

import math
import sys
import time
import warnings
from collections.abc import Generator as Going
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor
from tqdm import tqdm

from foundling.errors import TrainingError
from foundling.training import checkpoints
from foundling.training.batches import Batch
from foundling.training.checkpoints import beside
from foundling.training.data import order
from foundling.training.exports import export_dense, export_run
from foundling.training.monitor import COLLAPSED, Spread, watch
from foundling.training.optimiser import learning_rate
from foundling.training.running import Row, Run, make_accelerator, open_run
from foundling.training.settings import Common


class Outcome(NamedTuple):
    """What a call of :func:`train` leaves: whether all steps are done, how many, the exported file, the history."""

    finished: bool
    steps: int
    file: Path
    history: list[Row]


def train(settings: Common, out: Path, minutes: float = math.inf, progress: bool = True, cpu: bool = False) -> Outcome:
    """Train, or go on training, and export the network.

    ``out`` names the run: ``out.safetensors`` is the backbone in half precision under timm's names, ``out.state``
    what a later call goes on from, ``out.history.csv`` the losses and the look for collapse; where a feature pyramid
    was trained, or the settings ask for it, ``out_dense.safetensors`` is the whole network and its projector.
    ``minutes`` bounds this call and not the schedule: call again to go on. ``progress`` shows a bar on stderr; ``cpu``
    leaves a GPU alone.

    Raises ParameterError and WeightsError if ``out.state`` is of another run, or damaged; TrainingError if the loss or
    its gradient is no number: the last state stays; or if processes would go on from different steps; FoundlingError
    if the disk is full: the last state stays.
    """
    start = time.monotonic()
    accelerator = make_accelerator(settings, cpu)
    devices = [accelerator.device] if accelerator.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        run = open_run(settings, out, accelerator)
        with closing(_steps(run, start + 60 * minutes)) as steps, _bar(run, progress) as bar:
            for _ in steps:
                bar.set_postfix_str(describe(run), refresh=False)
                bar.update()
        _save(run)
        file = beside(out, ".safetensors")
        if accelerator.is_main_process:
            export_run(run, file)
            export_dense(run)
        accelerator.wait_for_everyone()
    return Outcome(run.done == settings.steps, run.done, file, run.history)


def _steps(run: Run, deadline: float) -> Going[int, None, None]:
    """Do the steps that are left, until ``deadline`` (monotonic seconds); yields after each, once all is written."""
    settings, accelerator = run.settings, run.accelerator
    if run.done == settings.steps:
        return
    first, rank, share = run.done, accelerator.process_index, settings.batch // accelerator.num_processes
    chosen = order(len(run.images), settings.batch, settings.seed, first, settings.steps)
    batches = run.images.batches(indices[rank * share : (rank + 1) * share] for indices in chosen)
    with closing(batches):
        batch, clock = next(batches), time.monotonic()
        for step in range(first, settings.steps):
            if step % run.epoch_steps == 0 or step == first:
                with torch.no_grad():
                    run.objective.begin_epoch(step // run.epoch_steps, run.images)
            names, values = find_gradient(run, batch, step)
            batch = next(batches, batch)  # while a GPU is at work on the step
            now = time.monotonic()
            late = values.new_tensor([now > deadline])  # for one process means for all
            *means, over = accelerator.reduce(torch.cat([values, late]), "mean").tolist()
            row = dict(zip(names, means, strict=True))
            check_finite(run, row, step)
            move(run, row, step)
            run.done = step + 1
            run.pending.append({**row, "step_seconds": now - clock})
            run.seconds, clock = run.seconds + now - clock, now
            _write_down(run)
            yield run.done
            if over:
                return


def seed_of(*numbers: int) -> int:
    """A seed of 63 bits that depends on all of ``numbers`` (0 or more each)."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def find_gradient(run: Run, batch: Batch, step: int) -> tuple[list[str], Tensor]:
    """The first half of step number ``step``, on this process's share of the batch: the clipped gradient.

    No parameter has moved yet. Returns names and values of what is to be logged, the values on the device.
    """
    settings = run.settings
    seed = seed_of(settings.seed, step, run.accelerator.process_index)
    torch.manual_seed(seed)  # for whatever is random inside the networks
    with torch.no_grad():
        views = run.objective.make_views(batch, Generator().manual_seed(seed))
    parts: dict[str, Tensor] = run.model(views)
    run.accelerator.backward(parts["loss"])
    trained = [p for group in run.optimiser.param_groups for p in group["params"]]
    norm = run.accelerator.clip_grad_norm_(trained, settings.clip or math.inf)
    logged = {**parts, "gradient_norm": torch.as_tensor(norm)}
    return list(logged), torch.stack([v.detach().float().to(parts["loss"].device) for v in logged.values()])


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
            group["lr"] = learning_rate(step, run.settings)
        run.optimiser.step()
        run.objective.after_step(step)
    run.optimiser.zero_grad()


def _write_down(run: Run) -> None:
    """The row, the state and the networks that are due after a step."""
    settings, done = run.settings, run.done
    last = done == settings.steps
    looked = last or done == 1 or done % settings.monitor_every == 0
    if looked or done % settings.log_every == 0:
        spread = _watch(run) if looked and run.accelerator.is_main_process else None
        run.history.append(summarise(run, spread))
        run.pending.clear()
    if done in settings.export_at and run.accelerator.is_main_process:
        export_run(run, beside(run.out, f"_{done}.safetensors"))
    if done % settings.save_every == 0:
        _save(run)


def _watch(run: Run) -> Spread:
    with run.accelerator.autocast():
        spread = watch(run.objective.network, run.probes)
    before = last_look(run)
    if spread.feature_variance < COLLAPSED and (before is None or before["feature_variance"] >= COLLAPSED):
        warnings.warn(
            f"step {run.done}: the features have collapsed: their variance is {spread.feature_variance:.2g} (of 1)",
            stacklevel=2,
        )
    return spread


def last_look(run: Run) -> Row | None:
    """The last row of the history that has a look for collapse."""
    return next((row for row in reversed(run.history) if "feature_variance" in row), None)


def summarise(run: Run, spread: Spread | None) -> Row:
    """A row of the history: the means over the pending steps (over those not skipped, if any), their speed, the look
    for collapse."""
    pending = run.pending
    counted = [row for row in pending if not row.get("skipped")] or pending
    names = [name for name in pending[0] if name not in ("skipped", "step_seconds")]
    row: Row = {"step": run.done, **{name: float(np.mean([r[name] for r in counted])) for name in names}}
    row["skipped"] = sum(bool(r.get("skipped")) for r in pending)
    row["learning_rate"] = learning_rate(run.done - 1, run.settings)
    row["images_per_second"] = run.settings.batch * len(pending) / sum(r["step_seconds"] for r in pending)
    row["seconds"] = run.seconds
    return {**row, **(spread._asdict() if spread else {})}


def _save(run: Run) -> None:
    if not run.accelerator.is_main_process:
        return
    state = {
        "objective": run.objective.state_dict(),
        "optimiser": run.optimiser.state_dict(),
        **{name: getattr(run, name) for name in checkpoints.PROGRESS},
    }
    checkpoints.save_state(beside(run.out, ".state"), state, run.settings, run.images.identity)
    checkpoints.write_history(beside(run.out, ".history.csv"), run.history)


def describe(run: Run) -> str:
    """One line on where the run is: loss, speed, and the last look for collapse."""
    steps = run.pending or run.history[-1:]
    last = steps[-1]
    rate = run.settings.batch / last["step_seconds"] if "step_seconds" in last else last["images_per_second"]
    text = f"loss {last['loss']:.3f}, {rate:.0f} images/s"
    if look := last_look(run):
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
