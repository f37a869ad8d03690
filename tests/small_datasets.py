"""Small datasets in the published layouts, written by tests: VOCdevkit and COCO; and images of noise."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from foundling.types import Sample


def write_noise(folder: Path, count: int = 2) -> list[Sample]:
    """Images of noise, 48×64 pixels, in ``folder``."""
    rng, made = np.random.default_rng(0), list[Sample]()
    for i in range(count):
        Image.fromarray(rng.integers(0, 255, (48, 64, 3)).astype(np.uint8)).save(path := folder / f"{i}.png")
        made.append(Sample(path.name, path, i))
    return made


class VocObject(NamedTuple):
    """One object as VOC writes it: one-based, inclusive corners."""

    name: str
    box: tuple[float, float, float, float]
    difficult: int = 0
    truncated: int = 0


def voc_xml(image: str, size: tuple[int, int] | None, objects: Sequence[VocObject]) -> str:
    """A VOC annotation; ``size`` is (width, height). Each object also has a part, which must never count."""
    sides = ("xmin", "ymin", "xmax", "ymax")
    text = f"<annotation><folder>VOC2007</folder><filename>{image}.jpg</filename>"
    if size is not None:
        text += f"<size><width>{size[0]}</width><height>{size[1]}</height><depth>3</depth></size>"
    for thing in objects:
        box = "".join(f"<{side}>{value}</{side}>" for side, value in zip(sides, thing.box, strict=True))
        part = (
            "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2.5</xmax><ymax>2</ymax></bndbox></part>"
        )
        text += f"<object><name>{thing.name}</name><truncated>{thing.truncated}</truncated>"
        text += f"<difficult>{thing.difficult}</difficult>\n<bndbox>{box}</bndbox>{part}</object>"
    return text + "</annotation>\n"


def make_voc(
    root: Path, images: Mapping[str, Sequence[VocObject]], year: int = 2007, split: str = "trainval", side: int = 50
) -> Path:
    """``root/VOC<year>`` with square black images and one split that lists them all; returns that folder."""
    home = root / f"VOC{year}"
    for folder in ("ImageSets/Main", "JPEGImages", "Annotations"):
        (home / folder).mkdir(parents=True, exist_ok=True)
    (home / "ImageSets/Main" / f"{split}.txt").write_text("".join(f"{image}\n" for image in images))
    for image, objects in images.items():
        Image.new("RGB", (side, side)).save(home / "JPEGImages" / f"{image}.jpg")
        (home / "Annotations" / f"{image}.xml").write_text(voc_xml(image, (side, side), objects))
    return home


def make_voc_masks(
    root: Path, images: Mapping[str, tuple[np.ndarray, np.ndarray]], split: str = "val", year: int = 2012
) -> Path:
    """``root/VOC<year>`` with black images, their object and class numbers as indexed PNGs, and one segmentation split.

    Each image has two uint8 arrays [height, width]: SegmentationObject and SegmentationClass. Returns that folder.
    """
    home = root / f"VOC{year}"
    for folder in ("ImageSets/Segmentation", "JPEGImages", "SegmentationObject", "SegmentationClass"):
        (home / folder).mkdir(parents=True, exist_ok=True)
    (home / "ImageSets/Segmentation" / f"{split}.txt").write_text("".join(f"{image}\n" for image in images))
    for image, both in images.items():
        Image.new("RGB", both[0].shape[::-1]).save(home / "JPEGImages" / f"{image}.jpg")
        for folder, numbers in zip(("SegmentationObject", "SegmentationClass"), both, strict=True):
            mask = Image.fromarray(numbers)
            mask.putpalette([c for i in range(256) for c in (i, 255 - i, 7 * i % 256)])
            mask.save(home / folder / f"{image}.png")
    return home


def coco_annotation(image_id: int, box: Sequence[float], category_id: int = 1, **more: Any) -> dict[str, Any]:
    """One COCO annotation whose only polygon is its box, ``(x, y, width, height)``."""
    x, y, w, h = box
    polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
    return {
        "image_id": image_id, "category_id": category_id, "bbox": list(box), "segmentation": [polygon], "area": w * h,
        "iscrowd": 0, **more,
    }  # fmt: skip


def make_coco(
    folder: Path,
    names: Mapping[int, str],
    annotations: Sequence[dict[str, Any]],
    annotation_file: Path | None = None,
    size: tuple[int, int] = (60, 40),
) -> Path:
    """Black images of ``size`` (width, height) in ``folder`` by id, and an instances JSON, whose path is returned."""
    for name in names.values():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(folder / name)
    content = {
        "images": [{"id": i, "file_name": n, "width": size[0], "height": size[1]} for i, n in names.items()],
        "annotations": [{"id": i, **a} for i, a in enumerate(annotations, start=1)],
        "categories": [{"id": 7, "name": "dog"}, {"id": 1, "name": "cat"}],
    }
    file = annotation_file or folder / "instances.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return file


SQUARE_COLOURS = ((40, 60, 200), (220, 40, 40), (40, 200, 60))  # background, object 1, object 2


def make_davis(
    home: Path,
    videos: Mapping[str, int],
    split: str = "val",
    size: tuple[int, int] = (48, 32),
    objects: int = 1,
) -> Path:
    """``home`` in the layout of DAVIS 2017: ``videos`` (name -> number of frames) of ``size`` (width, height).

    Object ``i`` is a square of 8 pixels of its own colour, which moves 2 pixels to the right with every frame; object 1
    starts in the upper left corner, the others below one another.
    """
    (home / "ImageSets/2017").mkdir(parents=True, exist_ok=True)
    (home / "ImageSets/2017" / f"{split}.txt").write_text("".join(f"{name}\n" for name in videos))
    for name, count in videos.items():
        for part in ("JPEGImages", "Annotations"):
            (home / part / "480p" / name).mkdir(parents=True)
        for number in range(count):
            labels = np.zeros(size[::-1], dtype=np.uint8)
            for i in range(objects):
                labels[8 * i : 8 * i + 8, 2 * number : 2 * number + 8] = i + 1
            mask = Image.fromarray(labels)
            mask.putpalette([c for i in range(256) for c in (i, 255 - i, 7 * i % 256)])
            mask.save(home / "Annotations/480p" / name / f"{number:05d}.png")
            frame = Image.fromarray(np.array(SQUARE_COLOURS, dtype=np.uint8)[labels])
            frame.save(home / "JPEGImages/480p" / name / f"{number:05d}.jpg", quality=100, subsampling=0)
    return home
