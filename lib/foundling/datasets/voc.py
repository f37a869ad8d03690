"""PASCAL VOC 2007 and 2012 in the layout of the VOCdevkit: boxes of detection splits, masks of segmentation splits."""

import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from foundling import paths
from foundling.datasets.base import Dataset, Problems, describe, files_present, tidy_boxes
from foundling.datasets.images import AnyPath, image_size
from foundling.datasets.voc_masks import AUGMENTED_MAPS, mask_target
from foundling.errors import DataMissing, ImageError
from foundling.types import Sample, Target

CATEGORIES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
YEARS = (2007, 2012)
NO_HARD, MASKS = "_noh", "seg_"
AUGMENTED = "seg_trainaug"
OTHER_NAMES = {"trainaug": ("train_aug",)}  # of a split's list


class Object(NamedTuple):
    """One ``object`` element: corners by LOST's convention, index into ``CATEGORIES``, flags."""

    box: tuple[float, float, float, float]
    label: int
    difficult: bool
    truncated: bool


def open_voc(year: int, split: str, root: AnyPath | None = None) -> Dataset:
    """The images of a VOC split (detection: ``ImageSets/Main``), with the boxes of their ``object`` elements.

    Boxes follow LOST: ``(xmin − 1, ymin − 1, xmax, ymax)``, which turns VOC's one-based inclusive pixels into
    half-open ones; boxes of ``part`` elements do not count. Difficult and truncated objects are kept and flagged; a
    split that ends in ``_noh`` drops both, and then the images left without any object (LOST, appendix B.1).

    A split that begins with ``seg_`` is one of the segmentation task (``ImageSets/Segmentation``): its objects are the
    instances of ``SegmentationObject``, with masks, and boxes around these; nothing is known there to be difficult or
    truncated, and what is void in the masks is nobody's. All masks are read on opening, some 5 ms an image.
    ``seg_trainaug`` (2012, with the annotations of SBD) has no instances and so no targets: only label maps, in
    ``SegmentationClassAug`` beside the list ``ImageSets/Segmentation/trainaug.txt``, neither of which comes with VOC;
    :func:`foundling.datasets.semantic.semantic_truth` reads them.

    ``root`` is ``VOC<year>`` itself, a ``VOCdevkit``, or a folder that holds either; by default ``voc`` in the data
    folder. Sample names are file names.

    Raises :class:`DataMissing` if the dataset, the split or every image is missing.
    """
    task = "Segmentation" if split.startswith(MASKS) else "Main"
    home = find_voc(year, paths.data_dir() / "voc" if root is None else Path(root), task)
    base = split.removesuffix(NO_HARD).removeprefix(MASKS)
    problems: Problems = defaultdict(list)
    ids = _split_ids(home, task, base)
    here = files_present(home / "JPEGImages", [f"{i}.jpg" for i in ids])
    maps = files_present(home / AUGMENTED_MAPS, [f"{i}.png" for i in ids]) if split == AUGMENTED else set()
    samples = []
    for i in ids:
        if f"{i}.jpg" not in here:
            problems["image missing on disk (dropped)"].append(f"{i}.jpg")
        elif split == AUGMENTED and f"{i}.png" not in maps:
            problems[f"image without a label map in {AUGMENTED_MAPS} (dropped)"].append(f"{i}.jpg")
        elif split == AUGMENTED:
            samples.append(Sample(f"{i}.jpg", home / "JPEGImages" / f"{i}.jpg", int(i.replace("_", ""))))
        elif (target := _read(home, i, split, problems)) is not None:
            samples.append(Sample(f"{i}.jpg", home / "JPEGImages" / f"{i}.jpg", int(i.replace("_", "")), target))
    if not samples:
        reasons = "".join(f"\n  {line}" for line in describe(problems))
        raise DataMissing(
            f"{home}: none of the {len(ids)} images of split {split!r} is usable:{reasons}\n{_hint(year)}"
        )
    category_ids = tuple(range(1, len(CATEGORIES) + 1))
    annotated = split != AUGMENTED
    return Dataset(
        f"voc{year % 100:02}", split, tuple(samples), CATEGORIES, annotated, describe(problems), category_ids
    )


