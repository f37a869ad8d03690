"""What `foundling segment` writes in the end: masks and label maps in pictures, and what the label maps hold."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageColor, ImageDraw, ImageFont
from pycocotools import mask as coco_mask

from foundling.categories.pseudo_masks import PseudoMasks
from foundling.commands.outputs import OVERLAYS, overlay_name, write_json, write_overlay, write_sheet
from foundling.datasets.images import read_image
from foundling.datasets.index_masks import PALETTE
from foundling.discovery.progress import progress
from foundling.report.contact import COLORS, Entry
from foundling.training.detected import DetectedSet, detections_of
from foundling.types import Failure, Sample

OPACITY = 0.45  # of what is inside a mask
NAMED = 4  # labels in the words below a photo, those with most pixels
NO_BOXES = np.zeros((0, 4))


def class_names(clusters: int) -> tuple[str, ...]:
    """What the labels of a label map are called, the background first."""
    return ("background", *(f"cluster {i}" for i in range(1, clusters + 1)))


def write_label_maps(out: Path, samples: Sequence[Sample], maps: PseudoMasks) -> list[dict[str, Any]]:
    """``segments.json``: the photos that have a label map, and how many pixels of each label; returns these photos."""
    images = []
    for i, (sample, file) in enumerate(zip(samples, maps.files, strict=True)):
        if file is not None and (labels := maps.read(i)) is not None:
            images.append(
                {
                    "id": sample.image_id,
                    "file_name": sample.name,
                    "width": labels.shape[1],
                    "height": labels.shape[0],
                    "label_map": file.relative_to(out).as_posix(),
                    "pixels": {str(label): count for label, count in _counted(labels).items()},
                }
            )
    write_json(out / "segments.json", {"classes": class_names(maps.clusters), "images": images})
    return images


def _counted(labels: UInt8[np.ndarray, "h w"]) -> dict[int, int]:
    counts = np.bincount(labels.ravel())
    return {int(label): int(counts[label]) for label in np.flatnonzero(counts)}


def write_label_pictures(
    out: Path, samples: Sequence[Sample], maps: PseudoMasks, notes: Sequence[str], failures: Sequence[Failure]
) -> None:
    """The overlays and the contact sheet of label maps, in the colours of their files."""
    write_sheet(out, "Photos segmented", _label_entries(out / OVERLAYS, samples, maps), notes, failures)


def write_instance_pictures(
    out: Path,
    samples: Sequence[Sample],
    found: DetectedSet,
    least: float,
    notes: Sequence[str],
    failures: Sequence[Failure],
) -> None:
    """The overlays and the contact sheet of masks with a score of ``least`` (0..1) or more."""
    write_sheet(out, "Objects segmented", _instance_entries(out / OVERLAYS, samples, found, least), notes, failures)


class Shape(NamedTuple):
    """What is painted into a photo: the pixels inside, their colour, and a word on them."""

    inside: Bool[np.ndarray, "h w"]
    color: tuple[int, int, int]
    word: str


def _label_entries(overlays: Path, samples: Sequence[Sample], maps: PseudoMasks) -> Iterator[Entry]:
    names = class_names(maps.clusters)
    there = [i for i, file in enumerate(maps.files) if file is not None]
    with progress(len(there), "drawing") as advance:
        for i in there:
            labels = maps.read(i)
            assert labels is not None
            sizes = {label: count for label, count in _counted(labels).items() if label}
            most = sorted(sizes, key=lambda label: (-sizes[label], label))
            shares = [f"{names[label]} {100 * sizes[label] / labels.size:.0f} %" for label in most[:NAMED]]
            words = ", ".join(shares) + ", …" * (len(most) > NAMED) if most else "background alone"
            shapes = [Shape(labels == label, _palette_color(label), str(label)) for label in most]
            yield _entry(overlays, samples[i], shapes, words)
            advance(1)


def _instance_entries(overlays: Path, samples: Sequence[Sample], found: DetectedSet, least: float) -> Iterator[Entry]:
    several = len(found.classes) > 1
    with progress(len(found.records), "drawing") as advance:
        for record in found.records:
            seen = detections_of(record)
            shapes = [
                Shape(
                    coco_mask.decode(mask).astype(bool),
                    ImageColor.getrgb(COLORS[i % len(COLORS)])[:3],
                    f"{found.classes[label]} {100 * score:.0f} %" if several else f"{100 * score:.0f} %",
                )
                for i, (mask, score, label) in enumerate(zip(seen.masks or (), seen.scores, seen.labels, strict=True))
                if score >= least
            ]
            words = f"{len(shapes)} object{'s' * (len(shapes) != 1)}"
            words += f": {', '.join(shape.word for shape in shapes)}" if shapes else ""
            yield _entry(overlays, samples[record["index"]], shapes, words)
            advance(1)


def _palette_color(label: int) -> tuple[int, int, int]:
    """The colour that a label has in the file of its map."""
    red, green, blue = PALETTE[3 * label : 3 * label + 3]
    return red, green, blue


def _entry(overlays: Path, sample: Sample, shapes: Sequence[Shape], words: str) -> Entry:
    """A photo on the sheet with its shapes, the first on top; its overlay is written."""
    image = painted(read_image(sample.path, orient=sample.orient), shapes)
    path = overlays / overlay_name(sample)
    write_overlay(path, image, NO_BOXES, ())
    return Entry(sample.name, image, NO_BOXES, link=f"{overlays.name}/{path.name}", words=words)


def painted(image: Image.Image, shapes: Sequence[Shape]) -> Image.Image:
    """The image with every shape tinted, outlined and named where it is thickest, the first ones on top."""
    canvas = np.array(image.convert("RGB"))
    line = max(1, round(max(image.size) / 300))
    for inside, color, _ in reversed(shapes):
        canvas[inside] = (1 - OPACITY) * canvas[inside] + OPACITY * np.array(color)
        edges, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(canvas, edges, -1, color, line)
    drawn = Image.fromarray(canvas)
    pen, font = ImageDraw.Draw(drawn), ImageFont.load_default(max(10, round(max(image.size) / 40)))
    for inside, color, word in reversed(shapes):
        dark = sum(color) < 3 * 128
        place = _thickest(inside)
        pen.text(
            place, word, fill="white" if dark else "black", font=font, anchor="mm", stroke_width=2, stroke_fill=color
        )
    return drawn


def _thickest(inside: Bool[np.ndarray, "h w"]) -> tuple[int, int]:
    """The pixel (x, y) of a shape that is farthest from its border."""
    room = cv2.distanceTransform(np.pad(inside, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
    y, x = np.unravel_index(int(room.argmax()), room.shape)
    return int(x), int(y)
