"""Statistics of batch normalisation over many batches, in place of the moving averages of training ("precise")."""

import copy
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)
BATCH_NORM = nn.modules.batchnorm._BatchNorm


@torch.no_grad()
def with_precise_norms(network: Network, batches: Iterable[Any], run: Callable[[Network, Any], Any]) -> Network:
    """A copy of ``network``, in training mode, whose norms hold mean and variance of all that ``batches`` show them.

    ``run(copy, batch)`` shows the copy one batch; a norm that sees none keeps what it has. A batch counts by what a
    norm sees of it, and variances are about the common mean, as Detectron2's PreciseBN has it (fvcore, since before
    LOST). The copy is one of this process alone: norms that were synchronised over processes are ordinary ones in it.
    """
    settled = alone(copy.deepcopy(network)).train()
    pooled = {part: Pooled(part) for part in settled.modules() if isinstance(part, BATCH_NORM)}
    hooks = [norm.register_forward_pre_hook(pool.look) for norm, pool in pooled.items()]
    momenta = {norm: norm.momentum for norm in pooled}
    for norm in pooled:
        norm.momentum = 1.0  # running statistics are then those of the batch
    for batch in batches:
        run(settled, batch)
        for pool in pooled.values():
            pool.add()
    for hook in hooks:
        hook.remove()
    for norm, pool in pooled.items():
        pool.finish()
        norm.momentum = momenta[norm]
    return settled


class Pooled:
    """The mean and variance of all values of a channel that a norm has seen, from those of the batches."""

    def __init__(self, norm: Any) -> None:
        self.norm, self.seen, self.count = norm, 0, 0
        self.tracked = norm.num_batches_tracked.clone()
        self.mean = self.square = torch.zeros_like(norm.running_mean, dtype=torch.float64)

    def look(self, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """Called before a batch goes through the norm: how many values of each channel it has."""
        self.seen = inputs[0].numel() // inputs[0].shape[1]

    def add(self) -> None:
        """Count what was seen last, if anything was; the norm's variance divides by one value less than there are."""
        if not self.seen:
            return
        mean, variance = self.norm.running_mean.double(), self.norm.running_var.double()
        square = mean**2 + variance * (self.seen - 1) / self.seen
        self.count += self.seen
        self.mean = self.mean + (mean - self.mean) * self.seen / self.count
        self.square = self.square + (square - self.square) * self.seen / self.count
        self.seen = 0

    def finish(self) -> None:
        """Hand the norm what was found; its counter stays."""
        self.norm.num_batches_tracked.copy_(self.tracked)
        if self.count:
            self.norm.running_mean.copy_(self.mean)
            self.norm.running_var.copy_(self.square - self.mean**2)


def alone(module: Any) -> Any:
    """The module, its norms synchronised over processes replaced by ordinary ones with the same tensors."""
    if isinstance(module, nn.SyncBatchNorm):
        norm = nn.BatchNorm2d(module.num_features, module.eps, module.momentum, module.affine)
        norm.load_state_dict(module.state_dict())
        return norm.to(module.running_mean.device if module.running_mean is not None else "cpu")
    for name, child in module.named_children():
        if (changed := alone(child)) is not child:
            setattr(module, name, changed)
    return module