def find_voc(year: int, root: Path, task: str = "Main") -> Path:
    """The folder ``VOC<year>`` at or below ``root`` with lists of ``task``.

    Raises :class:`DataMissing`, saying where it was looked for.
    """
    name = f"VOC{year}"
    # the last but one is where the code of LOST keeps it
    tried = [root / "VOCdevkit" / name, root / name, root / name / "VOCdevkit" / name, root]
    if root.name in {f"VOC{other}" for other in YEARS if other != year}:
        tried.remove(root)
    for folder in tried:
        if (folder / "ImageSets" / task).is_dir() and (folder / "JPEGImages").is_dir():
            return folder
    listed = "".join(f"\n  {folder}" for folder in tried)
    raise DataMissing(f"{name} not found; looked for ImageSets/{task} and JPEGImages in:{listed}\n{_hint(year)}")


def _hint(year: int) -> str:
    return f"get it with: foundling data voc{year % 100:02}, or give root=, the folder that holds VOC{year}"


def _split_ids(home: Path, task: str, split: str) -> list[str]:
    """The ids that a list names: on every line first, alone or, in some lists of trainaug, as the path of an image."""
    lists = [home / "ImageSets" / task / f"{name}.txt" for name in (split, *OTHER_NAMES.get(split, ()))]
    file = next((file for file in lists if file.is_file()), lists[0])
    if not file.is_file():
        present = sorted(other.stem for other in file.parent.glob("*.txt") if "_" not in other.stem)
        raise DataMissing(f"{file}: no such split file; present here: {', '.join(present) or 'none'}")
    return [Path(line.split()[0]).stem for line in file.read_text().splitlines() if line.strip()]


def _read(home: Path, image: str, split: str, problems: Problems) -> Target | None:
    if split.startswith(MASKS):
        return mask_target(home, image, len(CATEGORIES), problems)
    return _target(home, image, split.endswith(NO_HARD), problems)


def _target(home: Path, image: str, easy_only: bool, problems: Problems) -> Target | None:
    """Ground truth of one image; ``None`` if its annotation is unusable or leaves no object where one is needed."""
    file = home / "Annotations" / f"{image}.xml"
    name = f"{image}.jpg"
    if not file.is_file():
        problems["image without an annotation file (dropped)"].append(name)
        return None
    try:
        root = ElementTree.parse(file).getroot()
        size = _size(root) or image_size(home / "JPEGImages" / name)
    except ElementTree.ParseError as error:
        problems["malformed annotation file (image dropped)"].append(f"{file}, {error}")
        return None
    except ImageError as error:
        problems["image of unknown size (dropped)"].append(str(error))
        return None
    rows = [row for element in root.findall("object") if (row := _object(element, name, problems))]
    if easy_only:
        rows = [row for row in rows if not (row.difficult or row.truncated)]
        if not rows:
            return None
    return _assemble(rows, size, name, problems)


def _size(root: ElementTree.Element) -> tuple[int, int] | None:
    height, width = root.findtext("size/height", ""), root.findtext("size/width", "")
    return (int(height), int(width)) if height.isdecimal() and width.isdecimal() and int(height) * int(width) else None


def _object(element: ElementTree.Element, name: str, problems: Problems) -> Object | None:
    category = element.findtext("name", "").strip()
    if category not in CATEGORIES:
        problems["object of a category that VOC does not have (dropped)"].append(f"{name} ({category!r})")
        return None
    try:
        x0, y0, x1, y1 = (float(element.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax"))
    except ValueError:
        problems["object without a box of four numbers (dropped)"].append(name)
        return None
    flags = (element.findtext(flag, "0").strip() == "1" for flag in ("difficult", "truncated"))
    return Object((x0 - 1, y0 - 1, x1, y1), CATEGORIES.index(category), *flags)


def _assemble(rows: list[Object], size: tuple[int, int], name: str, problems: Problems) -> Target:
    boxes = np.array([row.box for row in rows], dtype=np.float64).reshape(-1, 4)
    boxes, keep, clipped = tidy_boxes(boxes, size)
    problems["box reaching outside its image (clipped)"] += [name] * int(clipped.sum())
    problems["box without area inside its image (dropped)"] += [name] * int((~keep).sum())
    rows = [row for row, kept in zip(rows, keep, strict=True) if kept]
    return Target(
        boxes=boxes[keep],
        labels=np.array([row.label for row in rows], dtype=np.int64),
        difficult=np.array([row.difficult for row in rows], dtype=bool),
        truncated=np.array([row.truncated for row in rows], dtype=bool),
        crowd=np.zeros(len(rows), dtype=bool),
    )
