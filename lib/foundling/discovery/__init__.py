"""Patch features to boxes and masks, one file a method; :data:`METHODS` lists them for the pipeline.

A new method is one file with a function ``PatchFeatures -> list[Discovery]`` and one line in ``methods.py``.
"""

from foundling.discovery.classic import centre_box, selective_search, whole_image
from foundling.discovery.colour import colour_lost, colour_tokencut
from foundling.discovery.dino_seg import dino_seg
from foundling.discovery.export import coco_results
from foundling.discovery.kmeans import kmeans_masks
from foundling.discovery.lost import lost
from foundling.discovery.maskcut import maskcut
from foundling.discovery.methods import METHODS, Method, resolve_method
from foundling.discovery.overlap_stream import MeasuredOverlap, measure_overlap
from foundling.discovery.saliency import border_foreground, saliency
from foundling.discovery.spectral import spectral_masks
from foundling.discovery.stream import Found, discover_images
from foundling.discovery.tokencut import tokencut

__all__ = [
    "METHODS",
    "Found",
    "MeasuredOverlap",
    "Method",
    "border_foreground",
    "centre_box",
    "coco_results",
    "colour_lost",
    "colour_tokencut",
    "dino_seg",
    "discover_images",
    "kmeans_masks",
    "lost",
    "maskcut",
    "measure_overlap",
    "resolve_method",
    "saliency",
    "selective_search",
    "spectral_masks",
    "tokencut",
    "whole_image",
]
