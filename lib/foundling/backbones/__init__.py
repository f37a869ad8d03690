"""Backbones: a name → a frozen network with its weights, and images → patch features."""

from foundling.backbones.extract import extract, first_described
from foundling.backbones.load import Backbone, load_backbone
from foundling.backbones.registry import BACKBONES, Entry

__all__ = ["BACKBONES", "Backbone", "Entry", "extract", "first_described", "load_backbone"]
