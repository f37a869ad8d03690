"""A detector trained from the command line: on a file of boxes, or on what `foundling discover` found in own photos."""

import math
from pathlib import Path
from typing import Any

from pydantic import Field

from foundling.errors import ParameterError
from foundling.training.detection.settings import Detector
from foundling.training.label_files import IMAGES, labels_of_coco, open_labels, read_results
from foundling.training.loop import Outcome
from foundling.training.pseudo_labels import PseudoLabels

RESULTS = "results.json"  # of `foundling discover`


class DetectorOnLabels(Detector):
    """A detector and where its boxes and images are; the number of classes is that of the labels."""

    labels: str = Field(
        "",
        description="boxes: a COCO instances JSON, or the folder that `foundling discover` wrote (by category if it "
        "sorted the photos)",
    )
    root: str = Field("", description="folder of the images, which their names in labels begin at")


def train_on_labels(
    settings: DetectorOnLabels, out: Path, minutes: float = math.inf, progress: bool = True, cpu: bool = False
) -> Outcome:
    """Train a detector on the boxes that ``settings`` name, as ``train_detector`` (detection/task.py) does.

    Raises :class:`ParameterError` where ``labels`` or ``root`` are not given or hold something else,
    :class:`DataMissing` where files are not there, and what training raises.
    """
    from foundling.training.detection.task import train_detector

    samples, labels = open_labels(settings, labels_of_found_folder)
    if progress:
        print(labels.summary())
    told = settings.model_dump(exclude={"labels", "root", "classes"})
    plain = Detector.model_validate({**told, "classes": len(labels.classes)})
    return train_detector(samples, labels, plain, out, minutes=minutes, progress=progress, cpu=cpu)


def labels_of_found_folder(folder: Path) -> PseudoLabels:
    """The surest box of each photo that `foundling discover` found, as labels; classes are its categories.

    Raises :class:`DataMissing` unless ``results.json`` and ``images.json`` are there, :class:`ParameterError` where
    they hold something else.
    """
    results, images = read_results(folder, RESULTS, "discover", ", one method")
    best: dict[Any, dict[str, Any]] = {}
    try:
        for entry in results:
            if entry["score"] > best.get(entry["image_id"], {"score": -math.inf})["score"]:
                best[entry["image_id"]] = {key: entry[key] for key in ("image_id", "category_id", "bbox", "score")}
    except (KeyError, TypeError) as error:
        raise ParameterError(f"{folder / RESULTS} is no COCO results list ({error}): run discover again") from error
    return labels_of_coco({**images, "annotations": list(best.values())}, folder / IMAGES)
