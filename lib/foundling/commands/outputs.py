"""What ``foundling discover`` writes once the boxes are known: COCO files, overlays, the contact sheet, the summary."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from foundling.datasets.images import read_image
from foundling.discovery.export import coco_results
from foundling.discovery.stream import Found
from foundling.report.contact import Entry, contact_sheet, draw_overlay
from foundling.report.style import PALETTE, write_bytes
from foundling.types import Failure, Sample

OVERLAY_SIDE = 1600  # pixels: an overlay is for looking, not for measuring
OVERLAY_NAME = re.compile(r"\d{5,}_.*\.jpg")
COLORS = (PALETTE[1], PALETTE[0], *PALETTE[2:])  # the first method in the colour of everything that was found


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented UTF-8 JSON; the file appears whole or not at all."""
    write_bytes(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def write_coco(out: Path, samples: Sequence[Sample], found: Found) -> None:
    """``images.json``, which pycocotools reads as annotations without objects, and the results of each method."""
    for label in found.boxes:
        name = "results.json" if len(found.boxes) == 1 else f"results.{label}.json"
        write_json(out / name, coco_results(found, samples, label))
    failed = {failure.index for failure in found.failures}
    images = [
        {"id": sample.image_id, "file_name": sample.name, "width": int(width), "height": int(height)}
        for i, (sample, (height, width)) in enumerate(zip(samples, found.sizes, strict=True))
        if i not in failed
    ]
    write_json(out / "images.json", {"images": images, "annotations": [], "categories": [{"id": 1, "name": "object"}]})


def write_pictures(
    out: Path, samples: Sequence[Sample], found: Found, notes: Sequence[str], failures: Sequence[Failure]
) -> None:
    """The overlays and the contact sheet ``index.html``; one photo is in memory at a time."""
    overlays = out / "overlays"
    stale = {path for path in overlays.glob("*.jpg") if OVERLAY_NAME.fullmatch(path.name)}
    written: set[Path] = set()
    entries = _entries(overlays, samples, found, written)
    contact_sheet(entries, out / "index.html", "Objects found", notes=notes, failures=failures)
    for path in stale - written:
        path.unlink()


def _entries(overlays: Path, samples: Sequence[Sample], found: Found, written: set[Path]) -> Iterator[Entry]:
    failed = {failure.index for failure in found.failures}
    for i, sample in enumerate(tqdm(samples, desc="overlays", unit="photo")):
        if i in failed:
            continue
        image = read_image(sample.path, orient=sample.orient)
        boxes = {label: found.boxes[label][i : i + 1].astype(np.float64) for label in found.boxes}
        path = overlays / overlay_name(sample)
        write_overlay(path, image, boxes)
        written.add(path)
        for label, box in boxes.items():
            name = sample.name if len(boxes) == 1 else f"{sample.name} ({label})"
            yield Entry(name, image, box, link=f"{overlays.name}/{path.name}")


def overlay_name(sample: Sample) -> str:
    """A file name for the overlay that is unique in the folder, whatever the photo is called."""
    stem = re.sub(r"[^\w.-]+", "_", Path(sample.name).stem)[:80]
    return f"{sample.image_id:05d}_{stem}.jpg"


def write_overlay(path: Path, image: Image.Image, boxes: Mapping[str, np.ndarray]) -> None:
    """Draw each method's boxes in its own colour and save the picture as JPEG."""
    small = image.copy()
    small.thumbnail((OVERLAY_SIDE, OVERLAY_SIDE))
    scale = np.array([small.width / image.width, small.height / image.height] * 2)
    for color, box in zip(COLORS, boxes.values(), strict=False):
        small = draw_overlay(small, box * scale, color=color)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    small.save(partial, "JPEG", quality=90)
    partial.replace(path)
