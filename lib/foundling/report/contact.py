"""The contact sheet of ``foundling discover``: every photo with its box, small, on one page."""

import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw

from foundling.files import write_bytes
from foundling.report.render import render
from foundling.report.style import FOUND
from foundling.types import Failure

THUMBS = "thumbs"
COLORS = (FOUND, "#0091FF", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_THUMB_NAME = re.compile(r"\d{6}\.jpg")


@dataclass(frozen=True)
class Entry:
    """One photo on the sheet: its name, the decoded image, the boxes in its pixels, and what was degenerate.

    ``labels`` name the method of each box, where there are several; ``words`` are written instead of where the boxes
    are. ``link`` is the path of a larger picture relative to the sheet (an overlay, usually). ``group`` is the heading
    that it stands under, with the entries beside it that have the same. Boxes may be equal where several methods drew
    them (``layered``): see :func:`draw_overlay`.
    """

    name: str
    image: Image.Image
    boxes: Float[np.ndarray, "box 4"]
    labels: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    link: str | None = None
    words: str = ""
    group: str = ""
    layered: bool = True


def label_colors(labels: Iterable[str]) -> dict[str, str]:
    """A colour for each label, in order of first appearance; the first is the colour of what was found everywhere."""
    return dict(zip(dict.fromkeys(labels), cycle(COLORS), strict=False))


def draw_overlay(
    image: Image.Image,
    boxes: Float[np.ndarray, "box 4"],
    colors: str | Sequence[str] = FOUND,
    width: int | None = None,
    layered: bool = True,
) -> Image.Image:
    """A copy of ``image`` with boxes (x0, y0, x1, y1; pixels, ends exclusive) outlined, dark-edged to show anywhere.

    ``colors`` is one for all boxes or one for each. ``width`` is the line's in pixels (default: by the image's size).
    Each further colour has a thinner line, so that equal boxes show both, unless not ``layered``. Rows of nan are
    skipped, and what lies outside the image is cut off.
    """
    canvas = image.convert("RGB")
    canvas = canvas.copy() if canvas is image else canvas
    line = width or max(2, round(max(canvas.size) / 160))
    pen = ImageDraw.Draw(canvas)
    each = [colors] * len(boxes) if isinstance(colors, str) else colors
    kinds = list(dict.fromkeys(each))
    for box, color in zip(boxes, each, strict=True):
        if not np.isfinite(box).all():
            continue
        thick = line + (3 * (len(kinds) - 1 - kinds.index(color)) if layered else 0)
        x0, y0, x1, y1 = (int(v) for v in np.clip(np.round(box), 0, [canvas.width, canvas.height] * 2))
        right, bottom = max(x1 - 1, x0), max(y1 - 1, y0)  # the last pixel inside
        pen.rectangle((x0, y0, right, bottom), outline="black", width=thick + 2)
        pen.rectangle((x0 + 1, y0 + 1, max(right - 1, x0 + 1), max(bottom - 1, y0 + 1)), outline=color, width=thick)
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
    colors: dict[str, str] = {}
    cards = [_card(entry, folder / f"{i:06d}.jpg", side, colors) for i, entry in enumerate(entries)]
    for stale in folder.glob("*.jpg") if folder.is_dir() else ():
        if _THUMB_NAME.fullmatch(stale.name) and int(stale.stem) >= len(cards):
            stale.unlink()
    page = render("contact.html", title=title, notes=list(notes), key=colors, cards=cards, failures=list(failures))
    return write_bytes(path, page.encode())


def _card(entry: Entry, file: Path, side: int, colors: dict[str, str]) -> dict[str, Any]:
    """Save the thumbnail of an entry and say what the page needs to know; new labels get their colour in ``colors``."""
    colors |= label_colors([*colors, *entry.labels])
    small = thumbnail(entry.image, entry.boxes, [colors[label] for label in entry.labels] or FOUND, side, entry.layered)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=85, subsampling=0)  # thin coloured lines stay sharp
    write_bytes(file, buffer.getvalue())
    return {
        "name": entry.name,
        "thumb": f"{THUMBS}/{file.name}",
        "width": small.width,
        "height": small.height,
        "size": f"{entry.image.width} × {entry.image.height}",
        "boxes": _described(entry),
        "flags": entry.flags,
        "link": quote(entry.link) if entry.link else None,
        "group": entry.group,
    }


def thumbnail(
    image: Image.Image,
    boxes: Float[np.ndarray, "box 4"],
    colors: str | Sequence[str],
    side: int,
    layered: bool = True,
) -> Image.Image:
    """``image`` with its boxes, at most ``side`` pixels long; smaller images keep their size."""
    small = image.convert("RGB")
    small = small.copy() if small is image else small
    small.thumbnail((side, side))
    scale = np.array([small.width / image.width, small.height / image.height] * 2)
    return draw_overlay(small, boxes * scale, colors, width=4 if max(small.size) > 100 else 1, layered=layered)


def _described(entry: Entry) -> list[str]:
    """Each box in words: "lost: x 10 to 90, y 5 to 60"."""
    if entry.words:
        return [entry.words]
    labels = entry.labels or ("",) * len(entry.boxes)
    lines = []
    for box, label in zip(entry.boxes, labels, strict=True):
        x0, y0, x1, y1 = (f"{v:.0f}" for v in box)
        where = f"x {x0} to {x1}, y {y0} to {y1}" if np.isfinite(box).all() else "no box"
        lines.append(f"{label}: {where}" if label else where)
    return lines or ["no box"]
