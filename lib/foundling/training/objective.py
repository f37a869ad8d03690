"""What an objective is: the one module that the training loop moves, whichever of the objectives it is."""

from typing import Any

from torch import Generator, Tensor, nn

from foundling.training.networks import DenseNetwork


class Objective(nn.Module):
    """Networks and a loss. The loop draws a batch and then calls, in this order and once a step::

        views = objective.make_views(batch, generator)   # no gradient; may run ahead of the step
        parts = objective(views)                         # through DistributedDataParallel, mixed precision
        parts["loss"].backward()
        optimiser.step()                                 # unless parts["skipped"] is there and not 0
        objective.after_step(step)                       # likewise

    ``state_dict()`` holds all that a resumed run needs of the objective. Parameters that follow others by an average
    have ``requires_grad`` off and are no business of the optimiser's.
    """

    network: DenseNetwork
    """The network being trained (theta's f): what is exported and evaluated."""

    def make_views(self, batch: Any, generator: Generator) -> Any:
        """The network's inputs of one step, from a :class:`~foundling.training.batches.Batch` on its device.

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
        """Called before the first step of each epoch (from 0), and again when a run resumes within one.

        ``images`` is the training set: ``len``, ``batch(indices) -> Batch``, and ``batches`` for many lists of indices.
        """

    def to_compile(self) -> list[nn.Module]:
        """The modules that ``compile`` compiles: they do most of the work, and a step reaches them by their call.

        What reaches a method of a module, or a part of it, passes by what was compiled.
        """
        return [self.network]

    def trained_parts(self) -> dict[str, nn.Module]:
        """What is of use after training, by the prefix of the names in ``<run>_dense.safetensors``.

        A module whose parameters were never trained has no place here.
        """
        return {"": self.network}
