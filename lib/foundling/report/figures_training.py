"""Pictures of what happens while a network learns: views, segments, similarities, curves of a run, tracked videos.

As in :mod:`foundling.report.figures`, images are in pixel coordinates with the origin in the upper left corner, and
each function draws on an axis and returns it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, Stroke
from PIL import Image
from scipy.optimize import linear_sum_assignment

from foundling.report.figures import Picture, mask_edges, show_image
from foundling.report.style import ACCENT, INK, PALETTE, QUIET, as_array, styled, subplots
from foundling.types import VOID

SEGMENTS = (*PALETTE, "#F0E442", "#8C564B", "#999999", "#000000")  # more segments than colours begin again
OBJECTS = ("#FF4D00", "#FFE600", "#00C8FF", "#7CFF4D", "#FF7AE0")
WINDOWS = ("#111111", "#0072B2", "#FF4D00")
CONTROL = "#CFCFCF"
PART_COLOURS = {"place": "#E69F00", "image": "#56B4E9", "patch": "#009E73"}


@styled
def show_windows(ax: Axes, image: Picture, windows: Mapping[str, Any], title: str | None = None) -> Axes:
    """Draw windows on an image: name -> (x0, y0, x1, y1) as fractions of it; each has a colour, named below.

    The first lies below the others and is thicker, so that it shows where they share an edge.
    """
    show_image(ax, image, title=title)
    width, height = ax.get_xlim()[1], ax.get_ylim()[0]
    handles: list[Line2D] = []
    for (name, window), color in zip(windows.items(), WINDOWS, strict=False):
        x0, y0, x1, y1 = as_array(window) * [width, height, width, height]
        wide = 2.0 if handles else 5.0
        halo = [Stroke(linewidth=wide + 1.6, foreground="white"), Normal()]
        frame = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=color, linewidth=wide, path_effects=halo)
        ax.add_patch(frame).set_clip_on(False)
        handles.append(Line2D([], [], color=color, linewidth=wide, label=name))
    ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=3, handlelength=1.2,
              columnspacing=1.0, borderaxespad=0.3, fontsize=8.5)  # fmt: skip
    return ax


@styled
def show_segments(ax: Axes, image: Picture, labels: Any, title: str | None = None, opacity: float = 0.55) -> Axes:
    """Tint the segments of an image, which is grey below them, and outline them.

    ``labels`` [rows, columns] hold a number a cell, which chooses its colour; the cells are spread over the image.
    ``title`` may hold formulas between ``$``.
    """
    cells = as_array(labels)
    show_image(ax, Image.fromarray(np.asarray(image)).convert("L").convert("RGB"))
    width, height = ax.get_xlim()[1], ax.get_ylim()[0]
    tints = np.array([to_rgb(SEGMENTS[n % len(SEGMENTS)]) for n in range(int(cells.max()) + 1)])
    ax.imshow(tints[cells], extent=(0, width, height, 0), alpha=opacity, interpolation="nearest")
    scale = np.array([width / cells.shape[1], height / cells.shape[0]])
    edges = [mask_edges(cells == number) * scale for number in np.unique(cells)]
    ax.add_collection(LineCollection(list(np.concatenate(edges)), colors="white", linewidths=0.9), autolim=False)
    ax.set_title(title or "")
    return ax


def same_numbers(
    labels: Int[np.ndarray, "rows columns"], reference: Int[np.ndarray, "rows columns"]
) -> Int[np.ndarray, "rows columns"]:
    """``labels`` with the numbers exchanged so that they agree with ``reference`` on as many cells as possible.

    For pictures beside each other: what k-means calls 0 in one and 3 in the other has one colour then.
    """
    count = int(max(labels.max(), reference.max())) + 1
    shared = np.zeros((count, count))
    np.add.at(shared, (labels.ravel(), reference.ravel()), 1)
    _, number = linear_sum_assignment(shared, maximize=True)
    return number[labels]


@styled
def show_contrast(ax: Axes, similarity: Any, images: Any, title: str | None = None, scale: bool = False) -> Axes:
    """The cosines of Eq. 2: one mask of view 1 a row, the targets of view 2 and of view 1 as columns.

    ``similarity`` is [anchor, 2 · anchor]; ``images`` [anchor] says which image each mask is of. Lines part the images,
    the thick one the two views. Outlined in black: the positives; crossed out: what is no negative either.
    """
    values, owner = as_array(similarity), as_array(images)
    count = len(values)
    drawn = ax.imshow(values, cmap="RdBu_r", vmin=-1, vmax=1, extent=(0, 2 * count, count, 0), interpolation="nearest")
    borders = np.flatnonzero(np.diff(owner)) + 1
    ax.hlines(borders, 0, 2 * count, color=INK, linewidth=0.7)
    ax.vlines([*borders, *(borders + count)], 0, count, color=INK, linewidth=0.7)
    ax.axvline(count, color=INK, linewidth=2.4)
    for i in range(count):
        ax.add_patch(Rectangle((i, i), 1, 1, fill=False, edgecolor="black", linewidth=1.5))
        ax.plot([count + i, count + i + 1], [i, i + 1], color="black", linewidth=1)
        ax.plot([count + i, count + i + 1], [i + 1, i], color="black", linewidth=1)
    middle = [(a + b) / 2 for a, b in zip([0, *borders], [*borders, count], strict=True)]
    names = [str(n + 1) for n in range(len(middle))]
    ax.set_xticks([*middle, *(m + count for m in middle)], labels=names * 2)
    ax.set_yticks(middle, labels=names)
    ax.tick_params(length=0)
    ax.set(xlabel="image: targets of view 2, then of view 1", ylabel="image: masks of view 1")
    ax.spines[:].set_visible(False)
    if title is not None:
        ax.set_title(title)
    if scale:
        beside = ax.inset_axes((1.02, 0.0, 0.02, 1.0))
        ax.figure.colorbar(drawn, cax=beside, label="cosine").outline.set_visible(False)
    return ax


@styled
def training_curve(ax: Axes, history: Sequence[Mapping[str, Any]], name: str = "loss", **options: Any) -> Axes:
    """One column of a run's history (``loss``) over the steps; ``options`` as for matplotlib's ``plot``."""
    rows = [row for row in history if isinstance(row.get(name), int | float)]
    ax.plot(
        [row["step"] for row in rows], [row[name] for row in rows], **{"color": ACCENT, "linewidth": 1.6, **options}
    )
    ax.set(xlabel="step", ylabel=name.replace("_", " "))
    ax.set_xlim(left=0)
    ax.grid(axis="y")
    return ax


@styled
def variance_parts(ax: Axes, history: Sequence[Mapping[str, Any]], title: str | None = None) -> Axes:
    """The collapse monitor: the variance of the features over the steps, and what it is made of, stacked.

    At 0 all features are the same, at 1 they point everywhere. What the place and the image explain is no knowledge of
    parts; the rest is what tells a patch from others of its image and its place.
    """
    looks = [row for row in history if isinstance(row.get("by_image"), int | float)]
    steps = [row["step"] for row in looks]
    total = np.array([row["feature_variance"] for row in looks], dtype=np.float64)
    place, image = (np.nan_to_num([row[name] for row in looks]) for name in ("by_position", "by_image"))
    parts = {"place": place * total, "image": image * total, "patch": (1 - place - image) * total}
    names = {"place": "the place explains", "image": "the image explains", "patch": "left to the patch"}
    ax.stackplot(
        steps, list(parts.values()), labels=names.values(), colors=[PART_COLOURS[name] for name in parts], alpha=0.8
    )
    ax.plot(steps, total, color=INK, linewidth=1.2)
    ax.set(xlabel="step", ylabel="variance of the features", xlim=(0, max(steps, default=1)), ylim=(0, None))
    handles, texts = ax.get_legend_handles_labels()
    ax.legend(handles[::-1], texts[::-1], loc="upper left", bbox_to_anchor=(1.0, 1.0), handlelength=1.2)
    if title is not None:
        ax.set_title(title)
    return ax


@styled
def video_strip(
    frames: Sequence[Picture], masks: Mapping[str, Any], titles: Sequence[str], cell: float = 1.9
) -> Figure:
    """Frames of one video as columns, and a row for every way to get masks.

    ``masks``: name -> index masks [frame, height, width] of the same frames, 0 for the background (255 counts as such);
    ``titles`` go above the columns.
    """
    fig, axes = subplots(len(masks), len(frames), (cell, cell))
    axes = np.reshape(axes, (len(masks), len(frames)))
    for row, found in zip(axes, masks.values(), strict=True):
        for ax, frame, mask in zip(row, frames, found, strict=True):
            show_image(ax, frame)
            _show_objects(ax, np.where(as_array(mask) == VOID, 0, as_array(mask)))
    for ax, title in zip(axes[0], titles, strict=True):
        ax.set_title(title)
    label_rows(axes, list(masks))
    return fig


def _show_objects(ax: Axes, mask: np.ndarray) -> None:
    height, width = mask.shape
    for number in range(1, int(mask.max()) + 1):
        covered, color = mask == number, OBJECTS[(number - 1) % len(OBJECTS)]
        tint = np.zeros((height, width, 4))
        tint[covered] = (*to_rgb(color), 0.4)
        ax.imshow(tint, extent=(0, width, height, 0), interpolation="nearest")
        for edge, thickness in (("black", 2.2), (color, 1.1)):
            lines = LineCollection(list(mask_edges(covered)), colors=edge, linewidths=thickness, capstyle="projecting")
            ax.add_collection(lines, autolim=False)


@styled
def label_rows(axes: Any, names: Sequence[str]) -> None:
    """Write a name, upright, before each row of pictures; ``axes`` are [row, column]."""
    for row, name in zip(np.atleast_2d(axes), names, strict=True):
        row[0].text(
            -0.05, 0.5, name, transform=row[0].transAxes, rotation=90, ha="right", va="center", color=INK, fontsize=9
        )


@styled
def grey_bars(ax: Axes, first: int) -> Axes:
    """Make the bars of a chart grey from number ``first`` on: the controls among what was learned."""
    for bar in ax.patches[first:]:
        bar.set_facecolor(CONTROL)
    return ax


@styled
def reference_lines(ax: Axes, values: Mapping[str, float], apart: float = 0.075) -> Axes:
    """Level lines for what does not change over the steps, such as a control; each has its name at the right.

    Names are moved so that they lie ``apart`` (of the axis's height) or more. Call it after all else is drawn.
    """
    for value in values.values():
        ax.axhline(value, color=QUIET, linewidth=1, linestyle=(0, (4, 3)))
    low, high = ax.get_ylim()
    place = -1.0
    for name, value in sorted(values.items(), key=lambda item: item[1]):
        place = max((value - low) / (high - low), place + apart)
        ax.text(1.015, place, name, transform=ax.transAxes, va="center", color=QUIET, fontsize=8.5)
    return ax
