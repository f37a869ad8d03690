"""What commands on photos write in the end: COCO files, overlays, contact sheet, summary."""

import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float
from PIL import Image, ImageColor, ImageDraw, ImageFont
from pycocotools import mask as coco_mask

from foundling.commands.categories import FILE, Sorting, content
from foundling.datasets.images import read_image
from foundling.discovery.export import coco_results
from foundling.discovery.progress import progress
from foundling.discovery.stream import Found
from foundling.evaluation import to_results
from foundling.files import write_bytes
from foundling.proposals import ProposalSet
from foundling.proposals.filters import RLE
from foundling.report.contact import COLORS, Entry, contact_sheet, draw_overlay, label_colors
from foundling.training.detected import DetectedSet, detections_of
from foundling.types import Failure, Sample

OVERLAYS = "overlays"
OVERLAY_SIDE = 1600  # pixels: an overlay is for looking, not for measuring
OVERLAY_NAME = re.compile(r"\d{5,}_.*\.jpg")


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented UTF-8 JSON; the file appears whole or not at all."""
    write_bytes(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def write_coco(out: Path, samples: Sequence[Sample], found: Found, sorting: Sorting | None = None) -> None:
    """``images.json``, which pycocotools reads as annotations without objects, and the results of each method.

    With ``sorting``, all that was found in a photo has the photo's category.
    """
    numbers = {sample.image_id: sorting.number(i) for i, sample in enumerate(samples)} if sorting else {}
    for label in found.boxes:
        name = "results.json" if len(found.boxes) == 1 else f"results.{label}.json"
        entries = coco_results(found, samples, label)
        write_json(out / name, [entry | {"category_id": numbers.get(entry["image_id"], 1)} for entry in entries])
    write_images(out, samples, found, sorting.names if sorting else ("object",))


def write_categories(out: Path, samples: Sequence[Sample], found: Found, sorting: Sorting | None) -> None:
    """``categories.json``: the photos of each category; without ``sorting``, that of an earlier run goes."""
    if sorting is None:
        (out / FILE).unlink(missing_ok=True)
    else:
        write_json(out / FILE, content(sorting, samples, found))


def write_images(
    out: Path, samples: Sequence[Sample], found: Found | DetectedSet, categories: Sequence[str] = ("object",)
) -> None:
    """``images.json``: the images that were read, as COCO annotations without objects."""
    images = [
        {
            "id": samples[record["index"]].image_id,
            "file_name": record["name"],
            "width": record["size"][1],
            "height": record["size"][0],
        }
        for record in found.records
    ]
    named = [{"id": i, "name": name} for i, name in enumerate(categories, 1)]
    write_json(out / "images.json", {"images": images, "annotations": [], "categories": named})


def write_pictures(
    out: Path,
    samples: Sequence[Sample],
    found: Found,
    notes: Sequence[str],
    failures: Sequence[Failure],
    sorting: Sorting | None = None,
) -> None:
    """The overlays and the contact sheet ``index.html``, by category where there are such; one photo is in memory at a
    time."""
    write_sheet(out, "Objects found", _entries(out / OVERLAYS, samples, found, sorting), notes, failures)


def write_mask_pictures(
    out: Path, samples: Sequence[Sample], proposals: ProposalSet, notes: Sequence[str], failures: Sequence[Failure]
) -> None:
    """The overlays and the contact sheet of proposals: outlines of masks."""
    write_sheet(out, "Masks proposed", _mask_entries(out / OVERLAYS, samples, proposals), notes, failures)


def write_detections(out: Path, samples: Sequence[Sample], found: DetectedSet) -> None:
    """``results.json``: every detection; ``images.json`` names the classes as categories."""
    write_json(out / "results.json", to_results(found.detections(samples)))
    write_images(out, samples, found, found.classes)


def write_detection_pictures(
    out: Path,
    samples: Sequence[Sample],
    found: DetectedSet,
    least: float,
    notes: Sequence[str],
    failures: Sequence[Failure],
) -> None:
    """The overlays and the contact sheet of detections with a score of ``least`` (0..1) or more."""
    write_sheet(out, "Objects detected", _detected_entries(out / OVERLAYS, samples, found, least), notes, failures)


def write_sheet(
    out: Path, title: str, entries: Iterator[Entry], notes: Sequence[str], failures: Sequence[Failure]
) -> None:
    """The sheet, and in the end no overlays that it does not show."""
    stale = {path for path in (out / OVERLAYS).glob("*.jpg") if OVERLAY_NAME.fullmatch(path.name)}
    shown: set[Path] = set()

    def noted() -> Iterator[Entry]:
        for entry in entries:
            shown.add(out / (entry.link or ""))
            yield entry

    contact_sheet(noted(), out / "index.html", title, notes=notes, failures=failures)
    for path in stale - shown:
        path.unlink()


def _entries(
    overlays: Path, samples: Sequence[Sample], found: Found, sorting: Sorting | None = None
) -> Iterator[Entry]:
    labels = tuple(found.boxes)
    colors = list(label_colors(labels).values())
    records = found.records
    if sorting:
        by_photo = {record["index"]: record for record in records}
        records = [by_photo[i] for i in sorting.order if i in by_photo]
    with progress(len(records), "drawing") as advance:
        for record in records:
            i = record["index"]
            image = read_image(samples[i].path, orient=samples[i].orient)
            boxes = np.stack([found.boxes[label][i] for label in labels]).astype(np.float64)  # [method, 4]
            path = overlays / overlay_name(samples[i])
            write_overlay(path, image, boxes, colors)
            flags = [flag for label in labels for flag in record["methods"][label]["flags"]]
            yield Entry(
                samples[i].name,
                image,
                boxes,
                labels=labels if len(labels) > 1 else (),
                flags=tuple(dict.fromkeys(flags)),
                link=f"{overlays.name}/{path.name}",
                group=sorting.name(i) if sorting else "",
            )
            advance(1)


def _mask_entries(overlays: Path, samples: Sequence[Sample], proposals: ProposalSet) -> Iterator[Entry]:
    with progress(len(proposals.images), "drawing") as advance:
        for found in proposals.images:
            sample = samples[found.index]
            image = outlined(read_image(sample.path, orient=sample.orient), found.masks)
            path = overlays / overlay_name(sample)
            write_overlay(path, image, np.zeros((0, 4)), ())
            words = f"{len(found.masks)} mask{'s' * (len(found.masks) != 1)}"
            yield Entry(sample.name, image, np.zeros((0, 4)), link=f"{overlays.name}/{path.name}", words=words)
            advance(1)


def _detected_entries(overlays: Path, samples: Sequence[Sample], found: DetectedSet, least: float) -> Iterator[Entry]:
    colors = label_colors(found.classes)
    with progress(len(found.records), "drawing") as advance:
        for record in found.records:
            sample, all_found = samples[record["index"]], detections_of(record)
            sure = all_found.scores >= least
            boxes, names = all_found.boxes[sure], [found.classes[label] for label in all_found.labels[sure]]
            shares = [f"{100 * score:.0f} %" for score in all_found.scores[sure]]
            several = len(found.classes) > 1
            tags = [f"{name} {share}" if several else share for name, share in zip(names, shares, strict=True)]
            image = read_image(sample.path, orient=sample.orient)
            path = overlays / overlay_name(sample)
            write_overlay(path, image, boxes, [colors[name] for name in names], tags)
            yield Entry(
                sample.name,
                image,
                boxes,
                labels=tuple(names) if several else (),
                link=f"{overlays.name}/{path.name}",
                words=f"{len(tags)} object{'s' * (len(tags) != 1)}" + (f": {', '.join(tags)}" if tags else ""),
                layered=False,
            )
            advance(1)


def outlined(image: Image.Image, masks: Sequence[RLE]) -> Image.Image:
    """The image with the outline of every mask, the best ones on top."""
    canvas = np.array(image.convert("RGB"))
    line = max(2, round(max(image.size) / 200))
    for i, mask in reversed(list(enumerate(masks))):
        edges, _ = cv2.findContours(coco_mask.decode(mask), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, edges, -1, ImageColor.getrgb(COLORS[i % len(COLORS)]), line)
    return Image.fromarray(canvas)


def overlay_name(sample: Sample) -> str:
    """A file name for the overlay that is unique in the folder, whatever the photo is called."""
    stem = re.sub(r"[^\w.-]+", "_", Path(sample.name).stem)[:80]
    return f"{sample.image_id:05d}_{stem}.jpg"


def write_overlay(
    path: Path,
    image: Image.Image,
    boxes: Float[np.ndarray, "box 4"],
    colors: Sequence[str],
    tags: Sequence[str] | None = None,
) -> None:
    """Draw each box in its own colour and save the picture as JPEG, scaled down if it is very large.

    Without ``tags`` they are of several methods, and equal ones show both; ``tags`` are written into their corners.
    """
    small = image.copy()
    small.thumbnail((OVERLAY_SIDE, OVERLAY_SIDE))
    scale = np.array([small.width / image.width, small.height / image.height] * 2)
    buffer = io.BytesIO()
    drawn = draw_overlay(small, boxes * scale, colors, layered=tags is None)
    _write_tags(drawn, boxes * scale, colors, tags or ())
    drawn.save(buffer, "JPEG", quality=90)
    write_bytes(path, buffer.getvalue())


def _write_tags(
    canvas: Image.Image, boxes: Float[np.ndarray, "box 4"], colors: Sequence[str], tags: Sequence[str]
) -> None:
    """Write a few words into the upper left corner of each box, on a ground of its colour; the first ones on top."""
    pen, size = ImageDraw.Draw(canvas), max(10, round(max(canvas.size) / 45))
    font = ImageFont.load_default(size)
    for (x, y, _, _), color, tag in reversed(list(zip(boxes.tolist(), colors, tags, strict=False))):
        corner = (max(0, round(x)), max(0, round(y)))
        pen.rectangle(pen.textbbox(corner, tag, font=font), fill=color, outline=color, width=2)
        pen.text(corner, tag, fill="white", font=font)
