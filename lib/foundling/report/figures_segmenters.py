"""Pictures of trained segmenters: label maps and masks beside those that they were taught with, round by round.

A colour is a class in label maps (that which a cluster was matched with), and in pictures of instances an annotated
object, so that what is the same looks the same in every row.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from foundling.errors import ParameterError
from foundling.report.figures_clusters import label_maps
from foundling.report.figures_instances import part_colours, show_parts, truth_colours
from foundling.report.figures_training import label_rows, training_curve
from foundling.report.style import PALETTE, QUIET, styled, subplots
from foundling.types import VOID

NAMED = 0.01  # share of an image's pixels from which a label is named in it
UNNAMED = VOID - 1  # in a map of classes: a cluster that no class is left for
INSTANCE_LOSSES = {  # column of a run's history -> what it is; SOLOv2's, then Mask R-CNN's
    "category": "cells: object or not",
    "dice": "masks: as they are",
    "box": "masks: their boxes",
    "profile": "masks: their profiles",
    "pairs": "masks: colours",
    "loss_objectness": "proposals: object or not",
    "loss_rpn_box_reg": "proposals: corners",
    "loss_classifier": "boxes: which class",
    "loss_box_reg": "boxes: corners",
    "loss_mask": "masks",
}

Labels = Int[np.ndarray, "_ _"]
Masks = Bool[np.ndarray, "_ _ _"]


def by_class(labels: Any, assignment: Int[np.ndarray, " cluster"]) -> Labels:
    """A label map whose clusters are replaced by the classes that they were matched with.

    ``labels`` are 0 for background, then cluster + 1, and VOID; ``assignment`` has the class of each of these (not of
    VOID), -1 where none was left, which becomes :data:`UNNAMED`.
    """
    names = np.full(VOID + 1, UNNAMED, dtype=np.int64)
    names[: len(assignment)] = np.where(assignment < 0, UNNAMED, assignment)
    names[VOID] = VOID
    found: Labels = names[np.asarray(labels, dtype=np.int64)]
    return found


@styled
def segmented_rows(
    images: Sequence[Image.Image],
    rows: Mapping[str, Sequence[Labels | None]],
    categories: Sequence[str],
    *,
    titles: Sequence[str] | None = None,
    cell: float = 1.9,
) -> Figure:
    """Images as columns; a row of label maps for each of ``rows``: name -> a map of classes for each image.

    Maps hold 0 for background, class + 1, :data:`UNNAMED` ("?") and VOID ("in doubt"); ``None`` is an image without a
    map. Raises :class:`ParameterError` for lists of other lengths, and without an image or a row.
    """
    _check(images, rows)
    fig, axes = subplots(len(rows), len(images), (cell, cell * 1.06))
    axes = np.reshape(axes, (len(rows), len(images)))
    names = {**dict(enumerate(categories, 1)), VOID: "in doubt"}
    for r, given in enumerate(rows.values()):
        for i, (image, labels) in enumerate(zip(images, given, strict=True)):
            title = titles[i] if titles is not None and r == 0 else ""
            empty = np.zeros((image.height, image.width), dtype=np.int64)
            label_maps(axes[r, i], image, empty if labels is None else labels, names, title, NAMED)
            if labels is None:
                axes[r, i].text(0.5, 0.5, "none", transform=axes[r, i].transAxes, ha="center", color=QUIET)
    label_rows(axes, list(rows))
    return fig


@styled
def instance_rows(
    images: Sequence[Image.Image],
    rows: Mapping[str, Sequence[Masks]],
    truths: Sequence[Masks | None],
    *,
    titles: Sequence[str] | None = None,
    cell: float = 1.9,
) -> Figure:
    """Images as columns; a row of masks for each of ``rows``: name -> the masks [mask, height, width] in each image.

    A mask that coincides with an annotated object (IoU of 0.5 or more) has the colour that this has in the last row,
    which is left out where nothing is annotated; others are pale. Raises as :func:`segmented_rows`.
    """
    _check(images, {**rows, "truths": truths})
    annotated = any(truth is not None for truth in truths)
    fig, axes = subplots(len(rows) + annotated, len(images), (cell, cell * 1.06))
    axes = np.reshape(axes, (len(rows) + annotated, len(images)))
    for i, image in enumerate(images):
        truth = truths[i]
        true = np.zeros((0, image.height, image.width), dtype=bool) if truth is None else truth
        for r, given in enumerate(rows.values()):
            masks = _largest_first(given[i])
            show_parts(axes[r, i], image, masks, part_colours([masks], true)[0])
        if annotated:
            show_parts(axes[-1, i], image, true, truth_colours(len(true)))
        if titles is not None:
            axes[0, i].set_title(titles[i], fontsize=9, parse_math=False)
    label_rows(axes, [*rows, *(["annotated"] if annotated else [])])
    return fig


def _largest_first(masks: Masks) -> Masks:
    found: Masks = masks[np.argsort(-masks.sum(axis=(1, 2)), kind="stable")]
    return found


def _check(images: Sequence[Any], rows: Mapping[str, Sequence[Any]]) -> None:
    for name, given in rows.items():
        if len(given) != len(images):
            raise ParameterError(f"{len(images)} images but {len(given)} of {name!r}: give one an image")
    if not images or not rows:
        raise ParameterError("no images, or no rows: there is nothing to draw")


@styled
def class_bars(
    ax: Axes,
    classes: Sequence[str],
    values: Mapping[str, Float[np.ndarray, " class"]],
    *,
    xlabel: str = "IoU (%)",
    title: str | None = None,
) -> Axes:
    """A bar for each class and each of ``values`` (name -> percent of each class), those of a class side by side.

    The first name is grey: it is what the others start from. nan says "n/a".
    """
    step = 0.8 / max(1, len(values))
    place = np.arange(len(classes), dtype=np.float64)
    for n, (name, heights) in enumerate(values.items()):
        if len(heights) != len(classes):
            raise ParameterError(f"{len(classes)} classes but {len(heights)} values of {name!r}: give one each")
        y = place + (n - (len(values) - 1) / 2) * step
        ax.barh(
            y,
            np.nan_to_num(heights),
            step * 0.9,
            label=name,
            color=QUIET if n == 0 else PALETTE[(n - 1) % len(PALETTE)],
        )
        for gone in y[np.isnan(heights)]:
            ax.annotate("n/a", (0, gone), (3, 0), textcoords="offset points", va="center", fontsize=7)
    ax.set_yticks(place, labels=list(classes))
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(classes) - 0.5, -0.5)
    ax.set_xlim(left=0)
    ax.set_xlabel(xlabel)
    ax.grid(axis="x")
    ax.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=max(1, len(values)), borderaxespad=0.1)
    if title is not None:
        ax.set_title(title)
    return ax


@styled
def round_curves(histories: Mapping[str, Sequence[Mapping[str, Any]]], *, width: float = 4.2) -> Figure:
    """Training of semantic segmenters: the loss of every run (name -> history), and how many pixels get the label of
    their map.

    Raises :class:`ParameterError` without a run.
    """
    if not histories:
        raise ParameterError("no runs: there is nothing to draw")
    fig, axes = subplots(1, 2, (width, 2.7))
    for n, (name, history) in enumerate(histories.items()):
        look = {"label": name, "color": PALETTE[n % len(PALETTE)]}
        training_curve(axes[0], history, **look)
        shares = [{**row, "agreement": 100 * row["agreement"]} for row in history if "agreement" in row]
        training_curve(axes[1], shares, "agreement", **look)
    steps = max((row["step"] for history in histories.values() for row in history), default=1)
    axes[0].set(ylim=(0, None), xlim=(0, steps))
    axes[1].set(ylabel="pixels as taught (%)", ylim=(0, 102), xlim=(0, steps))
    axes[1].legend(fontsize=8, loc="lower right")
    return fig
