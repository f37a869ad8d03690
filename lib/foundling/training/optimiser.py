"""What turns gradients into steps: AdamW or LARS, and the learning rate over a run."""

import math
from typing import Any

import torch
from timm.optim import Lars
from torch import nn

from foundling.training.settings import Steps

EMBEDDINGS = ("pos_embed", "_token", "relative_position_bias_table")  # ends of parameters' names


def make_optimiser(objective: nn.Module, settings: Steps) -> torch.optim.Optimizer:
    """AdamW, or LARS, over what has a gradient; biases, norms and embeddings are neither decayed nor adapted.

    LARS (appendix A.3, by way of BYOL) is timm's: a weight's gradient with its decay is scaled by ``trust`` |w| /
    (|g| + ``weight_decay`` |w|), then goes into the momentum.
    """
    weights: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in objective.named_parameters():
        if parameter.requires_grad:
            (others if parameter.ndim < 2 or name.endswith(EMBEDDINGS) else weights).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": weights, "weight_decay": settings.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if settings.optimiser == "lars":
        groups[0]["always_adapt"] = True  # without decay, too
        return Lars(groups, lr=settings.learning_rate, momentum=settings.beta1, trust_coeff=settings.trust)
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=(settings.beta1, settings.beta2))


def learning_rate(step: int, settings: Steps) -> float:
    """The learning rate of step number ``step``, from 0: a linear warm-up, then a cosine to zero."""
    if step < settings.warmup:
        return settings.learning_rate * (step + 1) / settings.warmup
    share = (step - settings.warmup) / (settings.steps - settings.warmup)
    return settings.learning_rate * (1 + math.cos(math.pi * share)) / 2
