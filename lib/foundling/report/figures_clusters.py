"""Pictures of objects and of their groups: rows of small pictures, a map of all, what clusters and classes share.

A small picture shows an object with some of what lies around it, its mask outlined in the colour of what was found.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import cv2
import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage
from matplotlib.patheffects import Normal, Stroke
from PIL import Image
from sklearn.manifold import TSNE

from foundling.categories.crops import Objects
from foundling.datasets.images import read_image
from foundling.discovery.export import decode_mask
from foundling.errors import ParameterError
from foundling.report.style import FOUND, INK, QUIET, styled
from foundling.types import VOID, Sample

RIGHT, WRONG = "#009E73", "#D55E00"  # of frames
MARGIN = 0.12  # of the longer side of a box, shown around it
SIDE = 72  # pixels of a small picture
MAP_SIDE, MAP_WIDTH = 40, 820  # pixels of a picture on the map that one can hover over, and of that map
HUES = 40  # colours of clusters before they begin again
ROOM = (0.1, 0.4)  # of the height and width of a label map: names nearer to each other would cover one another

STYLE = """<style>
.fl-map { position: relative; width: %dpx; height: %dpx; border: 1px solid #e3e3e3; margin: 0.4em 0; background: #fff; }
div.fl-map img { position: absolute; width: 24px; height: 24px; max-width: none; margin: 0; border: 2px solid; }
div.fl-map img:hover { transform: scale(4); z-index: 9; }
</style>"""


@dataclass(frozen=True)
class PictureRow:
    """A row of small pictures: its title, the pictures, and a frame's colour for each (None: no frame)."""

    title: str
    pictures: Sequence[Image.Image]
    frames: Sequence[str | None] = ()


def object_pictures(samples: Sequence[Sample], objects: Objects, side: int = SIDE) -> list[Image.Image]:
    """A square picture of every object, ``side`` pixels, with its mask or else its box outlined.

    ``samples`` are those that the objects were found in; each is read once.
    """
    pictures: dict[int, Image.Image] = {}
    rows = sorted(range(len(objects)), key=lambda row: int(objects.images[row]))
    last, image = -1, Image.new("RGB", (1, 1))
    for row in rows:
        if (index := int(objects.images[row])) != last:
            last, image = index, read_image(samples[index].path, orient=samples[index].orient)
        pictures[row] = _object_picture(image, objects, row, side)
    return [pictures[row] for row in range(len(objects))]


def _object_picture(image: Image.Image, objects: Objects, row: int, side: int) -> Image.Image:
    x0, y0, x1, y1 = objects.boxes[row].tolist()
    reach = max(x1 - x0, y1 - y0) * (0.5 + MARGIN)
    left, top = (x0 + x1) / 2 - reach, (y0 + y1) / 2 - reach
    scale = side / (2 * reach)
    x, y = ((0.5 - start) * scale - 0.5 for start in (left, top))  # of the middle of pixel 0
    place = np.array([[scale, 0, x], [0, scale, y]])
    pixels = np.asarray(image.convert("RGB"))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    small = cv2.warpAffine(pixels, place, (side, side), flags=method, borderValue=(236, 236, 236))
    encoded = objects.masks[row]
    inside: Any = np.zeros((side, side), dtype=np.uint8)
    if encoded is None:
        u0, v0, u1, v1 = (
            round((value - start) * scale) for value, start in zip((x0, y0, x1, y1), (left, top) * 2, strict=True)
        )
        inside[max(v0, 0) : v1, max(u0, 0) : u1] = 1
    else:
        mask = decode_mask(encoded).astype(np.uint8)
        inside = cv2.warpAffine(mask, place, (side, side), flags=cv2.INTER_NEAREST)
    edges, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    colour = tuple(round(255 * part) for part in to_rgb(FOUND))
    return Image.fromarray(cv2.drawContours(np.ascontiguousarray(small), edges, -1, colour, 1))


@styled
def picture_rows(
    rows: Sequence[PictureRow], *, columns: int = 10, beside: int = 1, cell: float = 0.78, gap: float = 0.25
) -> Figure:
    """Rows of small pictures, each under its title: members of clusters, or an image and its neighbours.

    Pictures are squares of one size; at most ``columns`` of a row are shown, and ``beside`` rows lie side by side.
    ``cell`` is the side of a picture in inches, ``gap`` the height of a title in cells. Raises
    :class:`ParameterError` without a row.
    """
    if not rows:
        raise ParameterError("no rows of pictures: there is nothing to draw")
    high, wide, lines = 1.1 + gap, columns + 0.5, -(-len(rows) // beside)
    width = beside * wide - 0.5
    fig, ax = plt.subplots(figsize=(width * cell, lines * high * cell), layout="constrained")
    for i, row in enumerate(rows):
        top, left = i // beside * high + gap, i % beside * wide
        ax.text(left + 0.03, top - 0.05, row.title, ha="left", va="bottom", fontsize=9, parse_math=False)
        frames = row.frames or (None,) * len(row.pictures)
        for x, (picture, frame) in enumerate(zip(row.pictures, frames, strict=True)):
            if x < columns:
                _picture(ax, picture, left + x, top, frame)
        if not row.pictures:
            ax.text(left + 0.1, top + 0.5, "none", va="center", color=QUIET)
    ax.set_xlim(0, width)
    ax.set_ylim(lines * high, 0)
    ax.set_aspect("equal")
    ax.set_axis_off()
    return fig


def _picture(ax: Axes, picture: Image.Image, left: float, top: float, frame: str | None) -> None:
    """A picture in the cell at ``left`` and ``top``, with or without a frame."""
    x0, x1, y0, y1 = left + 0.04, left + 0.96, top + 0.04, top + 0.96
    ax.imshow(picture, extent=(x0, x1, y1, y0), interpolation="antialiased")
    if frame is not None:
        ax.plot([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], color=frame, linewidth=2.4, solid_joinstyle="miter")


def plane(descriptors: Float[np.ndarray, "object channel"], seed: int = 0) -> Float[np.ndarray, "object 2"]:
    """Places of objects on a map on which near ones have like descriptors (t-SNE, scikit-learn's defaults), 0..1.

    The perplexity, 30, is lowered to a third of the objects where these are few. Raises :class:`ParameterError` for
    fewer than 3 objects and for descriptors that are not finite.
    """
    if len(descriptors) < 3 or not np.isfinite(descriptors).all():
        raise ParameterError(f"{len(descriptors)} descriptors: a map takes 3 or more, all finite")
    perplexity = min(30.0, (len(descriptors) - 1) / 3)
    exact = descriptors.astype(np.float64)
    start = "pca" if min(exact.shape) > 1 and np.ptp(exact, axis=0).any() else "random"
    found = TSNE(perplexity=perplexity, init=start, random_state=seed).fit_transform(exact)
    low, high = found.min(axis=0), found.max(axis=0)
    return ((found - low) / np.where(high > low, high - low, 1)).astype(np.float64)


def cluster_colours(count: int) -> list[tuple[float, float, float]]:
    """A colour for each of ``count`` clusters: hues that are far apart, dark and light in turns."""
    hues = np.arange(min(count, HUES)) / max(1, min(count, HUES))
    chosen = [plt.matplotlib.colors.hsv_to_rgb((hue, 0.85, 0.9 if i % 2 else 0.6)) for i, hue in enumerate(hues)]
    return [(float(red), float(green), float(blue)) for red, green, blue in (chosen[i % HUES] for i in range(count))]


@styled
def cluster_map(
    points: Float[np.ndarray, "object 2"],
    pictures: Sequence[Image.Image],
    labels: Int[np.ndarray, " object"],
    count: int,
    *,
    side: float = 6.4,
    shrink: float = 0.28,
) -> Figure:
    """A map of objects (see :func:`plane`): at the left a dot each, coloured and numbered by its cluster; at the right
    their pictures, framed in the same colours."""
    fig, axes = plt.subplots(1, 2, figsize=(2 * side, side), layout="constrained")
    colours = cluster_colours(count)
    for cluster in np.unique(labels[labels >= 0]).tolist():
        here = points[labels == cluster]
        axes[0].scatter(*here.T, s=26, color=colours[cluster], edgecolors="white", linewidths=0.5)
        middle = here[np.linalg.norm(here - np.median(here, axis=0), axis=1).argmin()]  # a member: never between
        halo = [Stroke(linewidth=3, foreground="white"), Normal()]
        axes[0].text(*middle, str(cluster + 1), ha="center", va="center", weight="bold", size=12, path_effects=halo)
    for point, picture, label in zip(points, pictures, labels.tolist(), strict=True):
        box = OffsetImage(np.asarray(picture), zoom=shrink)
        frame = {"edgecolor": colours[label] if label >= 0 else QUIET, "linewidth": 1.6}
        axes[1].add_artist(AnnotationBbox(box, point, pad=0.08, bboxprops=frame))
    for ax, title in zip(axes, ("clusters", "objects"), strict=True):
        ax.set_xlim(-0.04, 1.04)
        ax.set_ylim(1.04, -0.04)
        ax.set_xticks([])
        ax.set_yticks([])
        ax.set_title(title)
        ax.set_aspect("equal")
    return fig


def hover_map(
    points: Float[np.ndarray, "object 2"],
    pictures: Sequence[Image.Image],
    labels: Int[np.ndarray, " labelled"],
    count: int,
    words: Sequence[str],
) -> str:
    """The map as HTML that needs no script: a picture grows under the mouse, and ``words`` say what it is.

    Raises :class:`ParameterError` where there are not as many words, or pictures, as objects.
    """
    if not len(points) == len(pictures) == len(labels) == len(words):
        raise ParameterError(f"{len(points)} objects, {len(pictures)} pictures and {len(words)} words: give one each")
    colours = [plt.matplotlib.colors.to_hex(colour) for colour in cluster_colours(count)]
    items = []
    for (x, y), picture, label, text in zip(points.tolist(), pictures, labels.tolist(), words, strict=True):
        small = picture.resize((MAP_SIDE * 2, MAP_SIDE * 2)) if picture.width > 2 * MAP_SIDE else picture
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=70)
        data = base64.b64encode(buffer.getvalue()).decode("ascii")
        colour = colours[label] if label >= 0 else QUIET
        place = f"left:{x * (MAP_WIDTH - 30):.0f}px;top:{y * (MAP_WIDTH * 0.7 - 30):.0f}px;border-color:{colour}"
        items.append(f'<img style="{place}" title="{escape(text)}" alt="" src="data:image/jpeg;base64,{data}">')
    return f'{STYLE % (MAP_WIDTH, MAP_WIDTH * 0.7)}<div class="fl-map">{"".join(items)}</div>'


@styled
def matching_chart(
    ax: Axes,
    table: Int[np.ndarray, "cluster class"],
    classes: Sequence[str],
    assignment: Int[np.ndarray, " assigned"],
) -> Axes:
    """How many objects of each class every cluster holds, the matched class of each outlined; numbers above 0 written.

    Clusters (numbered from 1) are in the order of their class, so that what is right lies on the diagonal; those
    without a class (-1) come last.
    """
    if len(assignment) != len(table) or table.shape[1] != len(classes):
        raise ParameterError(
            f"a table of {table.shape[0]} clusters and {table.shape[1]} classes with {len(assignment)} assignments and "
            f"{len(classes)} names: give one a row, and one a column"
        )
    order = np.argsort(np.where(assignment < 0, len(classes), assignment), kind="stable")
    shown = table[order]
    ax.imshow(shown, cmap="Blues", vmin=0, vmax=max(1, int(table.max(initial=0)) * 1.25), aspect="auto")
    if table.size <= 900:  # beyond, numbers would not be legible
        for (row, column), number in np.ndenumerate(shown):
            if number:
                dark = number > 0.75 * table.max()
                ax.text(column, row, str(number), ha="center", va="center", size=8, color="white" if dark else INK)
    for row, cluster in enumerate(order.tolist()):
        if assignment[cluster] >= 0:
            corner = (assignment[cluster] - 0.5, row - 0.5)
            ax.add_patch(plt.Rectangle(corner, 1, 1, fill=False, edgecolor=FOUND, linewidth=1.8, clip_on=False))
    ax.set_xticks(range(len(classes)), labels=list(classes), rotation=90 if len(classes) > 24 else 45, ha="right")
    for text in ax.get_xticklabels():
        text.set_rotation_mode("anchor")
    ax.set_yticks(range(len(order)), labels=[str(cluster + 1) for cluster in order])
    ax.set_ylabel("cluster")
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
    return ax


@styled
def label_maps(
    ax: Axes,
    image: Image.Image,
    labels: Int[np.ndarray, "height width"],
    names: Mapping[int, str],
    title: str,
    least: float = 0.0,
) -> Axes:
    """A label map over its image in grey, every label (but 0) with its colour and, in its middle, its name.

    Labels of a smaller share of the pixels than ``least`` (0..1), and those whose middle is too near to that of a
    larger one, are not named."""
    grey = np.repeat(np.asarray(image.convert("L"))[..., None], 3, axis=2)
    ax.imshow(grey)
    tint = np.zeros((*labels.shape, 4))
    colours = cluster_colours(max((*(label for label in names if label < VOID), 1)))
    found, counts = np.unique(labels[labels > 0], return_counts=True)
    named: list[tuple[float, float]] = []
    for label in found[np.argsort(-counts, kind="stable")].tolist():
        inside = labels == label
        colour = colours[label - 1] if label <= len(colours) else to_rgb(QUIET)
        tint[inside] = (*colour, 0.75)
        y, x = np.argwhere(inside).mean(axis=0) / labels.shape
        if inside.mean() < least or any(abs(y - v) < ROOM[0] and abs(x - u) < ROOM[1] for v, u in named):
            continue
        named.append((y, x))
        halo = [Stroke(linewidth=2.5, foreground="white"), Normal()]
        place, word = (x * labels.shape[1], y * labels.shape[0]), names.get(label, "?")
        ax.text(*place, word, ha="center", va="center", size=8.5, path_effects=halo, parse_math=False, in_layout=False)
    ax.imshow(tint, interpolation="nearest")
    ax.set_title(title, parse_math=False)
    ax.set_axis_off()
    return ax
