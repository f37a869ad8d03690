"""A trained segmenter from its file, and what it says of images: label maps, for eyes or for the next round."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import UInt8

from foundling.backbones.apply import normalise
from foundling.backbones.prepare import Prepared
from foundling.categories.pseudo_masks import PseudoMasks, file_names, kept_maps
from foundling.datasets.index_masks import write_labels
from foundling.discovery.chunks import code_digest
from foundling.discovery.progress import progress as show_progress
from foundling.errors import ParameterError
from foundling.files import writing
from foundling.saliency.predict import squeeze
from foundling.training.data import fingerprint
from foundling.training.detection.bodies import Body
from foundling.training.semantic import networks
from foundling.training.semantic.networks import make_segmenter
from foundling.training.semantic.settings import Semantic
from foundling.training.semantic.task import METHOD
from foundling.training.trained import in_batches, rebuild
from foundling.types import Failure, Sample

SOURCES = ("datasets/images.py", "training/semantic/*.py")  # the code that label maps depend on


@dataclass(frozen=True)
class TrainedSegmenter:
    """A segmenter in evaluation mode on its device; it tells ``clusters`` from each other and from the background.

    ``mean`` and ``std`` are for RGB in 0..1. ``weights`` says where it came from, ``checksum`` is the first 12
    hexadecimal digits of that file's SHA-256.
    """

    network: networks.Segmenter
    settings: Semantic
    clusters: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    weights: str
    checksum: str
    device: torch.device


def load_segmenter(file: str | Path, device: str | torch.device = "cpu") -> TrainedSegmenter:
    """The segmenter in a file that :func:`foundling.training.semantic.task.train_semantic` wrote, on ``device``.

    Nothing but the file is needed. Raises WeightsError if there is no such file, it is damaged, holds something else
    than a segmenter, or a head of another number of clusters than it says.
    """
    file = Path(file).expanduser()
    it = rebuild(file, device, METHOD, "semantic segmenter", "train_semantic", _make)
    mean, std = it.body.mean, it.body.std
    return TrainedSegmenter(it.network, it.settings, len(it.classes), mean, std, it.weights, it.checksum, it.device)


def _make(told: dict[str, Any], body: Body) -> tuple[Semantic, networks.Segmenter]:
    settings = Semantic(**told["settings"])
    return settings, make_segmenter(settings, body, len(told["classes"]) + 1)


def segment(
    segmenter: TrainedSegmenter,
    samples: Sequence[Sample],
    *,
    failures: list[Failure] | None = None,
    batch_size: int = 8,
    workers: int = 2,
) -> Iterator[tuple[Sample, UInt8[np.ndarray, "height width"]]]:
    """The label of every pixel of each image, in the order of ``samples``: 0 is background, then cluster + 1.

    An image is resized to a square of the settings' ``test_side`` (bilinear, its shape is not kept), and its label map
    to the size of the image by nearest neighbour, as in COMUS' code. One that cannot be used raises ImageError, or with
    ``failures`` is appended to it and left out. Raises ParameterError for a ``batch_size`` below 1.
    """
    given = list(samples)
    batches = in_batches(given, batch_size, workers, failures)
    return (found for batch in batches for found in _look(segmenter, given, batch))


def _look(
    segmenter: TrainedSegmenter, samples: Sequence[Sample], batch: list[Prepared]
) -> Iterator[tuple[Sample, UInt8[np.ndarray, "height width"]]]:
    squares = np.stack([squeeze(item.pixels.numpy(), segmenter.settings.test_side) for item in batch])
    images = torch.from_numpy(squares).to(segmenter.device).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        logits = segmenter.network(normalise(images, segmenter.mean, segmenter.std))
        labels = logits.argmax(1).byte().cpu().numpy()
    for item, small in zip(batch, labels, strict=True):
        height, width = item.original
        found = cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)
        yield samples[item.index], np.asarray(found, dtype=np.uint8)


def segment_to_files(
    segmenter: TrainedSegmenter,
    samples: Sequence[Sample],
    folder: Path,
    *,
    batch_size: int = 8,
    workers: int = 2,
    progress: bool = True,
) -> PseudoMasks:
    """Write what :func:`segment` says of every image as index PNGs in ``folder``: the label maps of the next round.

    Files appear whole or not at all; those that the same segmenter has written of the same images are kept, those of
    another removed. Images that cannot be read are failures, and tried again. Raises ParameterError if a file that was
    not made here is in the way, two images have one name, or ``batch_size`` is below 1; FoundlingError if the folder
    cannot be written.
    """
    names = [sample.name for sample in samples]
    if len(set(names)) < len(names):
        twice = next(name for name, times in Counter(names).items() if times > 1)
        raise ParameterError(
            f"two images are called {twice!r}, but label maps are named after them: join datasets with "
            "foundling.training.semantic.rounds.join"
        )
    files = [folder / name for name in file_names(names)]
    digest = f"{segmenter.checksum} {segmenter.device.type} {fingerprint(samples)} {code_digest(SOURCES)}"
    kept = kept_maps(folder, files, digest)
    todo = [i for i, file in enumerate(files) if file not in kept]
    failed: list[Failure] = []
    there = dict(zip(names, files, strict=True))
    with show_progress(len(todo), "segments", progress and bool(todo)) as advance:
        for sample, labels in segment(
            segmenter, [samples[i] for i in todo], failures=failed, batch_size=batch_size, workers=workers
        ):
            with writing(there[sample.name]) as part:
                write_labels(part, labels)
            advance(1)
    failures = tuple(Failure(one.name, todo[one.index], one.error) for one in failed)
    without = {failure.index for failure in failures}
    found = tuple(None if i in without else file for i, file in enumerate(files))
    return PseudoMasks(found, segmenter.clusters, (), failures)
