"""Processes that train together, through torch.distributed; a process that trains alone is the first of one."""

import os

import torch
from torch import Tensor, distributed, nn


def rank() -> int:
    """The number of this process among those that train together, from 0."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def local_rank() -> int:
    """The number of this process among those of its machine, from 0, as what started it says; their ranks adjoin."""
    return int(os.environ.get("LOCAL_RANK", 0)) if distributed.is_initialized() else 0


@torch.no_grad()
def gather(values: Tensor) -> Tensor:
    """The same tensor of all processes, one after the other along the first axis; without gradient."""
    if world_size() == 1:
        return values.detach()
    parts = [torch.empty_like(values) for _ in range(world_size())]
    distributed.all_gather(parts, values.contiguous())
    return torch.cat(parts)


def gather_texts(text: str) -> list[str]:
    """The texts of all processes, by rank; returns once all have given theirs."""
    texts = [text] * world_size()
    if world_size() > 1:
        distributed.all_gather_object(texts, text)
    return texts


@torch.no_grad()
def take_over_buffers(module: nn.Module) -> None:
    """Give all processes the buffers that ``module`` has in process 0."""
    if world_size() > 1:
        for buffer in module.buffers():
            distributed.broadcast(buffer, 0)


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
