"""One box an image as a teacher: which images are trained on, what the teacher says of them, and what its pupils say.

A teacher is a method that finds boxes; a pupil a detector that was trained on these (LOST, Sec. 3.3). This is what
notebook 05 is made of.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from PIL import Image

from foundling.categories.crops import Objects
from foundling.datasets import Dataset, open_dataset
from foundling.datasets.images import read_image
from foundling.errors import ImageError, ParameterError
from foundling.evaluation import to_results
from foundling.files import checksum, write_bytes, writing
from foundling.parameters import from_root
from foundling.parameters_base import Parameters
from foundling.training.detected import detect_images
from foundling.training.detection.predict import TrainedDetector
from foundling.training.detection.settings import Detector
from foundling.training.detection.task import train_detector
from foundling.training.loop import Outcome
from foundling.training.pseudo_labels import PseudoLabels
from foundling.training.settings import MAY_CHANGE
from foundling.types import Detections, Sample


def training_images(
    given: Parameters, measured: Dataset, parts: Sequence[tuple[str, str]], limit: int, where: str = "train_on"
) -> Dataset:
    """The images that are trained on: the ``parts`` (dataset, split), one after the other, or those ``measured``.

    ``given`` says where a dataset lies, ``limit`` (0: none) how many images of each part are taken, ``where`` names the
    parameter for messages. The images of several parts are numbered anew, and have the part before their names. Raises
    :class:`ParameterError` for parts whose categories are not those of ``measured``, or a part without images.
    """
    opened = [open_part(given, dataset, split, limit) for dataset, split in parts]
    for part in opened:
        if measured.annotated and part.annotated and part.categories != measured.categories:
            raise ParameterError(
                f"{where}: the categories of {part.name}, {part.split} are not those of {measured.name}: train on "
                "parts of one kind, or measure on one of these"
            )
        if not len(part):
            raise ParameterError(f"{where}: {part.name}, {part.split} holds no images: check root")
    if len(opened) < 2:
        return opened[0] if opened else measured
    named = [replace(s, name=f"{part.name}_{part.split}/{s.name}") for part in opened for s in part]
    samples = tuple(replace(sample, image_id=i) for i, sample in enumerate(named, start=1))
    together = "+".join(f"{part.name}:{part.split}" for part in opened)
    problems = tuple(problem for part in opened for problem in part.problems)
    return replace(opened[0], name=together, split="", samples=samples, problems=problems)


def open_part(given: Parameters, dataset: str, split: str, limit: int, **options: Any) -> Dataset:
    """The first ``limit`` (0: all) images of a split of a dataset, which lies where ``given`` says if it is its own."""
    if dataset == given.dataset:
        options["root"] = from_root(given.root)
    if dataset == "scenes":
        options |= {"size": given.size, "count": limit or None}  # no more than these are drawn
    return open_dataset(dataset, split=split, **options).subset(limit=limit or None)


def best_boxes(
    boxes: Float[np.ndarray, "image 4"], samples: Sequence[Sample], labels: Int[np.ndarray, " image"] | None = None
) -> dict[int, Detections]:
    """One box an image (nan: none) as detections of score 1; ``labels`` are their clusters, -1 for a box to leave out.

    Raises :class:`ParameterError` unless there is one box, and one label, an image.
    """
    named = np.zeros(len(boxes), dtype=np.int64) if labels is None else labels
    if not len(boxes) == len(samples) == len(named):
        raise ParameterError(f"{len(boxes)} boxes and {len(named)} labels for {len(samples)} images: give one an image")
    known = np.isfinite(boxes).all(axis=1) & (named >= 0)
    return {
        sample.image_id: Detections(boxes[i : i + 1].astype(np.float64), np.ones(1), named[i : i + 1])
        for i, sample in enumerate(samples)
        if known[i]
    }


def enlarged(samples: Sequence[Sample], side: int, folder: Path) -> tuple[list[Sample], Float[np.ndarray, " image"]]:
    """Copies of the images in ``folder``, their shorter side ``side`` pixels (bicubic), and how much larger each is.

    Images that are as large already, or that cannot be read, are left as they are (1). A control: a detector looks at
    enlarged images, and its teacher may, too. Raises :class:`~foundling.errors.FoundlingError` if the disk is full.
    """
    copies, factors = [], np.ones(len(samples))
    for i, sample in enumerate(samples):
        copies.append(sample)
        try:
            image = read_image(sample.path, orient=sample.orient)
        except ImageError:
            continue
        factors[i] = max(1.0, side / min(image.size))
        if factors[i] > 1:
            path = folder / f"{i:06d}.png"
            size = (round(image.width * factors[i]), round(image.height * factors[i]))
            with writing(path) as part:
                image.resize(size, Image.Resampling.BICUBIC).save(part, format="PNG")
            copies[i] = replace(sample, path=path, orient=False)
    return copies, factors


def seeded(settings: Detector, seed: int, classes: int = 1) -> Detector:
    """The settings of one run: with its ``seed``, and as many ``classes`` as its labels have."""
    told = {**settings.model_dump(), "seed": seed, "classes": classes}
    made: Detector = type(settings).model_validate(told)
    return made


def known_by(settings: Any) -> list[Any]:
    """What a run of an encoder with ``settings`` is known by: what changes its result, and where its weights are a file
    of one's own, that file's checksum."""
    own = Path(settings.weights)
    files = [checksum(own)] if own.is_file() else []
    return [settings.model_dump(mode="json", exclude=set(MAY_CHANGE)), *files]


def run_path(folder: Path, name: str, settings: Any, labels: PseudoLabels) -> Path:
    """Where a notebook keeps a run: a path that other settings, other labels or another encoder do not share.

    So a run with changed settings begins anew beside the old one, and with the old settings goes on where that was.
    """
    text = json.dumps([*known_by(settings), labels.identity], sort_keys=True)
    return folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def train(
    samples: Sequence[Sample],
    labels: PseudoLabels,
    settings: Detector,
    folder: Path,
    name: str,
    *,
    minutes: float = 0.0,
    cpu: bool = False,
) -> Outcome:
    """Train a detector, or go on with it, in ``folder``; ``minutes`` (0: no limit) stop it, and that is told.

    See :func:`run_path` for its file, and :func:`foundling.training.detection.task.train_detector` for what is raised.
    """
    out = run_path(folder, name, settings, labels)
    outcome = train_detector(samples, labels, settings, out, minutes=minutes or math.inf, cpu=cpu)
    if not outcome.finished:
        print(f"{name}: stopped after {outcome.steps} of {settings.steps} steps; run again to go on")
    return outcome


def look(
    detector: TrainedDetector, samples: Sequence[Sample], folder: Path, failures: dict[str, str]
) -> dict[int, Detections]:
    """What ``detector`` finds in each image, by image id; kept in ``folder``, and as COCO results in ``folder``.json.

    The name of an image that cannot be used, and why, are added to ``failures``.
    """
    found = detect_images(detector, samples, out=folder)
    failures |= {failure.name: failure.error for failure in found.failures}
    detected = found.detections(samples)
    write_bytes(folder.with_name(f"{folder.name}.json"), f"{json.dumps(to_results(detected))}\n".encode())
    return detected


def in_every_class(detected: Mapping[int, Detections], classes: int) -> dict[int, Detections]:
    """Every detection once in each of ``classes``: a control that finds objects and cannot tell what they are."""
    return {
        i: Detections(
            np.tile(found.boxes, (classes, 1)),
            np.tile(found.scores, classes),
            np.repeat(np.arange(classes), len(found)),
        )
        for i, found in detected.items()
    }


def surest(detected: Mapping[int, Detections], samples: Sequence[Sample], label: int, count: int) -> Objects:
    """The ``count`` surest detections of the class ``label`` in all images, the surest first."""
    found = [
        (-float(score), image, row)
        for image, sample in enumerate(samples)
        if (those := detected.get(sample.image_id)) is not None
        for row, score in enumerate(those.scores)
        if those.labels[row] == label
    ]
    chosen = sorted(found)[:count]
    boxes = [detected[samples[image].image_id].boxes[row] for _, image, row in chosen]
    return Objects(
        np.array([image for _, image, _ in chosen], dtype=np.int64),
        tuple(samples[image].name for _, image, _ in chosen),
        np.array([row for _, _, row in chosen], dtype=np.int64),
        np.array(boxes, dtype=np.float64).reshape(-1, 4),
        np.array([-score for score, _, _ in chosen], dtype=np.float64),
        (None,) * len(chosen),
    )
