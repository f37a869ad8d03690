"""COCO: any image folder with an instances JSON, and COCO20k (LOST's 19,817 images of train2014)."""

import contextlib
import io
import json
from collections import defaultdict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from pycocotools import mask as rle_codec
from pycocotools.coco import COCO

from foundling import paths
from foundling.datasets.base import AnnotationError, Dataset, Problems, describe, files_present, tidy_boxes
from foundling.datasets.images import AnyPath, image_size
from foundling.errors import DataMissing, ImageError
from foundling.types import Sample, Target

COCO20K_IDS = paths.RESOURCES / "coco20k.npz"


def open_coco(
    root: AnyPath,
    annotations: AnyPath,
    *,
    name: str = "coco",
    split: str = "custom",
    image_ids: Collection[int] | None = None,
    masks: bool = True,
    round_boxes: bool = False,
) -> Dataset:
    """The images below the folder ``root`` that the COCO instances file ``annotations`` describes, by ascending id.

    Boxes become corners; crowds are kept and flagged. ``masks`` also turns every segmentation into an RLE dict
    (some 30 µs an object). ``image_ids`` keeps only these images. ``round_boxes`` rounds corners to whole pixels,
    halves to even, as the reference code of LOST does. Boxes are clipped to the image, and those annotated without
    area dropped; ``Dataset.problems`` counts these, and whatever else in the file could not be used.

    Raises :class:`DataMissing` if the folder, the file or every image is missing, :class:`AnnotationError` if the
    file is no COCO instances JSON.
    """
    root, annotations = Path(root), Path(annotations)
    problems: Problems = defaultdict(list)
    content = _load(root, annotations)
    images = _images(content["images"], problems)
    categories = _categories(content["categories"], annotations)
    kept = _chosen(images, image_ids, problems)
    usable = _usable(content["annotations"], images, categories, images.keys() - set(kept), problems)
    index = _index({**content, "images": list(images.values()), "annotations": usable})
    files = {i: images[i]["file_name"] for i in kept}
    here = files_present(root, list(files.values()))
    problems["image missing on disk (dropped)"] += [file for file in files.values() if file not in here]
    samples = [
        Sample(file, root / file, i, _target(index, i, root, list(categories), masks, round_boxes, problems))
        for i, file in files.items()
        if file in here
    ]
    if not samples:
        raise DataMissing(
            f"{root}: none of the {len(kept)} images that {annotations} describes is here; "
            "give as root the folder that its file_name entries start from"
        )
    return Dataset(name, split, tuple(samples), tuple(categories.values()), True, describe(problems), tuple(categories))


def open_coco_images(root: AnyPath, images: AnyPath, *, name: str = "coco", split: str = "custom") -> Dataset:
    """The images below the folder ``root`` that ``images`` lists, by ascending id, without annotations.

    ``images`` is a COCO JSON that need have nothing but images, such as ``image_info_unlabeled2017.json``. Raises as
    :func:`open_coco`.
    """
    root, images, problems = Path(root), Path(images), defaultdict[str, list[str]](list)
    files = {
        i: entry["file_name"]
        for i, entry in sorted(_images(_load(root, images, ("images",))["images"], problems).items())
    }
    here = files_present(root, list(files.values()))
    problems["image missing on disk (dropped)"] += [file for file in files.values() if file not in here]
    samples = tuple(Sample(file, root / file, i) for i, file in files.items() if file in here)
    if not samples:
        raise DataMissing(
            f"{root}: none of the {len(files)} images that {images} lists is here; give their folder as root"
        )
    return Dataset(name, split, samples, problems=describe(problems))


def coco20k_ids() -> list[int]:
    """The 19,817 image ids of COCO20k, ascending."""
    with np.load(COCO20K_IDS, allow_pickle=False) as stored:
        return np.cumsum(stored["steps"], dtype=np.int64).tolist()


