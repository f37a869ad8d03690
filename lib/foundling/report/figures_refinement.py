"""Pictures of box refinement: maps of a network before and after, the two phases of training, which checkpoint to take.

As in :mod:`foundling.report.figures`, what was found is vermilion and what people annotated blue and dashed; a second
box, of what came before or of a detector, is white.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from foundling.errors import ParameterError
from foundling.evaluation.bootstrap import Interval
from foundling.report.charts import Triple, bar_intervals
from foundling.report.figures import Picture, show_boxes, show_image, show_patch_map
from foundling.report.figures_training import label_rows, training_curve
from foundling.report.style import FAINT, FOUND, INK, PALETTE, QUIET, TRUTH, styled, subplots

BEFORE = "white"
PHASES = {0: "h", 1: "f"}
PRODUCTS = ("queries", "keys", "values")
LOSSES = {"class": "object or not", "l1": "centre, size (L1)", "giou": "overlap (1 - GIoU)"}  # history column -> words


@dataclass(frozen=True)
class MapRow:
    """One row of pictures: a map an image, ``None`` where there is none, with boxes on it.

    ``maps`` are [rows, columns] on the patch grid of ``patch_size`` pixels. ``boxes`` and ``others`` (white) hold an
    array [box, 4] in pixels of the image, or ``None``, for each image. Rows of one ``kind`` share, image by image, one
    colour scale.
    """

    name: str
    kind: str
    maps: Sequence[Any]
    patch_size: int
    boxes: Sequence[Any] | None = None
    others: Sequence[Any] | None = None


@styled
def before_and_after(
    images: Sequence[Picture], rows: Sequence[MapRow], truths: Sequence[Any] | None = None, *, cell: float = 1.9
) -> Figure:
    """Images as columns with what is annotated, and below each its maps, a row each (Figs. 1 and 4 of the paper).

    Raises :class:`ParameterError` without images or rows, and for a row of another length.
    """
    if not images or not rows:
        raise ParameterError("no images, or no rows: there is nothing to draw")
    for row in rows:
        for what, given in (("maps", row.maps), ("boxes", row.boxes), ("others", row.others)):
            if given is not None and len(given) != len(images):
                raise ParameterError(f"{len(images)} images but {len(given)} {what} in the row {row.name!r}: give each")
    fig, axes = subplots(1 + len(rows), len(images), (cell, cell))
    axes = np.reshape(axes, (1 + len(rows), len(images)))
    for i, image in enumerate(images):
        show_image(axes[0, i], image, None, None if truths is None else truths[i])
        for ax, row in zip(axes[1:, i], rows, strict=True):
            _show_map(ax, image, row, i, _limits(rows, row.kind, i))
    label_rows(axes, ["annotated" if truths is not None else "image", *(row.name for row in rows)])
    return fig


@styled
def input_of_h(
    image: Picture,
    shown: Float[np.ndarray, "channel rows columns"],
    names: Sequence[str] = PRODUCTS,
    *,
    cell: tuple[float, float] = (2.7, 2.5),
) -> Figure:
    """An image and the map that h sees of it, a panel for each of ``names``: grey, from the 1st to the 99th percentile.

    A map of three channels has a channel a panel, one of one channel a single panel; of any other number a panel has
    the lengths of the vectors of a third of the channels.
    """
    if len(shown) == 1:
        panels = {"mask": shown[0]}
    elif len(shown) == len(names):
        panels = dict(zip(names, shown, strict=True))
    else:
        thirds = np.array_split(shown, len(names))
        panels = {f"{name} (lengths)": np.linalg.norm(one, axis=0) for name, one in zip(names, thirds, strict=True)}
    fig, axes = subplots(1, 1 + len(panels), cell)
    show_image(axes[0], image, title="image")
    for ax, (name, panel) in zip(axes[1:], panels.items(), strict=True):
        low, high = np.percentile(panel, [1, 99])
        ax.imshow(panel, cmap="gray", vmin=low, vmax=high, interpolation="antialiased", aspect="auto")
        ax.set_title(name)
        ax.set(xlabel=f"{panel.shape[1]} columns", ylabel=f"{panel.shape[0]} rows", xticks=[], yticks=[])
    return fig


def _limits(rows: Sequence[MapRow], kind: str, i: int) -> tuple[float, float] | None:
    """From the least to the largest value that rows of one kind have in an image."""
    known = [np.asarray(row.maps[i]) for row in rows if row.kind == kind and row.maps[i] is not None]
    if not known:
        return None
    return float(min(one.min() for one in known)), float(max(one.max() for one in known))


def _show_map(ax: Axes, image: Picture, row: MapRow, i: int, limits: tuple[float, float] | None) -> None:
    if row.maps[i] is None:
        show_image(ax, image)
    else:
        show_patch_map(ax, image, row.maps[i], row.patch_size, limits=limits)
    if row.others is not None:
        show_boxes(ax, row.others[i], color=BEFORE, width=1.6)
    if row.boxes is not None:
        show_boxes(ax, row.boxes[i])


@styled
def moved_boxes(
    images: Sequence[Picture],
    before: Float[np.ndarray, "box 4"],
    after: Float[np.ndarray, "box 4"],
    truths: Sequence[Any],
    titles: Sequence[str] | None = None,
    *,
    columns: int = 4,
    cell: float = 1.9,
    names: tuple[str, str] = ("before", "after"),
) -> Figure:
    """A gallery of images, each with its box before (white) and after (vermilion), and what is annotated.

    Raises :class:`ParameterError` without images, and for lists of other lengths.
    """
    for what, given in (("before", before), ("after", after), ("truths", truths), ("titles", titles)):
        if given is not None and len(given) != len(images):
            raise ParameterError(f"{len(images)} images but {len(given)} of {what!r}: give one an image")
    if not images:
        raise ParameterError("no images: there is nothing to draw")
    columns = min(columns, len(images))
    fig, axes = subplots(-(-len(images) // columns), columns, (cell, cell))
    for i, ax in enumerate(np.ravel(axes)):
        if i >= len(images):
            ax.set_axis_off()
            continue
        show_image(ax, images[i], None, truths[i], titles[i] if titles is not None else None)
        show_boxes(ax, before[i], color=BEFORE, width=1.8)
        show_boxes(ax, after[i])
    handles = [
        Line2D([], [], color=QUIET, linewidth=4, label=names[0]),  # white would not show on white
        Line2D([], [], color=FOUND, linewidth=2, label=names[1]),
        Line2D([], [], color=TRUTH, linewidth=1.4, linestyle=(0, (4, 2)), label="annotated"),
    ]
    handles[0].set(color="white", markeredgecolor=QUIET, path_effects=_outlined())
    fig.legend(handles=handles, loc="outside lower center", ncols=3, handlelength=2.4)
    return fig


def _outlined() -> list[Any]:
    from matplotlib.patheffects import Normal, Stroke

    return [Stroke(linewidth=5.6, foreground=QUIET), Normal()]


@styled
def phase_curves(
    histories: Mapping[str, Sequence[Mapping[str, Any]]],
    parts: Mapping[str, str] = LOSSES,
    *,
    cell: tuple[float, float] = (3.6, 2.7),
) -> Figure:
    """Both phases: the parts of the first run's loss, how well h and the boxes agree, how far f has moved.

    ``histories``: name of a run -> its history. Steps in which f is trained have a grey ground. Agreement is the mean
    IoU of h's surest box and the box found: of the batch as a line, on images held out as dots.

    Raises :class:`ParameterError` without a run.
    """
    if not histories:
        raise ParameterError("no runs: there is nothing to draw")
    first = next(iter(histories.values()))
    fig, axes = subplots(1, 3, cell)
    for (column, words), colour in zip(parts.items(), PALETTE, strict=False):
        if any(column in row for row in first):
            training_curve(axes[0], first, column, label=words, color=colour)
    axes[0].set(ylabel="parts of the loss, weighted")
    axes[0].legend(fontsize=8)
    for n, (name, history) in enumerate(histories.items()):
        colour = PALETTE[n % len(PALETTE)]
        training_curve(axes[1], history, "iou", label=name, color=colour, linewidth=1.2)
        training_curve(axes[1], history, "agreement", color=colour, marker="o", markersize=4.5, linestyle="none")
        training_curve(axes[2], history, "drift", label=name, color=colour, marker="o", markersize=3.5)
    axes[1].set(ylabel="agreement (IoU)", ylim=(0, 1))
    axes[1].legend(fontsize=8, loc="lower right")
    axes[2].set(ylabel="distance of f")
    for ax in axes:
        ax.set_ylim(0, 1.12 * ax.get_ylim()[1] if ax is not axes[1] else 1.0)
        shade_phases(ax, first)
    return fig


@styled
def shade_phases(ax: Axes, history: Sequence[Mapping[str, Any]]) -> Axes:
    """A grey ground for the steps of a history that train f, and the letter of each phase at the top."""
    spans = phase_spans(history)
    last = max((end for _, end, _ in spans), default=1)
    for start, end, moved in spans:
        if moved == "f":
            ax.axvspan(start, end, color=FAINT, alpha=0.6, linewidth=0, zorder=0)
        ax.text((start + end) / 2, 0.98, moved, transform=ax.get_xaxis_transform(), ha="center", va="top", color=INK)
    ax.set_xlim(0, last)
    return ax


def phase_spans(history: Sequence[Mapping[str, Any]]) -> list[tuple[float, float, str]]:
    """First and last step, and what was trained (h or f), of each phase that a history tells."""
    told = [(float(row["step"]), PHASES[round(float(row["phase"]))]) for row in history if row.get("phase") is not None]
    borders = [0, *(i + 1 for i, (a, b) in enumerate(pairwise(told)) if a[1] != b[1]), len(told)]
    spans, start = [], 0.0
    for i, j in pairwise(borders):
        if j > i:
            spans.append((start, told[j - 1][0], told[i][1]))
            start = told[j - 1][0]
    return spans


@styled
def checkpoint_choice(
    steps: Sequence[int],
    agreement: Sequence[float | None],
    corlocs: Sequence[Triple],
    chosen: int,
    *,
    base: float | None = None,
    cell: tuple[float, float] = (4.2, 2.7),
) -> Figure:
    """Which checkpoint to take: what one may look at (left), and what one may not, CorLoc with its ends (right).

    ``agreement`` and ``corlocs`` belong to the checkpoints after ``steps``; ``chosen`` is the position of the one that
    agreement chooses; ``base`` is the CorLoc of f. Circled: the chosen one; in a square: the last; crossed: the one
    that ground truth would choose.
    """
    if not len(steps) == len(agreement) == len(corlocs) or not steps:
        raise ParameterError(
            f"{len(steps)} checkpoints, {len(agreement)} agreements, {len(corlocs)} CorLocs: give each"
        )
    fig, axes = subplots(1, 2, cell)
    seen = [np.nan if one is None else one for one in agreement]
    axes[0].plot(steps, seen, "o-", color=PALETTE[0], markersize=4)
    values, low, high = (np.array([one[part] for one in corlocs], dtype=np.float64) for part in range(3))
    reach = np.nan_to_num(np.stack([values - low, high - values])).clip(min=0)  # [2, checkpoint]
    axes[1].errorbar(steps, values, yerr=reach, fmt="o-", color=PALETTE[0], markersize=4, elinewidth=1, capsize=2.5)
    if base is not None:
        axes[1].axhline(base, color=QUIET, linewidth=1, linestyle=(0, (4, 3)), label="f")
    marks = {"chosen without labels": (chosen, "o", PALETTE[1]), "last": (len(steps) - 1, "s", PALETTE[2])}
    if np.isfinite(values).any():
        marks["best by ground truth"] = (int(np.flatnonzero(values == np.nanmax(values))[-1]), "x", FOUND)
    for name, (i, marker, colour) in marks.items():
        size = 8 if marker == "x" else 12
        for ax, one in ((axes[0], seen[i]), (axes[1], values[i])):
            ax.plot(steps[i], one, marker, color=colour, markerfacecolor="none", markersize=size, markeredgewidth=1.8,
                    linestyle="none", label=name)  # fmt: skip
    axes[0].set(xlabel="step", ylabel="agreement on images held out (IoU)")
    axes[1].set(xlabel="step", ylabel="CorLoc (%), ground truth")
    for ax in axes:
        ax.grid(axis="y")
    axes[1].legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return fig


@styled
def ablation_bars(
    values: Mapping[str, Interval],
    drifts: Mapping[str, float | None],
    printed: Mapping[str, float] | None = None,
    *,
    width: float = 4.2,
) -> Figure:
    """CorLoc of each variant with its interval and what is printed for it, and at the right how far f has moved."""
    if not values:
        raise ParameterError("no variants: there is nothing to draw")
    fig, axes = subplots(1, 2, (width, 0.42 * len(values) + 1.0))
    value, low, high = ([interval[part] for interval in values.values()] for part in range(3))
    beside = [(printed or {}).get(name) for name in values]
    bar_intervals(axes[0], list(values), value, low, high, beside)
    moved = [drifts.get(name) for name in values]
    largest = max((one for one in moved if one is not None), default=0.0)
    bar_intervals(axes[1], [""] * len(values), moved, xlabel="distance of f from where it began",
                  xlim=(0, 1.25 * largest or 1.0))  # fmt: skip
    return fig
