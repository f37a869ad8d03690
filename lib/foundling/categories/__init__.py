"""Categories without labels: object crops → descriptors → clusters."""

from foundling.categories.choose import Stability, Suggestion, stability, suggest_clusters
from foundling.categories.cluster import METHODS, Clusters, cluster_objects, cluster_space, core, make_space
from foundling.categories.crops import RECIPES, Objects, objects_of_found, objects_of_masks, objects_of_targets
from foundling.categories.describe import DESCRIPTORS, describe_objects
from foundling.categories.pseudo_masks import PseudoMasks, write_pseudo_masks

__all__ = [
    "DESCRIPTORS",
    "METHODS",
    "RECIPES",
    "Clusters",
    "Objects",
    "PseudoMasks",
    "Stability",
    "Suggestion",
    "cluster_objects",
    "cluster_space",
    "core",
    "describe_objects",
    "make_space",
    "objects_of_found",
    "objects_of_masks",
    "objects_of_targets",
    "stability",
    "suggest_clusters",
    "write_pseudo_masks",
]