def _load(
    root: Path, annotations: Path, needed: Sequence[str] = ("images", "annotations", "categories")
) -> dict[str, Any]:
    if not root.is_dir():
        raise DataMissing(f"{root}: no such image folder; give the folder of the images as root")
    if not annotations.is_file():
        raise DataMissing(f"{annotations}: no such annotation file; give the COCO instances JSON as annotations")
    try:
        content = json.loads(annotations.read_bytes())
    except json.JSONDecodeError as error:
        raise AnnotationError(f"{annotations}, line {error.lineno}, column {error.colno}: {error.msg}") from error
    except UnicodeDecodeError as error:
        raise AnnotationError(f"{annotations}: no JSON text, but binary data ({error.reason})") from error
    for key in needed:
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            usual = "an instances JSON has images, annotations and categories"
            raise AnnotationError(f"{annotations}: no list {key!r} at its top; {usual}")
    return content


def _images(entries: list[Any], problems: Problems) -> dict[int, dict[str, Any]]:
    """The usable image entries by id: a whole-number id and a file name, neither of them seen before."""
    images: dict[int, dict[str, Any]] = {}
    names: set[str] = set()
    for entry in entries:
        if not _has(entry, id=int, file_name=str):
            problems["image entry without a whole-number id and a file_name (dropped)"].append(str(entry)[:80])
        elif entry["id"] in images or entry["file_name"] in names:
            problems["image entry whose id or file_name occurred before (dropped)"].append(entry["file_name"])
        else:
            images[entry["id"]] = entry
            names.add(entry["file_name"])
    return images


def _categories(entries: list[Any], annotations: Path) -> dict[int, str]:
    for entry in entries:
        if not _has(entry, id=int, name=str):
            raise AnnotationError(f"{annotations}: category without a whole-number id and a name: {str(entry)[:80]}")
    return {entry["id"]: entry["name"] for entry in sorted(entries, key=lambda entry: entry["id"])}


def _usable(
    entries: list[Any],
    images: dict[int, dict[str, Any]],
    categories: dict[int, str],
    others: Collection[int],
    problems: Problems,
) -> list[dict[str, Any]]:
    """The annotations that say where which category is in which image; those of ``others`` are passed over."""
    usable = []
    for number, entry in enumerate(entries):
        if _has(entry, image_id=int) and entry["image_id"] in others:
            continue
        if not _has(entry, image_id=int, category_id=int, bbox=list) or not _is_box(entry["bbox"]):
            problems["annotation without image_id, category_id or bbox of four numbers (dropped)"].append(f"#{number}")
        elif entry["image_id"] not in images:
            problems["annotation of an unknown image (dropped)"].append(f"image_id {entry['image_id']}")
        elif entry["category_id"] not in categories:
            problems["annotation of an unknown category (dropped)"].append(f"category_id {entry['category_id']}")
        else:
            usable.append(entry if "id" in entry else {**entry, "id": -1 - number})
    return usable


def _has(entry: Any, **types: type) -> bool:
    return isinstance(entry, dict) and all(isinstance(entry.get(key), kind) for key, kind in types.items())


def _is_box(box: list[Any]) -> bool:
    return len(box) == 4 and all(isinstance(v, int | float) and abs(v) < float("inf") for v in box)


def _index(content: dict[str, Any]) -> COCO:
    index = COCO()
    index.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):
        index.createIndex()
    return index


def _chosen(images: dict[int, dict[str, Any]], image_ids: Collection[int] | None, problems: Problems) -> list[int]:
    if image_ids is None:
        return sorted(images)
    if absent := sorted(set(image_ids) - images.keys()):
        problems["image of the subset that the annotation file does not describe"] += map(str, absent)
    return sorted(images.keys() & set(image_ids))


