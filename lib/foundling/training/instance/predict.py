"""A trained instance segmenter from its file, and what it finds in images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from foundling.backbones.prepare import Prepared
from foundling.training.detection.bodies import Body
from foundling.training.instance.decode import as_detections, find_instances
from foundling.training.instance.mask_rcnn import make_mask_rcnn
from foundling.training.instance.networks import SoloNetwork
from foundling.training.instance.settings import METHOD, SEGMENTERS, Instances, Solo
from foundling.training.instance.views import fit, pad, padded_size, resize_image
from foundling.training.trained import in_batches, rebuild
from foundling.types import Detections, Failure, Sample

MASK = 0.5  # where a mask of Mask R-CNN is inside


@dataclass(frozen=True)
class TrainedSegmenter:
    """An instance segmenter in evaluation mode on its device; ``classes`` names what its labels stand for.

    ``weights`` says where it came from, ``checksum`` is the first 12 hexadecimal digits of that file's SHA-256.
    """

    network: Any
    settings: Any  # Instances
    classes: tuple[str, ...]
    weights: str
    checksum: str
    device: torch.device


def load_instances(file: str | Path, device: str | torch.device = "cpu") -> TrainedSegmenter:
    """The segmenter in a file that :func:`foundling.training.instance.train.train_instances` wrote, on ``device``.

    Nothing but the file is needed. Raises WeightsError if there is no such file, it is damaged, or it holds something
    else than an instance segmenter.
    """
    file = Path(file).expanduser()
    it = rebuild(file, device, METHOD, "instance segmenter", "train_instances", _make)
    return TrainedSegmenter(it.network, it.settings, it.classes, it.weights, it.checksum, it.device)


def _make(told: dict[str, Any], body: Body) -> tuple[Any, torch.nn.Module]:
    settings: Any = SEGMENTERS[told["settings"]["objective"]](**told["settings"])
    return settings, make_network(settings, body)


def make_network(settings: Instances, body: Any) -> torch.nn.Module:
    """The network that ``settings`` describe on ``body``."""
    return SoloNetwork(settings, body) if isinstance(settings, Solo) else make_mask_rcnn(settings, body)


def segment_instances(
    segmenter: TrainedSegmenter,
    samples: Sequence[Sample],
    *,
    failures: list[Failure] | None = None,
    batch_size: int = 8,
    workers: int = 2,
) -> Iterator[tuple[Sample, Detections]]:
    """What ``segmenter`` finds in each image, in the order of ``samples``; masks have the size of the original image.

    Boxes are the masks' tight ones, and an object whose mask is empty is left out. Images go in together where they
    have one size. An image that cannot be used raises
    ImageError, or with ``failures`` is appended to it and left out. Raises ParameterError for a ``batch_size`` below 1.
    """
    return _segment(segmenter, list(samples), in_batches(samples, batch_size, workers, failures))


def _segment(
    segmenter: TrainedSegmenter, samples: list[Sample], batches: Iterator[list[Prepared]]
) -> Iterator[tuple[Sample, Detections]]:
    look = _with_solo if isinstance(segmenter.settings, Solo) else _with_mask_rcnn
    for batch in batches:
        images = [item.pixels.to(segmenter.device).permute(2, 0, 1).float() / 255 for item in batch]
        with torch.inference_mode():
            found = list(look(segmenter, images))
        yield from zip((samples[item.index] for item in batch), found, strict=True)


def _with_solo(segmenter: TrainedSegmenter, images: list[Tensor]) -> Iterator[Detections]:
    settings = segmenter.settings
    sizes = [(image.shape[1], image.shape[2]) for image in images]
    seen = [fit(size, settings.test_size, settings.max_size) for size in sizes]
    whole = padded_size(seen, segmenter.network.cell)
    resized = [resize_image(image, size) for image, size in zip(images, seen, strict=True)]
    inside = torch.stack([pad(torch.ones_like(image[:1]), whole) for image in resized]) > 0
    said = segmenter.network(torch.stack([pad(image, whole) for image in resized]), inside)
    for i, (size, original) in enumerate(zip(seen, sizes, strict=True)):
        yield find_instances(said, i, settings, size, original)


def _with_mask_rcnn(segmenter: TrainedSegmenter, images: list[Tensor]) -> Iterator[Detections]:
    for result in segmenter.network(images):
        best = result["scores"].argsort(descending=True, stable=True)
        masks = (result["masks"][best, 0] > MASK).cpu().numpy()
        scores, labels = (result[name][best].cpu().numpy() for name in ("scores", "labels"))
        yield as_detections(masks, scores.astype(np.float64), labels - 1)
