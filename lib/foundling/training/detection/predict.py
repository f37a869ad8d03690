"""A trained detector from its file, and what it finds in images."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from foundling.backbones.prepare import Prepared
from foundling.errors import WeightsError
from foundling.training.detection.bodies import Body
from foundling.training.detection.engines import make_engine
from foundling.training.detection.settings import Detector
from foundling.training.detection.task import METHOD
from foundling.training.trained import in_batches, rebuild
from foundling.types import Detections, Failure, Sample


@dataclass(frozen=True)
class TrainedDetector:
    """A detector in evaluation mode on its device; ``classes`` names what its labels stand for.

    ``weights`` says where it came from, ``checksum`` is the first 12 hexadecimal digits of that file's SHA-256.
    """

    network: nn.Module
    settings: Detector
    classes: tuple[str, ...]
    weights: str
    checksum: str
    device: torch.device


def load_detector(file: str | Path, device: str | torch.device = "cpu") -> TrainedDetector:
    """The detector in a file that :func:`foundling.training.detection.task.train_detector` wrote, on ``device``.

    Nothing but the file is needed, and for one of the engine detectron2 that package. Raises WeightsError if there is
    no such file, it is damaged, it is Detectron2's own, or holds something else than a detector; ParameterError if its
    engine is not installed.
    """
    file = Path(file).expanduser()
    if file.suffix in (".pth", ".pkl") and file.is_file():
        raise WeightsError(
            f"{file} looks like a checkpoint of Detectron2 itself: give the RUN.safetensors that training here with "
            "engine: detectron2 writes, or use it with Detectron2's own programs"
        )
    it = rebuild(file, device, METHOD, "detector", "train_detector", _make)
    return TrainedDetector(it.network, it.settings, it.classes, it.weights, it.checksum, it.device)


def _make(told: dict[str, Any], body: Body) -> tuple[Detector, nn.Module]:
    settings = Detector(**told["settings"])
    return settings, make_engine(settings, body)


def detect(
    detector: TrainedDetector,
    samples: Sequence[Sample],
    *,
    failures: list[Failure] | None = None,
    batch_size: int = 8,
    workers: int = 2,
) -> Iterator[tuple[Sample, Detections]]:
    """What ``detector`` finds in each image, in the order of ``samples``; boxes are in pixels of the original image.

    Images that follow each other and are of one size are looked at together, at most ``batch_size`` of them: no image
    is padded to the size of another, and none changes what is found in the others. An image that cannot be used raises
    ImageError, or with ``failures`` is appended to it and left out. Raises ParameterError for a ``batch_size`` below 1.
    """
    return _detect(detector, list(samples), in_batches(samples, batch_size, workers, failures))


def _detect(
    detector: TrainedDetector, samples: list[Sample], batches: Iterator[list[Prepared]]
) -> Iterator[tuple[Sample, Detections]]:
    for batch in batches:
        images = [item.pixels.to(detector.device).permute(2, 0, 1).float() / 255 for item in batch]
        with torch.inference_mode():
            found = detector.network(images)
        for item, result in zip(batch, found, strict=True):
            yield samples[item.index], as_detections(result)


def as_detections(result: dict[str, Tensor]) -> Detections:
    """What torchvision says of one image, the surest first; its labels count the background as 0."""
    best = result["scores"].argsort(descending=True, stable=True)
    boxes, scores, labels = (result[name][best].cpu() for name in ("boxes", "scores", "labels"))
    return Detections(boxes.double().numpy(), scores.double().numpy(), labels.numpy() - 1)