def _target(
    index: COCO, image_id: int, root: Path, category_ids: list[int], masks: bool, rounded: bool, problems: Problems
) -> Target:
    image, entries = index.imgs[image_id], index.imgToAnns[image_id]
    name = image["file_name"]
    try:
        height, width = _size(image, root / name)
    except ImageError:
        problems["image of unknown size, its objects unused: neither the JSON nor the file tells"].append(name)
        height, width, entries = 0, 0, []
    boxes = np.array([entry["bbox"] for entry in entries], dtype=np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    boxes, keep, clipped = tidy_boxes(boxes, (height, width))
    problems["box reaching outside its image (clipped)"] += [name] * int(clipped.sum())
    problems["box without area inside its image (dropped)"] += [name] * int((~keep).sum())
    entries = [entry for entry, kept in zip(entries, keep, strict=True) if kept]
    labels = np.searchsorted(category_ids, [entry["category_id"] for entry in entries]).astype(np.int64)
    crowd = np.array([bool(entry.get("iscrowd")) for entry in entries], dtype=bool)
    none = np.zeros(len(entries), dtype=bool)
    return Target(
        np.rint(boxes[keep]) if rounded else boxes[keep], labels, none, none, crowd,
        _rles(entries, (height, width), name, problems) if masks else None,
    )  # fmt: skip


def _size(image: dict[str, Any], path: Path) -> tuple[int, int]:
    if _has(image, height=int, width=int) and image["height"] > 0 and image["width"] > 0:
        return image["height"], image["width"]
    return image_size(path)


def _rles(
    entries: list[dict[str, Any]], size: tuple[int, int], name: str, problems: Problems
) -> list[dict[str, Any]] | None:
    """The segmentations as RLE dicts; ``None`` if one of them is absent or unusable, because masks match boxes."""
    rles = [_rle(entry.get("segmentation"), size) for entry in entries]
    usable = [rle for rle in rles if rle is not None]
    if len(usable) == len(rles):
        return usable
    if any(entry.get("segmentation") for entry in entries):
        problems["image whose masks are unused: one or more objects lack a usable segmentation"].append(name)
    return None


def _rle(segmentation: Any, size: tuple[int, int]) -> dict[str, Any] | None:
    """One segmentation (polygons, or RLE with counts as a list or a string) as an RLE dict with string counts.

    ``None`` where pycocotools would crash on it, or decode it to uninitialised memory.
    """
    pixels = size[0] * size[1]
    if isinstance(segmentation, list):
        polygons = [p for p in segmentation if _is_polygon(p, 4.0 * max(size))]
        if not polygons:
            return None
        counts = rle_codec.merge(rle_codec.frPyObjects(polygons, *size))["counts"].decode("ascii")
    elif not _has(segmentation, size=list) or segmentation["size"] != list(size):
        return None
    elif _has(segmentation, counts=str):
        counts = segmentation["counts"]
        if run_lengths(counts).sum() != pixels:
            return None
    else:
        runs = segmentation.get("counts")
        if not isinstance(runs, list) or not all(isinstance(r, int) and r >= 0 for r in runs) or sum(runs) != pixels:
            return None
        counts = rle_codec.frPyObjects(segmentation, *size)["counts"].decode("ascii")
    return {"size": list(size), "counts": counts}


def _is_polygon(points: Any, reach: float) -> bool:
    """Three or more points, none of them so far away that rasterising their edges would exhaust the memory."""
    return (
        isinstance(points, list)
        and len(points) >= 6
        and len(points) % 2 == 0
        and all(isinstance(v, int | float) and -reach <= v <= reach for v in points)
    )


def run_lengths(counts: str) -> Int[np.ndarray, " run"]:
    """The runs (background, object, background, …) that the string of a compressed RLE stands for; none if damaged.

    Each run is a little-endian number of signed five-bit digits, kept in printable characters from ``"0"`` on, whose
    bit 5 says that another digit follows; from the fourth on it is the difference to the run two places before.
    """
    codes = np.frombuffer(counts.encode("utf-8"), np.uint8).astype(np.int64) - 48
    none = np.zeros(0, dtype=np.int64)
    if not codes.size or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return none
    ends = np.flatnonzero(codes & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    digits = ends - starts + 1
    if digits.max() > 7:  # more than 32 bits
        return none
    place = 5 * (np.arange(codes.size) - np.repeat(starts, digits))
    runs = np.add.reduceat((codes & 31) << place, starts)
    runs -= np.where(codes[ends] & 16, 1 << 5 * digits, 0)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs if runs.min() >= 0 else none
