"""Pseudo-labels as files: COCO, which every engine and tool reads, and Detectron2's own form, as LOST's scripts do."""

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from foundling.categories.crops import Objects, as_bytes
from foundling.datasets.base import Problems, describe
from foundling.errors import DataMissing, ParameterError
from foundling.files import write_bytes
from foundling.parameters import from_root
from foundling.training.pseudo_labels import PseudoLabels, image_labels
from foundling.types import Failure, Sample

IMAGES = "images.json"  # of `foundling discover` and `foundling propose`
XYXY_ABS = 0  # Detectron2's BoxMode of corners in pixels


def coco_labels(labels: PseudoLabels) -> dict[str, Any]:
    """The labels as a COCO instances JSON: every image, boxes as x, y, width, height, category ids from 1."""
    annotations: list[dict[str, Any]] = []
    for image in labels.images:
        for row, (x0, y0, x1, y1) in enumerate(image.boxes.tolist()):
            box = [x0, y0, x1 - x0, y1 - y0]
            entry: dict[str, Any] = {"id": len(annotations) + 1, "image_id": image.image_id}
            entry |= {"category_id": int(image.labels[row]) + 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            if image.masks is not None:
                mask = image.masks[row]
                entry |= {"segmentation": mask, "area": int(coco_mask.area(as_bytes(mask)))}
            annotations.append(entry)
    images = [
        {"id": image.image_id, "file_name": image.name, "height": image.size[0], "width": image.size[1]}
        for image in labels.images
    ]
    categories = [{"id": i, "name": name} for i, name in enumerate(labels.classes, start=1)]
    return {"images": images, "annotations": annotations, "categories": categories}


def write_pseudo_labels(file: Path, labels: PseudoLabels) -> Path:
    """Write :func:`coco_labels`, whole or not at all; equal labels give equal bytes.

    The images that failed and what was dropped on the way are told beside, under ``info``.
    """
    told = {"failures": [vars(failure) for failure in labels.failures], "problems": list(labels.problems)}
    content = json.dumps({"info": {"foundling": told}, **coco_labels(labels)}, separators=(",", ":"))
    return write_bytes(file, f"{content}\n".encode())


def read_pseudo_labels(file: Path) -> PseudoLabels:
    """The labels in a file of :func:`write_pseudo_labels`, or another COCO instances JSON without crowds.

    Classes are its categories by ascending id. Boxes outside their images are clipped, as in :func:`pseudo_labels`.
    Raises :class:`DataMissing` if there is no such file, :class:`ParameterError` if it holds something else.
    """
    if not file.is_file():
        raise DataMissing(f"{file}: no such file of labels; make it with write_pseudo_labels, or name another")
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise ParameterError(_WRONG.format(file=file, kind=type(error).__name__, error=error)) from error
    return labels_of_coco(content, file)


def labels_of_coco(content: Any, file: Path) -> PseudoLabels:
    """The labels in the ``content`` of ``file``, a COCO instances JSON; raises as :func:`read_pseudo_labels`."""
    try:
        return _from_coco(content)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ParameterError(_WRONG.format(file=file, kind=type(error).__name__, error=error)) from error


_WRONG = "{file} is no COCO instances JSON with boxes, sizes and categories ({kind}: {error}): make it again"


def _from_coco(content: dict[str, Any]) -> PseudoLabels:
    categories = sorted((int(entry["id"]), str(entry["name"])) for entry in content["categories"])
    number = {i: label for label, (i, _) in enumerate(categories)}
    entries: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in content["images"]}
    problems: Problems = defaultdict(list)
    for entry in content["annotations"]:
        entries[entry["image_id"]].append(entry)
    images = []
    for image in content["images"]:
        size = (int(image["height"]), int(image["width"]))
        here = [entry for entry in entries[image["id"]] if not entry.get("iscrowd")]
        boxes = np.array([entry["bbox"] for entry in here], dtype=np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        objects = Objects(
            np.zeros(len(here), np.int64),
            (str(image["file_name"]),) * len(here),
            np.arange(len(here)),
            boxes,
            np.ones(len(here)),
            tuple(mask if isinstance(mask := entry.get("segmentation"), dict) else None for entry in here),
        )
        classes = np.array([number[entry["category_id"]] for entry in here], dtype=np.int64)
        sample = Sample(str(image["file_name"]), Path(), int(image["id"]))
        images.append(image_labels(sample, size, objects, classes, problems))
    told = content.get("info", {}).get("foundling", {})
    failures = tuple(Failure(**failure) for failure in told.get("failures", ()))
    names = tuple(name for _, name in categories)
    return PseudoLabels(tuple(images), names, failures, (*told.get("problems", ()), *describe(problems)))


def open_labels(settings: Any, read_folder: Callable[[Path], PseudoLabels]) -> tuple[list[Sample], PseudoLabels]:
    """The images and the labels that ``settings`` name: ``labels``, a COCO instances JSON or a folder that
    ``read_folder`` reads (of own photos, which are turned as they say), and ``root``, the folder of the images.

    Raises :class:`ParameterError` where one of the two is not given, :class:`DataMissing` where an image is not there,
    and what reading raises.
    """
    for name in ("labels", "root"):
        if not getattr(settings, name):
            about = type(settings).model_fields[name].description
            raise ParameterError(f"{name} is not given ({about}): add --set {name}=…")
    path, root = from_root(settings.labels), from_root(settings.root)
    assert path is not None and root is not None
    photos = path.is_dir()
    labels = read_folder(path) if photos else read_pseudo_labels(path)
    samples = [Sample(image.name, root / image.name, image.image_id, orient=photos) for image in labels.images]
    if absent := [sample.name for sample in samples if not sample.path.is_file()]:
        raise DataMissing(
            f"{len(absent)} of {len(samples)} images are not in {root}, the first {absent[0]}: give root, the folder "
            "that these names begin at"
        )
    return samples, labels


# Detectron2


def read_results(folder: Path, name: str, command: str, which: str = "") -> tuple[Any, dict[str, Any]]:
    """What a command of ours found, from its folder: COCO results (the file ``name``), and images and categories.

    Messages name the ``command``, and ``which`` of its folders. Raises :class:`DataMissing` unless both files are
    there, :class:`ParameterError` where they are no JSON, or the images are no COCO images.
    """
    content = []
    for file in (folder / name, folder / IMAGES):
        if not file.is_file():
            raise DataMissing(f"{folder} holds no {file.name}: give the folder that `foundling {command}` wrote{which}")
        try:
            content.append(json.loads(file.read_bytes()))
        except ValueError as error:
            raise ParameterError(f"{file} is no JSON ({error}): run `foundling {command}` again") from error
    results, images = content
    if not isinstance(images, dict):
        kind = type(images).__name__
        raise ParameterError(f"{folder / IMAGES} holds a {kind}, no COCO images and categories: run {command} again")
    return results, images


def detectron2_dataset(labels: PseudoLabels, samples: Sequence[Sample]) -> list[dict[str, Any]]:
    """The images that have a box in Detectron2's standard form, corners in pixels; classes from 0.

    ``file_name`` is the sample's path. Raises as :meth:`PseudoLabels.usable`.
    """
    return [
        {
            "file_name": str(sample.path),
            "image_id": image.image_id,
            "height": image.size[0],
            "width": image.size[1],
            "annotations": [
                {"iscrowd": 0, "bbox": box, "category_id": label, "bbox_mode": XYXY_ABS}
                | ({} if image.masks is None else {"segmentation": image.masks[row]})
                for row, (box, label) in enumerate(zip(image.boxes.tolist(), image.labels.tolist(), strict=True))
            ],
        }
        for sample, image in labels.usable(samples)
    ]


def write_lost_dataset(file: Path, labels: PseudoLabels, samples: Sequence[Sample], name: str) -> Path:
    """Write the labels as the file that LOST's own training scripts register: ``dataset`` and ``meta_data``."""
    about = {"name": name, "evaluator_type": "coco", "thing_classes": list(labels.classes)}
    content = {"dataset": detectron2_dataset(labels, samples), "meta_data": about}
    return write_bytes(file, f"{json.dumps(content, separators=(',', ':'))}\n".encode())
