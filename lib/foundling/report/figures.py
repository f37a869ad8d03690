"""Pictures of images, boxes, masks and patch maps. Each function draws data on an axis and returns the axis.

Images are drawn in pixel coordinates whose origin is the upper left corner, so that a box (x0, y0, x1, y1), a patch
grid and the pixels lie exactly on one another. What a method found is vermilion and solid, what people annotated is
blue and dashed. Charts of numbers are in ``foundling.report.charts``.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, Stroke
from PIL import Image
from sklearn.decomposition import PCA

from foundling.errors import ParameterError
from foundling.report.style import FOUND, TRUTH, as_array, styled, subplots

Picture = Image.Image | np.ndarray
HALO = "black"


@styled
def show_image(
    ax: Axes,
    image: Picture,
    boxes: Any = None,
    truths: Any = None,
    title: str | None = None,
    key: bool = False,
) -> Axes:
    """Draw an image with the boxes found and annotated in it.

    ``image`` is a Pillow image or an array [height, width, 3] (uint8, or floats in 0..1). ``boxes`` and ``truths`` are
    arrays [box, 4] in pixels of this image, or ``None``; a row of nan is not drawn. ``title``, often a file name, is
    drawn as it is: a ``$`` does not begin a formula. ``key`` adds a key below.
    """
    pixels = _pixels(image)
    _frame(ax, pixels.shape[0], pixels.shape[1], title, formulas=False)
    ax.imshow(pixels, extent=(0, pixels.shape[1], pixels.shape[0], 0), interpolation="antialiased")
    show_boxes(ax, truths, color=TRUTH, dashed=True, width=1.4)
    show_boxes(ax, boxes, color=FOUND)
    if key and (handles := _key(boxes is not None, truths is not None)):
        ax.legend(
            handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=2, handlelength=2.4, borderaxespad=0.3
        )
    return ax


def show_boxes(ax: Axes, boxes: Any, color: str = FOUND, dashed: bool = False, width: float = 2.0) -> Axes:
    """Outline boxes [box, 4] (x0, y0, x1, y1; pixels) on an axis that shows an image.

    Rows of nan are skipped, and what lies outside the image is cut off.
    """
    if boxes is None:
        return ax
    right, bottom = ax.get_xlim()[1], ax.get_ylim()[0]
    for x0, y0, x1, y1 in as_array(boxes).reshape(-1, 4).clip(0, [right, bottom, right, bottom]):
        if not np.isfinite([x0, y0, x1, y1]).all():
            continue
        ax.add_patch(
            Rectangle(
                (x0, y0), x1 - x0, y1 - y0,
                fill=False, edgecolor=color, linewidth=width, linestyle=(0, (4, 2)) if dashed else "-",
                path_effects=[Stroke(linewidth=width + 1.6, foreground=HALO, alpha=0.55), Normal()],
                clip_on=False,
            )
        )  # fmt: skip
    return ax


def show_patch(ax: Axes, patch: tuple[int, int], patch_size: int, color: str = FOUND) -> Axes:
    """Mark one patch, ``(row, column)`` of the grid, such as LOST's seed: filled, with a ring that shows when small."""
    row, column = patch
    ax.add_patch(
        Rectangle((column * patch_size, row * patch_size), patch_size, patch_size, facecolor=color, edgecolor="white")
    )
    ax.plot(
        (column + 0.5) * patch_size,
        (row + 0.5) * patch_size,
        "o",
        markersize=15,
        markerfacecolor="none",
        markeredgecolor=color,
        markeredgewidth=2,
        path_effects=[Stroke(linewidth=4, foreground="white"), Normal()],
    )
    return ax


