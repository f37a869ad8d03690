"""What the training loop moves: networks with a loss, whatever they learn, and from whatever labels."""

from collections.abc import Generator as Going
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Generator, Tensor, nn

from foundling.training import checkpoints
from foundling.training.optimiser import learning_rate, make_optimiser
from foundling.training.settings import Steps

if TYPE_CHECKING:
    from foundling.training.running import Row, Run


class Images(Protocol):
    """The training set of a run: it has a length, a name, and gives batches."""

    identity: str
    """Says which images, and which labels, these are: a run does not go on with others."""

    def __len__(self) -> int: ...

    def batches(self, plan: Iterable[Sequence[int]]) -> Going[Any, None, None]:
        """A batch, on the run's device, for every list of positions in ``plan``, read ahead."""
        ...


class Task(nn.Module):
    """Networks and a loss. The loop draws a batch and then calls, in this order and once a step::

        task.begin_step(step)                       # its number, from 0
        views = task.make_views(batch, generator)   # no gradient; may run ahead of the step
        parts = task(views)                         # through DistributedDataParallel, mixed precision
        parts["loss"].backward()
        optimiser.step()                            # unless parts["skipped"] is there and not 0
        task.after_step(step)                       # likewise

    Where the settings say ``accumulate`` = n, the next three are called n times, each on an nth of the batch, and the
    gradients are averaged. PyTorch's own random numbers are seeded anew at every step. ``state_dict()`` holds all that
    a resumed run needs of the task. Parameters without ``requires_grad`` are no business of the optimiser's.
    """

    def begin_step(self, step: int) -> None:
        """Called before the views of step number ``step`` (from 0) are made."""

    def make_views(self, batch: Any, generator: Generator) -> Any:
        """The networks' inputs of one step, from a batch of the training set, on its device.

        All random numbers come from ``generator``, on the CPU, so that every device draws the same views.
        """
        raise NotImplementedError

    def forward(self, views: Any) -> dict[str, Tensor]:
        """Scalars of one step: ``loss`` is minimised, the others are for the log.

        A ``skipped`` that is not 0 says that these views hold nothing to learn from (the loss is then 0 and has a zero
        gradient): the optimiser and ``after_step`` are not to be called. All processes of a run say the same.
        """
        raise NotImplementedError

    def after_step(self, step: int) -> None:
        """Moving averages, after the optimiser has done step number ``step`` (from 0)."""

    def begin_epoch(self, epoch: int, images: Any) -> None:
        """Called before the first step of each epoch (from 0), and again when a run resumes within one."""

    def to_compile(self) -> list[nn.Module]:
        """The modules that ``compile`` compiles: they do most of the work, and a step reaches them by their call.

        What reaches a method of a module, or a part of it, passes by what was compiled.
        """
        return []

    def make_optimiser(self, settings: Any) -> torch.optim.Optimizer:
        """The optimiser over what is trained; its groups' learning rates are set at every step."""
        return make_optimiser(self, settings)

    def learning_rate(self, step: int, settings: Steps) -> float:
        """The learning rate of step number ``step``, from 0; a group with a ``rate`` takes that many times it."""
        return learning_rate(step, settings)

    def is_look_due(self, run: "Run") -> bool:
        """Whether the row of the history after this step is to have what :meth:`look` sees."""
        return False

    def look(self, run: "Run") -> "Row":
        """What the history says of the networks themselves, beyond the losses; called in the main process alone."""
        return {}

    def export(self, run: "Run", file: Path) -> None:
        """Write what is of use after training to ``file``, as safetensors; called in the main process alone."""
        raise NotImplementedError

    def is_exported(self, run: "Run", file: Path) -> bool:
        """Whether :meth:`export` has nothing to add; it is asked of runs that had ended before they were called."""
        return checkpoints.is_exported(file, run.settings, run.done, run.images.identity)
