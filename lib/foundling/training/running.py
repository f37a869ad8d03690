"""A run while it goes on: what moves, and how it is made or found again."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from accelerate.state import AcceleratorState
from torch import nn

from foundling.errors import ParameterError, TrainingError
from foundling.training import checkpoints
from foundling.training.checkpoints import beside
from foundling.training.networks import fit_to_device
from foundling.training.processes import gather
from foundling.training.settings import Steps
from foundling.training.task import Task

PATIENCE = timedelta(hours=4)  # of the other processes, while one makes the images

Row = dict[str, Any]
Prepare = Callable[[Accelerator], tuple[Task, Any]]  # makes the task, on any device, and its images, on the run's


@dataclass
class Run:
    """All that moves while a run goes on."""

    settings: Any  # a Steps
    out: Path
    accelerator: Accelerator
    images: Any  # task.Images, and what else the task asks of them
    task: Any  # a Task
    model: nn.Module  # the task as accelerate wraps it
    optimiser: torch.optim.Optimizer
    done: int = 0
    seconds: float = 0.0
    history: list[Row] = field(default_factory=list)
    pending: list[Row] = field(default_factory=list)  # steps since the last row of the history

    @property
    def epoch_steps(self) -> int:
        return len(self.images) // self.settings.batch


def make_accelerator(settings: Steps, cpu: bool = False) -> Accelerator:
    """Devices and processes as `accelerate launch` set them up; one device without it.

    Batch statistics are those of all processes on GPUs; on CPUs each process has its own, and the running statistics
    are those of process 0, which the others take over before every step.
    """
    # One process may train several times, at other precisions; accelerate's own state would refuse.
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    cpu = cpu or not torch.cuda.is_available()
    handlers = [InitProcessGroupKwargs(timeout=PATIENCE), DistributedDataParallelKwargs(broadcast_buffers=cpu)]
    precision = "bf16" if settings.precision == "bf16" else "no"
    accelerator = Accelerator(mixed_precision=precision, cpu=cpu, kwargs_handlers=handlers)
    if settings.batch % accelerator.num_processes:
        raise ParameterError(
            f"batch = {settings.batch} cannot be shared among {accelerator.num_processes} processes: use a multiple"
        )
    if settings.batch // accelerator.num_processes % settings.accumulate:
        raise ParameterError(
            f"accumulate = {settings.accumulate} does not divide the {settings.batch // accelerator.num_processes} "
            "images that a process has of every batch: use a divisor"
        )
    return accelerator


def open_run(settings: Steps, out: Path, accelerator: Accelerator, prepare: Prepare) -> Run:
    """The task, its images and its optimiser, at the last state if there is one.

    Raises ParameterError and WeightsError if that state is of another run or damaged, TrainingError if the processes
    found different ones.
    """
    torch.manual_seed(settings.seed)
    with accelerator.main_process_first():  # it draws or decodes what is kept, the others read it
        task, images = prepare(accelerator)
    fit_to_device(task, accelerator.device, accelerator.num_processes)
    task.train()
    optimiser = task.make_optimiser(settings)
    file = beside(out, ".state")
    state = checkpoints.load_state(file, settings, images.identity)
    progress = {} if state is None else checkpoints.restore(file, state, task, optimiser)
    check_together(file, progress.get("done", 0), accelerator.device)
    if settings.compile:
        for module in task.to_compile():
            module.compile()
    return Run(settings, out, accelerator, images, task, accelerator.prepare_model(task), optimiser, **progress)


def check_together(file: Path, done: int, device: torch.device) -> None:
    """Raises TrainingError, in every process, if they would go on from different steps (``done`` in this one)."""
    steps: list[int] = gather(torch.tensor([done], device=device)).tolist()
    if len(set(steps)) == 1:
        return
    found = ", ".join(f"process {steps.index(step)} from step {step}" for step in dict.fromkeys(steps))
    raise TrainingError(
        f"the processes would go on from different steps ({found}): they do not see the same {file}, which "
        "process 0 writes. Put --out on a disk that all machines share, or copy the file of process 0 to the others"
    )


def spread_over(count: int, most: int) -> list[int]:
    """``most`` positions, or fewer, that lie evenly among ``count``."""
    return np.linspace(0, count - 1, min(most, count)).round().astype(int).tolist()
