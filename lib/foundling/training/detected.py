"""A detector or an instance segmenter over many images, chunk by chunk, so that an interrupted run goes on."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from foundling.datasets.semantic import size_of
from foundling.discovery.chunks import Record, chunk_path, code_digest, files_of, read_chunk, remove_others, write_chunk
from foundling.discovery.progress import progress as show_progress
from foundling.errors import ParameterError
from foundling.training.detection.predict import TrainedDetector, detect
from foundling.training.instance.predict import TrainedSegmenter, segment_instances
from foundling.types import Detections, Failure, Sample

SOURCES = (  # the code that detections depend on
    "datasets/images.py",
    "backbones/*.py",
    "training/trained.py",
    "training/detection/*.py",
)
INSTANCE_SOURCES = (*SOURCES, "training/instance/*.py")  # and what instances depend on

Look = Callable[..., Iterator[tuple[Sample, Detections]]]


@dataclass(frozen=True)
class DetectedSet:
    """What a detector or an instance segmenter found in each image.

    ``records`` has a dict for every image that did not fail: ``name``, ``index``, ``size`` (height and width of the
    file), ``boxes`` (original pixels), ``scores`` and ``labels`` (from 0), the surest first, and of a segmenter
    ``masks`` (COCO run lengths). ``classes`` names the labels.
    """

    classes: tuple[str, ...]
    records: list[Record]
    failures: list[Failure]

    def detections(self, samples: Sequence[Sample]) -> dict[int, Detections]:
        """The same by image id; ``samples`` are those that were looked at."""
        return {samples[record["index"]].image_id: detections_of(record) for record in self.records}


def detections_of(record: Record) -> Detections:
    """What one record says was found."""
    boxes = np.array(record["boxes"], dtype=np.float64).reshape(-1, 4)
    scores, labels = np.array(record["scores"], dtype=np.float64), np.array(record["labels"], dtype=np.int64)
    return Detections(boxes, scores, labels, tuple(record["masks"]) if "masks" in record else None)


def detect_images(
    detector: TrainedDetector,
    samples: Sequence[Sample],
    *,
    out: Path | None = None,
    batch_size: int = 8,
    chunk: int = 64,
    progress: bool = True,
) -> DetectedSet:
    """What ``detector`` finds in each of ``samples`` (see :func:`foundling.training.detection.predict.detect`).

    With ``out``, the results of every ``chunk`` images are written there and used again by a later call with the same
    detector, batches, code and files; an image that cannot be used is a failure, and tried again. Batches do not cross
    chunks.

    Raises :class:`ParameterError` for a ``batch_size`` or ``chunk`` below 1.
    """
    return _look_at(detector, detect, SOURCES, samples, out, batch_size, chunk, "detecting" if progress else "")


def segment_images(
    segmenter: TrainedSegmenter,
    samples: Sequence[Sample],
    *,
    out: Path | None = None,
    batch_size: int = 8,
    chunk: int = 64,
    progress: bool = True,
) -> DetectedSet:
    """What ``segmenter`` finds in each of ``samples``, with masks; see :func:`detect_images` for the rest, and
    :func:`foundling.training.instance.predict.segment_instances`."""
    doing = "segmenting" if progress else ""
    return _look_at(segmenter, segment_instances, INSTANCE_SOURCES, samples, out, batch_size, chunk, doing)


def _look_at(
    network: Any,
    look: Look,
    sources: Sequence[str],
    samples: Sequence[Sample],
    out: Path | None,
    batch_size: int,
    chunk: int,
    doing: str,
) -> DetectedSet:
    for name, value in {"batch_size": batch_size, "chunk": chunk}.items():
        if value < 1:
            raise ParameterError(f"{name}={value}: must be at least 1")
    settings = {"detector": network.checksum, "device": network.device.type, "batch_size": batch_size,
                "code": code_digest(sources)}  # fmt: skip
    samples, starts = list(samples), range(0, len(samples), chunk)
    records, failures = list[Record](), list[Failure]()
    with show_progress(len(samples), doing, bool(doing and samples)) as advance:
        for start in starts:
            part = samples[start : start + chunk]
            file = None if out is None else chunk_path(out, start)
            records += _chunk(network, look, part, start, file, settings, failures)
            advance(len(part))
    if out is not None and out.is_dir():
        remove_others(out, {chunk_path(out, start) for start in starts})
    return DetectedSet(network.classes, records, failures)


def _chunk(
    network: Any,
    look: Look,
    part: Sequence[Sample],
    start: int,
    file: Path | None,
    settings: dict[str, Any],
    failures: list[Failure],
) -> list[Record]:
    """The records of one chunk, as far as possible from its file."""
    header = {**settings, "files": files_of(part)} if file is not None else {}
    known = {record["index"]: record for record in (read_chunk(file, header) if file is not None else [])}
    todo = [i for i in range(start, start + len(part)) if i not in known]
    if todo:
        missed: list[Failure] = []
        seen = look(network, [part[i - start] for i in todo], failures=missed, batch_size=settings["batch_size"])
        index = {part[i - start].image_id: i for i in todo}
        known |= {index[sample.image_id]: _record(sample, index[sample.image_id], found) for sample, found in seen}
        failures += [Failure(failure.name, todo[failure.index], failure.error) for failure in missed]
        if file is not None:
            write_chunk(file, header, [known[i] for i in sorted(known)])
    return [known[i] for i in sorted(known)]


def _record(sample: Sample, index: int, found: Detections) -> Record:
    lists = {name: getattr(found, name).tolist() for name in ("boxes", "scores", "labels")}
    masks = {} if found.masks is None else {"masks": list(found.masks)}
    return {"name": sample.name, "index": index, "size": list(size_of(sample)), **lists, **masks}
