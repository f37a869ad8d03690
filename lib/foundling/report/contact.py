"""The contact sheet of ``foundling discover``: every photo with its box, small, on one page."""

import io
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw

from foundling.report.page import render
from foundling.report.style import FOUND, write_bytes
from foundling.types import Failure

THUMBS = "thumbs"
_THUMB_NAME = re.compile(r"\d{6}\.jpg")


@dataclass(frozen=True)
class Entry:
    """One photo on the sheet: its name, the decoded image, the boxes in its pixels, and what was degenerate.

    ``link`` is the path of a larger picture relative to the sheet (an overlay, usually).
    """

    name: str
    image: Image.Image
    boxes: Float[np.ndarray, "box 4"]
    flags: tuple[str, ...] = ()
    link: str | None = None


def draw_overlay(
    image: Image.Image, boxes: Float[np.ndarray, "box 4"], color: str = FOUND, width: int | None = None
) -> Image.Image:
    """A copy of ``image`` with boxes (x0, y0, x1, y1; pixels, ends exclusive) outlined, dark-edged to show anywhere.

    ``width`` is the line's in pixels (default: by the image's size). Rows of nan are skipped, and what lies outside
    the image is cut off.
    """
    canvas = image.convert("RGB")
    canvas = canvas.copy() if canvas is image else canvas
    line = width or max(2, round(max(canvas.size) / 160))
    pen = ImageDraw.Draw(canvas)
    for box in boxes[np.isfinite(boxes).all(axis=1)]:
        x0, y0, x1, y1 = (int(v) for v in np.clip(np.round(box), 0, [canvas.width, canvas.height] * 2))
        right, bottom = max(x1 - 1, x0), max(y1 - 1, y0)  # the last pixel inside
        pen.rectangle((x0, y0, right, bottom), outline="black", width=line + 2)
        pen.rectangle((x0 + 1, y0 + 1, max(right - 1, x0 + 1), max(bottom - 1, y0 + 1)), outline=color, width=line)
    return canvas


def contact_sheet(
    entries: Iterable[Entry],
    path: Path,
    title: str,
    notes: Sequence[str] = (),
    failures: Sequence[Failure] = (),
    side: int = 360,
) -> Path:
    """Write the sheet to ``path`` (an ``.html`` file), its thumbnails to ``thumbs/`` beside it, and return ``path``.

    ``entries`` may be a generator: images are drawn one at a time and not kept. Thumbnails are at most ``side`` pixels
    long. ``notes`` are lines of text above the sheet (method, backbone, weights); ``failures`` are listed at the end.
    Thumbnails that an earlier, longer sheet left in the folder are removed.
    """
    folder = path.parent / THUMBS
    cards = list(_cards(entries, folder, side))
    for stale in folder.glob("*.jpg") if folder.is_dir() else ():
        if _THUMB_NAME.fullmatch(stale.name) and int(stale.stem) >= len(cards):
            stale.unlink()
    page = render("contact.html", title=title, notes=list(notes), cards=cards, failures=list(failures))
    return write_bytes(path, page.encode())


def _cards(entries: Iterable[Entry], folder: Path, side: int) -> Iterator[dict[str, Any]]:
    """Draw and save the thumbnail of each entry, and say what the page needs to know about it."""
    for i, entry in enumerate(entries):
        small = thumbnail(entry.image, entry.boxes, side)
        name = f"{i:06d}.jpg"
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=85)
        write_bytes(folder / name, buffer.getvalue())
        yield {
            "name": entry.name,
            "thumb": f"{THUMBS}/{name}",
            "width": small.width,
            "height": small.height,
            "box": _describe(entry.boxes, entry.image.size),
            "flags": entry.flags,
            "link": quote(entry.link) if entry.link else None,
        }


def thumbnail(image: Image.Image, boxes: Float[np.ndarray, "box 4"], side: int) -> Image.Image:
    """``image`` with its boxes, at most ``side`` pixels long; smaller images keep their size."""
    small = image.convert("RGB")
    small = small.copy() if small is image else small
    small.thumbnail((side, side))
    scale = np.array([small.width / image.width, small.height / image.height] * 2)
    return draw_overlay(small, boxes * scale, width=3 if max(small.size) > 100 else 1)


def _describe(boxes: Float[np.ndarray, "box 4"], size: tuple[int, int]) -> str:
    known = boxes[np.isfinite(boxes).all(axis=1)]
    if not len(known):
        return "no box"
    listed = "; ".join(", ".join(f"{v:.0f}" for v in box) for box in known[:3])
    more = f" and {len(known) - 3} more" if len(known) > 3 else ""
    return f"{'box' if len(known) == 1 else 'boxes'} {listed}{more} in {size[0]} × {size[1]}"