@styled
def show_patch_map(
    ax: Axes,
    image: Picture,
    values: Any,
    patch_size: int,
    title: str | None = None,
    *,
    cmap: str = "viridis",
    limits: tuple[float | int, float | int] | None = None,
    centred: bool = False,
    opacity: float = 1.0,
    colorbar: bool = False,
    label: str = "",
) -> Axes:
    """Draw a patch map [rows, columns] at the image's scale; padding beyond the image is cut off.

    ``opacity`` below 1 lets the image show through. ``limits`` fixes the colour scale, so that maps beside each other
    can be compared; ``centred`` makes it symmetric around 0, with a diverging colour map. ``colorbar`` adds the scale,
    named ``label``. ``title`` may hold formulas between ``$``.
    """
    grid = as_array(values)
    pixels = _pixels(image)
    _frame(ax, pixels.shape[0], pixels.shape[1], title)
    if opacity < 1:
        ax.imshow(pixels, extent=(0, pixels.shape[1], pixels.shape[0], 0), interpolation="antialiased")
    reach = float(np.abs(grid).max(initial=0)) or 1.0
    low, high = limits or ((-reach, reach) if centred else (None, None))
    drawn = ax.imshow(
        grid,
        extent=_grid_extent(grid.shape, patch_size),
        cmap="RdBu_r" if centred else cmap,
        vmin=low,
        vmax=high,
        alpha=opacity,
        interpolation="nearest",
    )
    _frame(ax, pixels.shape[0], pixels.shape[1], title)
    if colorbar:
        beside = ax.inset_axes((1.03, 0.0, 0.045, 1.0))  # as high as the image, whatever its shape
        bar = ax.figure.colorbar(drawn, cax=beside, label=label)
        bar.outline.set_visible(False)
        beside.tick_params(length=2, labelsize=8)
    return ax


@styled
def show_mask(
    ax: Axes,
    image: Picture,
    mask: Any,
    patch_size: int | None = None,
    title: str | None = None,
    *,
    color: str = FOUND,
    opacity: float = 0.45,
) -> Axes:
    """Tint the part of an image that a mask covers and outline it.

    ``mask`` is bool: [rows, columns] on the patch grid where ``patch_size`` is given, else [height, width] in pixels.
    ``title`` may hold formulas between ``$``.
    """
    covered = as_array(mask).astype(bool)
    show_image(ax, image)
    height, width = _pixels(image).shape[:2]
    red, green, blue = plt.matplotlib.colors.to_rgb(color)
    tint = np.zeros((*covered.shape, 4))
    tint[...] = (red, green, blue, 0)
    tint[covered, 3] = opacity
    step = patch_size or 1
    ax.imshow(tint, extent=_grid_extent(covered.shape, step), interpolation="nearest")
    edges = mask_edges(covered) * step
    ax.add_collection(LineCollection(list(edges), colors=color, linewidths=1.6, capstyle="projecting"), autolim=False)
    _frame(ax, height, width, title)
    return ax


def mask_edges(mask: Bool[np.ndarray, "rows columns"]) -> Float[np.ndarray, "edge 2 2"]:
    """The cell sides between inside and outside of a mask: two ends (x, y) each, in cells; the border is outside."""
    padded = np.pad(mask, 1)
    across = np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1])  # horizontal sides: (y, x) of their left end
    down = np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1])  # vertical sides: (y, x) of their upper end
    starts = np.concatenate([across, down])[:, ::-1]  # [edge, (x, y)]
    steps = np.concatenate([np.tile([1, 0], (len(across), 1)), np.tile([0, 1], (len(down), 1))])
    return np.stack([starts, starts + steps], axis=1).astype(np.float64)


