"""What both kinds of segmenter share of training: their optimiser, and the file that they leave."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from foundling import provenance
from foundling.training import checkpoints
from foundling.training.detection.bodies import Body
from foundling.training.running import Run

METHOD = "instances"  # what an exported file says it is
NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm, FrozenBatchNorm2d)


def make_optimiser(network: nn.Module, body: nn.Module, settings: Any) -> torch.optim.Optimizer:
    """SGD with momentum, or AdamW; norms are not decayed, and ``body`` learns at its own rate."""
    norms = {id(p) for part in network.modules() if isinstance(part, NORMS) for p in part.parameters(recurse=False)}
    inner = {id(p) for p in body.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for p in network.parameters():
        if p.requires_grad:
            groups.setdefault((id(p) in inner, id(p) in norms), []).append(p)
    options: list[dict[str, Any]] = [
        {
            "params": chosen,
            "weight_decay": 0.0 if in_norm else settings.weight_decay,
            "rate": settings.backbone_rate if in_body else 1.0,
        }
        for (in_body, in_norm), chosen in groups.items()
    ]
    if settings.optimiser == "sgd":
        return torch.optim.SGD(options, lr=settings.learning_rate, momentum=settings.beta1)
    return torch.optim.AdamW(options, lr=settings.learning_rate, betas=(settings.beta1, settings.beta2))


def export_segmenter(network: nn.Module, body: Body, classes: Sequence[str], run: Run, file: Path) -> None:
    """Write a segmenter in half precision, with how to make its network again, what it was trained on, and how."""
    versions = provenance.versions()
    about = {
        "architecture": body.architecture,
        "arguments": body.options,
        "classes": list(classes),
        "data": run.images.identity,
        "mean": body.mean,
        "method": METHOD,
        "precision": "half",
        "settings": run.settings.model_dump(),
        "std": body.std,
        "steps": run.done,
        "versions": {name: versions[name] for name in ("foundling", "torch", "timm", "numpy")},
    }
    checkpoints.export(file, network.state_dict(), about)
