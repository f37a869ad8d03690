"""Statistics of batch normalisation over many batches, in place of the moving averages of training ("precise")."""

import copy
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)
BATCH_NORM = nn.modules.batchnorm._BatchNorm


@torch.no_grad()
def with_precise_norms(network: Network, batches: Iterable[Any], run: Callable[[Network, Any], Any]) -> Network:
    """A copy of ``network``, in training mode, whose norms hold the means over ``batches`` of the batches' statistics.

    ``run(copy, batch)`` shows the copy one batch. Means and variances are averaged, as Detectron2's PreciseBN does.
    The copy is one of this process alone: norms that were synchronised over processes are ordinary ones in it.
    """
    settled = alone(copy.deepcopy(network)).train()
    norms = [part for part in settled.modules() if isinstance(part, BATCH_NORM)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # PyTorch's way to say: the mean over all batches so far
    for batch in batches:
        run(settled, batch)
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
    return settled


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
