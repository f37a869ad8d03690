"""Pictures of instances: partitions for several k beside the truth, and what is left of proposals after each filter.

As in :mod:`foundling.report.figures`, images are in pixel coordinates with the origin in the upper left corner. A part
that coincides with an annotated object has that object's strong colour, in every partition of every network; the other
parts have pale ones. What no mask covers has no colour.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from scipy.optimize import linear_sum_assignment

from foundling.errors import ParameterError
from foundling.report.figures import Picture, mask_edges, show_image
from foundling.report.style import FILL, FOUND, INK, PALETTE, as_array, styled

STRONG = (PALETTE[1], PALETTE[0], PALETTE[2], PALETTE[4], PALETTE[3], PALETTE[5], "#F0E442", "#8C564B")
PALE = ("#DDDDDD", "#A9BCD6", "#E6CFA0", "#A8CFAE", "#C9B3DC", "#E8B7B0", "#9ECCCD", "#8E8E8E")
LAYERS = ("#FF4D00", "#00B4F0", "#FFE600", "#5CD65C", "#FF7AE0", "#F2F2F2", "#9A6BFF", "#FFA64D", "#1F4E9C", "#8C564B")
KEPT, DROPPED = FOUND, FILL
COINCIDES = 0.5  # IoU from which on a part takes the colour of an annotated object

Masks = Bool[np.ndarray, "_ h w"]


def part_colours(partitions: Sequence[Masks], truths: Masks, at_least: float = COINCIDES) -> list[list[str]]:
    """A colour for every part of every partition of one image, so that equal things have equal colours.

    A part whose IoU with an annotated object is at least ``at_least`` has its colour (see :func:`truth_colours`). Every
    other part has the pale colour of the part of the partition before that shares most with it, or an unused one.
    ``partitions`` are bool [part, h, w] and ``truths`` [object, h, w], on the same pixels or patches.
    """
    names = truth_colours(len(truths))
    colours: list[list[str]] = []
    before: dict[int, np.ndarray] = {}  # pale colour -> the part that had it last
    for parts in partitions:
        like, own = _overlaps(parts, truths), [""] * len(parts)
        for part, truth in zip(*linear_sum_assignment(like, maximize=True), strict=True):
            own[part] = names[truth] if like[part, truth] >= at_least else ""
        rest = [i for i, colour in enumerate(own) if not colour]
        pale = _inherited(parts[rest], before)
        before |= {number: parts[i] for i, number in zip(rest, pale, strict=True)}
        for i, number in zip(rest, pale, strict=True):
            own[i] = PALE[number % len(PALE)]
        colours.append(own)
    return colours


def truth_colours(count: int) -> list[str]:
    """The colours of ``count`` annotated objects; with more objects than strong colours, these begin again."""
    return [STRONG[i % len(STRONG)] for i in range(count)]


@styled
def show_parts(
    ax: Axes,
    image: Picture,
    masks: Masks,
    colours: Sequence[str],
    title: str | None = None,
    *,
    opacity: float = 0.8,
    edge: float = 1.0,
) -> Axes:
    """Cover an image, grey below, with masks [mask, h, w] of one colour each; all but pale ones have a white edge.

    The masks' cells (patches or pixels) are spread over the image; later masks lie above earlier ones, and cells of no
    mask show the image. ``title`` may hold formulas between ``$``.
    """
    if len(masks) != len(colours):
        raise ParameterError(f"{len(masks)} masks but {len(colours)} colours: give one a mask")
    show_image(ax, _grey(image))
    width, height = ax.get_xlim()[1], ax.get_ylim()[0]
    tint = np.zeros((*masks.shape[1:], 4))  # [h, w, red green blue opacity]
    for mask, colour in zip(masks, colours, strict=True):
        tint[mask] = (*to_rgb(colour), opacity)
    ax.imshow(tint, extent=(0, width, height, 0), interpolation="nearest")
    strong = [i for i, colour in enumerate(colours) if colour not in PALE]
    _outline(ax, masks[strong], "white", edge)
    if title is not None:
        ax.set_title(title)
    return ax


@styled
def k_strip(
    image: Picture,
    rows: Mapping[str, Sequence[Masks]],
    truths: Masks,
    ks: Sequence[int],
    *,
    cell: float = 1.75,
    annotated: str = "annotated",
) -> Figure:
    """One image cut into k parts: a row for every network, a column for every k; the image and the truth in front.

    ``rows``: name -> one partition [part, h, w] for each of ``ks``; ``truths`` [object, h, w]. Raises
    :class:`ParameterError` where a row has another number of partitions.
    """
    for name, partitions in rows.items():
        if len(partitions) != len(ks):
            raise ParameterError(f"row {name!r} has {len(partitions)} partitions for {len(ks)} values of k")
    height, width = np.asarray(image).shape[:2]
    front = 1 if len(rows) > 1 else 2  # the truth lies below the image where there is a second row
    size = (cell * (len(ks) + front), cell * len(rows) * height / width + 0.3)
    fig = plt.figure(figsize=size, layout="constrained")
    axes = fig.subplots(len(rows), len(ks) + front, squeeze=False)
    for ax in axes[:, :front].ravel()[2:]:
        ax.set_axis_off()
    show_image(axes[0, 0], image, title="image")
    truth = axes[:, :front].ravel()[1]
    show_parts(truth, image, truths, truth_colours(len(truths)), annotated)
    for row, (name, partitions) in zip(axes[:, front:], rows.items(), strict=True):
        for ax, parts, colours in zip(row, partitions, part_colours(partitions, truths), strict=True):
            show_parts(ax, image, parts, colours)
        row[0].text(-0.05, 0.5, name, transform=row[0].transAxes, rotation=90, ha="right", va="center", color=INK)
    for ax, k in zip(axes[0, front:], ks, strict=True):
        ax.set_title(f"k = {k}")
    return fig


@styled
def show_layers(
    ax: Axes, image: Picture, masks: Masks, title: str | None = None, *, region: Bool[np.ndarray, "h w"] | None = None
) -> Axes:
    """Lay masks [mask, h, w] over an image, the largest at the bottom, each with a colour of its own and a dark edge.

    What lies outside ``region`` [h, w], such as a saliency map, and under no mask is darkened.
    """
    show_image(ax, image, title=title)
    width, height = ax.get_xlim()[1], ax.get_ylim()[0]
    tint = np.zeros((*masks.shape[1:], 4))
    if region is not None:
        tint[~region] = (0, 0, 0, 0.6)
    order = np.argsort(-masks.sum(axis=(1, 2)), kind="stable")
    for i, mask in enumerate(masks[order]):
        tint[mask] = (*to_rgb(LAYERS[i % len(LAYERS)]), 0.72)
    ax.imshow(tint, extent=(0, width, height, 0), interpolation="nearest")
    _outline(ax, masks[order], INK, 0.7)
    return ax


@styled
def candidate_sheet(
    image: Picture,
    masks: Masks,
    titles: Sequence[str],
    kept: Sequence[bool],
    *,
    columns: int = 10,
    cell: float = 1.15,
) -> Figure:
    """Every candidate mask [mask, h, w] on its own small picture, with a title: vermilion if kept, blue if dropped."""
    for what, given in (("titles", titles), ("kept", kept)):
        if len(given) != len(masks):
            raise ParameterError(f"{len(masks)} masks but {len(given)} {what}: give one a mask")
    columns = max(1, min(columns, len(masks)))
    rows = max(1, -(-len(masks) // columns))
    height, width = np.asarray(image).shape[:2]
    fig = plt.figure(figsize=(columns * cell, rows * (cell * height / width + 0.22)), layout="constrained")
    axes = fig.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[len(masks) :]:
        ax.set_axis_off()
    for ax, mask, title, stays in zip(axes, masks, titles, kept, strict=False):
        show_parts(ax, image, mask[None], [KEPT if stays else DROPPED], opacity=0.85, edge=0.3)
        ax.set_title(title, fontsize=8, color=KEPT if stays else INK, loc="center", pad=2)
    return fig


def _overlaps(a: Masks, b: Masks) -> Float[np.ndarray, "_ _"]:
    """IoU of every mask of ``a`` with every one of ``b``."""
    flat, other = (x.reshape(len(x), int(np.prod(x.shape[1:]))).astype(np.float64) for x in (a, b))
    shared = flat @ other.T
    union = flat.sum(axis=1)[:, None] + other.sum(axis=1) - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def _inherited(parts: Masks, before: Mapping[int, np.ndarray]) -> list[int]:
    """A number for every part: that of the earlier part it shares most with, each given once; else the lowest free."""
    numbers: dict[int, int] = {}
    if before and len(parts):
        like, known = _overlaps(parts, np.stack(list(before.values()))), list(before)
        for part, earlier in zip(*linear_sum_assignment(like, maximize=True), strict=True):
            if like[part, earlier] > 0:
                numbers[int(part)] = known[earlier]
    free = (n for n in range(len(parts) + len(before)) if n not in numbers.values())
    return [numbers[i] if i in numbers else next(free) for i in range(len(parts))]


def _grey(image: Picture) -> Any:
    pixels = as_array(np.asarray(image))
    light = pixels[..., :3].mean(axis=-1, keepdims=True)
    return np.repeat(light, 3, axis=-1).astype(pixels.dtype)


def _outline(ax: Axes, masks: Masks, colour: str, width: float) -> None:
    scale = np.array([ax.get_xlim()[1] / masks.shape[2], ax.get_ylim()[0] / masks.shape[1]])
    edges = [edge for mask in masks for edge in mask_edges(mask) * scale]
    ax.add_collection(LineCollection(edges, colors=colour, linewidths=width, capstyle="projecting"), autolim=False)
