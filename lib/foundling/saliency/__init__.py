"""What stands out in an image: sources of saliency behind one interface, a saliency network among them.

A mask is one of the original image's pixels; :func:`saliency_masks` gives one an image from any source.
"""

from foundling.saliency.basnet import Basnet
from foundling.saliency.masks import SaliencyMasks, agreement
from foundling.saliency.network import NETWORKS, SaliencyNetwork, load_saliency_network
from foundling.saliency.predict import predict_masks
from foundling.saliency.segmenter import SEGMENTERS, Segmenter, load_segmenter
from foundling.saliency.segments import discover_segments
from foundling.saliency.sources import SALIENCY, masks_of, saliency_masks

__all__ = [
    "NETWORKS",
    "SALIENCY",
    "SEGMENTERS",
    "Basnet",
    "SaliencyMasks",
    "SaliencyNetwork",
    "Segmenter",
    "agreement",
    "discover_segments",
    "load_saliency_network",
    "load_segmenter",
    "masks_of",
    "predict_masks",
    "saliency_masks",
]