def pca_colours(features: Any, grid: tuple[int, int]) -> Float[np.ndarray, "image rows columns 3"]:
    """The first three principal components of patch features as red, green and blue in 0..1.

    ``features`` are [image, patch, channel] (or [patch, channel] for one image); the components are those of all
    images together, so that a colour means the same in each. Every component is stretched from its 1st to its 99th
    percentile. Components that do not exist or do not vary are mid-grey (0.5).

    Raises :class:`ParameterError` where ``grid`` does not have as many cells as there are patches.
    """
    stack = as_array(features).astype(np.float64)
    stack = stack[None] if stack.ndim == 2 else stack
    images, patches, channels = stack.shape
    if patches != grid[0] * grid[1]:
        raise ParameterError(f"{patches} patches do not fill a grid of {grid[0]} × {grid[1]} = {grid[0] * grid[1]}")
    rows = stack.reshape(images * patches, channels)
    colours = np.full((len(rows), 3), 0.5)
    if len(rows) > 1 and np.ptp(rows, axis=0).max() > 0:
        parts = PCA(n_components=min(3, channels, len(rows)), svd_solver="full").fit_transform(rows)
        low, high = np.percentile(parts, [1, 99], axis=0)
        varies = high - low > 1e-9 * np.abs(rows).max()
        scaled = (parts - low) / np.where(varies, high - low, 1.0)
        colours[:, : parts.shape[1]] = np.where(varies, scaled.clip(0, 1), 0.5)
    return colours.reshape(images, *grid, 3)


@styled
def show_pca(
    ax: Axes, image: Picture, features: Any, grid: tuple[int, int], patch_size: int, title: str | None = None
) -> Axes:
    """Draw patch features [patch, channel] of one image as colours at the image's scale (see :func:`pca_colours`).

    Colours [rows, columns, 3] that were computed for several images together may be given instead of features.
    """
    given = as_array(features)
    colours = given if given.ndim == 3 and given.shape[-1] == 3 else pca_colours(given, grid)[0]
    height, width = _pixels(image).shape[:2]
    ax.imshow(colours, extent=_grid_extent(grid, patch_size), interpolation="nearest")
    _frame(ax, height, width, title)
    return ax


@styled
def gallery(
    images: Sequence[Picture],
    boxes: Sequence[Any] | None = None,
    truths: Sequence[Any] | None = None,
    titles: Sequence[str] | None = None,
    columns: int = 4,
    cell: float = 2.3,
) -> Figure:
    """A grid of images in cells of equal size (``cell`` inches), each with its boxes, annotations and title.

    ``boxes`` and ``truths`` hold an array [box, 4], or ``None``, for each image. A key below says which is which.
    Titles are drawn as they are, as in :func:`show_image`.

    Raises :class:`ParameterError` for an empty gallery or lists of different lengths.
    """
    for name, given in (("boxes", boxes), ("truths", truths), ("titles", titles)):
        if given is not None and len(given) != len(images):
            raise ParameterError(f"the gallery has {len(images)} images but {len(given)} {name}: give one an image")
    if not images:
        raise ParameterError("the gallery has no images: check that there are some before drawing it")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    fig, axes = subplots(rows, columns, (cell, cell))
    for i, ax in enumerate(np.ravel(axes)):
        if i >= len(images):
            ax.set_axis_off()
            continue
        title = titles[i] if titles else None
        show_image(ax, images[i], boxes[i] if boxes else None, truths[i] if truths else None, title)
    if handles := _key(boxes is not None, truths is not None):
        fig.legend(handles=handles, loc="outside lower center", ncols=2, handlelength=2.4)
    return fig


def _pixels(image: Picture) -> np.ndarray:
    return np.asarray(image.convert("RGB")) if isinstance(image, Image.Image) else as_array(image)


def _frame(ax: Axes, height: int, width: int, title: str | None, formulas: bool = True) -> None:
    ax.set_xlim(0, width)
    ax.set_ylim(height, 0)
    ax.set_aspect("equal", anchor="NW")  # images of unequal shape side by side share their upper left corner
    ax.set_axis_off()
    if title is not None:
        ax.set_title(title, parse_math=formulas)


def _grid_extent(shape: Sequence[int], patch_size: int) -> tuple[int, int, int, int]:
    return (0, shape[1] * patch_size, shape[0] * patch_size, 0)


def _key(found: bool, annotated: bool) -> list[Line2D]:
    entries = []
    if found:
        entries.append(Line2D([], [], color=FOUND, linewidth=2, label="found"))
    if annotated:
        entries.append(Line2D([], [], color=TRUTH, linewidth=1.4, linestyle=(0, (4, 2)), label="annotated"))
    return entries
