"""What ``foundling discover`` writes once the boxes are known: COCO files, overlays, the contact sheet, the summary."""

import io
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from foundling.datasets.images import read_image
from foundling.discovery.export import coco_results
from foundling.discovery.progress import progress
from foundling.discovery.stream import Found
from foundling.files import write_bytes
from foundling.report.contact import Entry, contact_sheet, draw_overlay, label_colors
from foundling.types import Failure, Sample

OVERLAY_SIDE = 1600  # pixels: an overlay is for looking, not for measuring
OVERLAY_NAME = re.compile(r"\d{5,}_.*\.jpg")


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as indented UTF-8 JSON; the file appears whole or not at all."""
    write_bytes(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def write_coco(out: Path, samples: Sequence[Sample], found: Found) -> None:
    """``images.json``, which pycocotools reads as annotations without objects, and the results of each method."""
    for label in found.boxes:
        name = "results.json" if len(found.boxes) == 1 else f"results.{label}.json"
        write_json(out / name, coco_results(found, samples, label))
    images = [
        {
            "id": samples[record["index"]].image_id,
            "file_name": record["name"],
            "width": record["size"][1],
            "height": record["size"][0],
        }
        for record in found.records
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
    labels = tuple(found.boxes)
    colors = list(label_colors(labels).values())
    with progress(len(found.records), "drawing") as advance:
        for record in found.records:
            i = record["index"]
            image = read_image(samples[i].path, orient=samples[i].orient)
            boxes = np.stack([found.boxes[label][i] for label in labels]).astype(np.float64)  # [method, 4]
            path = overlays / overlay_name(samples[i])
            write_overlay(path, image, boxes, colors)
            written.add(path)
            flags = [flag for label in labels for flag in record["methods"][label]["flags"]]
            yield Entry(
                samples[i].name,
                image,
                boxes,
                labels=labels if len(labels) > 1 else (),
                flags=tuple(dict.fromkeys(flags)),
                link=f"{overlays.name}/{path.name}",
            )
            advance(1)


def overlay_name(sample: Sample) -> str:
    """A file name for the overlay that is unique in the folder, whatever the photo is called."""
    stem = re.sub(r"[^\w.-]+", "_", Path(sample.name).stem)[:80]
    return f"{sample.image_id:05d}_{stem}.jpg"


def write_overlay(path: Path, image: Image.Image, boxes: Float[np.ndarray, "method 4"], colors: Sequence[str]) -> None:
    """Draw each method's box in its own colour and save the picture as JPEG, scaled down if it is very large."""
    small = image.copy()
    small.thumbnail((OVERLAY_SIDE, OVERLAY_SIDE))
    scale = np.array([small.width / image.width, small.height / image.height] * 2)
    buffer = io.BytesIO()
    draw_overlay(small, boxes * scale, colors).save(buffer, "JPEG", quality=90)
    write_bytes(path, buffer.getvalue())
