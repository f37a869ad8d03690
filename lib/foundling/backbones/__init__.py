"""Backbones: a name → a frozen network with its weights, and images → patch features."""

import importlib
from typing import TYPE_CHECKING, Any

from foundling.backbones.registry import BACKBONES, Entry

if TYPE_CHECKING:
    from foundling.backbones.extraction import extract, first_described
    from foundling.backbones.load import Backbone, load_backbone

__all__ = ["BACKBONES", "Backbone", "Entry", "extract", "first_described", "load_backbone"]

_MODULES = {"Backbone": "load", "extract": "extraction", "first_described": "extraction", "load_backbone": "load"}


def __getattr__(name: str) -> Any:
    """What needs PyTorch and timm, which take seconds to import, is imported when it is asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
