"""A trained detector from its file, and what it finds in images."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from foundling.backbones.checkpoint import checksum
from foundling.backbones.prepare import Limits, Prepared, read_ahead
from foundling.backbones.transfer import HEADER
from foundling.datasets.images import MAX_PIXELS
from foundling.errors import ParameterError, WeightsError
from foundling.training.detection.bodies import empty_body
from foundling.training.detection.engines import make_engine
from foundling.training.detection.settings import Detector
from foundling.training.detection.task import METHOD
from foundling.types import Detections, Failure, Sample

_LIMITS = Limits(patch_size=1, max_side=None, max_patches=MAX_PIXELS, keep_images=False)
_KEYS = ("architecture", "arguments", "classes", "mean", "settings", "std")


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
    tensors, told = _read(file)
    try:
        settings = Detector(**told["settings"])
        body = empty_body(told["architecture"], told["arguments"], told["mean"], told["std"])
        with torch.random.fork_rng(devices=[]):
            network = make_engine(settings, body)
        network.load_state_dict(tensors)
    except (ValidationError, RuntimeError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise WeightsError(
            f"{file} does not hold what its header says ({reason}): use the version of foundling that wrote it, or "
            "train it again"
        ) from error
    where = torch.device(device)
    network.eval().requires_grad_(False).to(where)
    return TrainedDetector(network, settings, tuple(told["classes"]), str(file), checksum(file)[:12], where)


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a detector's file in float32, and what it says of itself."""
    if not file.is_file():
        raise WeightsError(f"{file}: there is no such file; name one that train_detector wrote, RUN.safetensors")
    if file.suffix in (".pth", ".pkl"):
        raise WeightsError(
            f"{file} looks like a checkpoint of Detectron2 itself: give the RUN.safetensors that training here with "
            "engine: detectron2 writes, or use it with Detectron2's own programs"
        )
    try:
        with safe_open(file, framework="pt") as content:
            told = json.loads((content.metadata() or {}).get(HEADER, "null"))
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise WeightsError(
            f"{file} is no safetensors file, or damaged ({error}): name one that train_detector wrote, RUN.safetensors"
        ) from error
    if not isinstance(told, dict) or told.get("method") != METHOD:
        kind = told.get("method") if isinstance(told, dict) else None
        raise WeightsError(
            f"{file} holds no detector{f' but a network of the kind {kind!r}' if kind else ''}: name a file that "
            "train_detector wrote"
        )
    if missing := [key for key in _KEYS if key not in told]:
        raise WeightsError(
            f"{file} does not say how to make its network ({', '.join(missing)} missing): train it again"
        )
    return {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}, told


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
    if batch_size < 1:
        raise ParameterError(f"batch_size={batch_size}: must be at least 1")
    return _detect(detector, list(samples), failures, batch_size, workers)


def _detect(
    detector: TrainedDetector, samples: list[Sample], failures: list[Failure] | None, batch_size: int, workers: int
) -> Iterator[tuple[Sample, Detections]]:
    batch: list[Prepared] = []
    for item in read_ahead(samples, _LIMITS, workers, 2 * batch_size, failures):
        if batch and (len(batch) == batch_size or item.original != batch[0].original):
            yield from _look(detector, samples, batch)
            batch = []
        batch.append(item)
    if batch:
        yield from _look(detector, samples, batch)


def _look(
    detector: TrainedDetector, samples: list[Sample], batch: list[Prepared]
) -> Iterator[tuple[Sample, Detections]]:
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
