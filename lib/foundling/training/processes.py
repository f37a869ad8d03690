"""Processes that train together, through torch.distributed; a process that trains alone is the first of one."""

import torch
from torch import Tensor, distributed


def rank() -> int:
    """The number of this process among those that train together, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


@torch.no_grad()
def gather(values: Tensor) -> Tensor:
    """The same tensor of all processes, one after the other along the first axis; without gradient."""
    if world_size() == 1:
        return values.detach()
    parts = [torch.empty_like(values) for _ in range(world_size())]
    distributed.all_gather(parts, values.contiguous())
    return torch.cat(parts)


@torch.no_grad()
def add_up(values: Tensor) -> Tensor:
    """The sum of the same tensor of all processes."""
    return _combine(values, distributed.ReduceOp.SUM)


@torch.no_grad()
def largest(values: Tensor) -> Tensor:
    """The largest of the same tensor of all processes, place by place."""
    return _combine(values, distributed.ReduceOp.MAX)


def _combine(values: Tensor, how: distributed.ReduceOp.RedOpType) -> Tensor:
    result = values.detach().clone()
    if world_size() > 1:
        distributed.all_reduce(result, how)
    return result
