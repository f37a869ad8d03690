"""Categories without labels: object crops → descriptors → clusters."""

from foundling.categories.crops import Objects, objects_of_found, objects_of_masks, objects_of_targets
from foundling.categories.describe import DESCRIPTORS, describe_objects

__all__ = [
    "DESCRIPTORS",
    "Objects",
    "describe_objects",
    "objects_of_found",
    "objects_of_masks",
    "objects_of_targets",
]
