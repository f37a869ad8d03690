"""How a network that stands on a backbone is trained, and what its file says: for detectors and instance segmenters."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from foundling import provenance
from foundling.training import optimiser as optimisers
from foundling.training.running import Run

NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm, FrozenBatchNorm2d)


def make_optimiser(network: nn.Module, body: nn.Module, settings: Any) -> torch.optim.Optimizer:
    """SGD with momentum, or AdamW; norms are not decayed, and ``body``, a part of it, learns at its own rate."""
    norms = {id(p) for part in network.modules() if isinstance(part, NORMS) for p in part.parameters(recurse=False)}
    inner = {id(p) for p in body.parameters()}
    groups: list[dict[str, Any]] = []
    for in_body in (False, True):
        for in_norm in (False, True):
            chosen = [
                p
                for p in network.parameters()
                if p.requires_grad and (id(p) in inner) == in_body and (id(p) in norms) == in_norm
            ]
            decay, rate = 0.0 if in_norm else settings.weight_decay, settings.backbone_rate if in_body else 1.0
            if chosen:
                groups.append({"params": chosen, "weight_decay": decay, "rate": rate})
    if settings.optimiser == "sgd":
        return torch.optim.SGD(groups, lr=settings.learning_rate, momentum=settings.beta1)
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(settings.beta1, settings.beta2))


def learning_rate(step: int, settings: Any, decay_at: Sequence[int] = (), gamma: float = 1.0) -> float:
    """The learning rate of step number ``step``, from 0: a linear warm-up, then a cosine to zero where the settings'
    ``schedule`` says so, or else all of it, ``gamma`` times as much from each of the steps ``decay_at`` on.

    The warm-up is Detectron2's: it starts from a share ``warmup_factor`` and reaches the full rate at step ``warmup``.
    """
    share = 1.0
    if step < settings.warmup:
        share = settings.warmup_factor + (1 - settings.warmup_factor) * step / settings.warmup
    elif settings.schedule == "cosine":
        return optimisers.learning_rate(step, settings)
    return float(settings.learning_rate * share * gamma ** sum(step >= fall for fall in decay_at))


def about(body: Any, classes: Sequence[str], run: Run, method: str) -> dict[str, Any]:
    """What the file of a network on ``body`` says of itself: how to make it again, what it was trained on, and how."""
    versions = provenance.versions()
    return {
        "architecture": body.architecture,
        "arguments": body.options,
        "classes": list(classes),
        "data": run.images.identity,
        "mean": body.mean,
        "method": method,
        "precision": "half",
        "settings": run.settings.model_dump(),
        "std": body.std,
        "steps": run.done,
        "versions": {name: versions[name] for name in ("foundling", "torch", "timm", "numpy")},
    }
