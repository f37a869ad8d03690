"""Pictures of detectors: what they find beside what taught them, what they take for one kind, how good and how sure.

As in :mod:`foundling.report.figures`, what was found is vermilion and what people annotated blue and dashed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from foundling.categories.crops import Objects
from foundling.errors import ParameterError
from foundling.evaluation.bootstrap import Interval
from foundling.evaluation.boxes import iou
from foundling.evaluation.class_aware import ClassAware
from foundling.evaluation.matching import NO_CLASS
from foundling.evaluation.voc_ap import Curve
from foundling.report.charts import bar_intervals
from foundling.report.figures import Picture, show_boxes, show_image
from foundling.report.figures_clusters import RIGHT, WRONG, PictureRow, object_pictures
from foundling.report.figures_training import label_rows, training_curve
from foundling.report.style import FOUND, PALETTE, QUIET, styled, subplots
from foundling.types import Detections, Sample

LOSSES = {  # column of a run's history -> what it is
    "loss_objectness": "proposals: object or not",
    "loss_rpn_box_reg": "proposals: corners",
    "loss_classifier": "boxes: which class",
    "loss_box_reg": "boxes: corners",
}
METRICS = {"corloc": "CorLoc (%)", "ap50": "AP50 (%)", "odap50": "odAP50 (%)"}


@styled
def show_detections(
    ax: Axes,
    image: Picture,
    found: Detections | None,
    least: float = 0.5,
    *,
    truths: Any = None,
    names: Sequence[str] | None = None,
    title: str | None = None,
    size: float = 6.5,
) -> Axes:
    """Draw an image with the detections whose score is ``least`` or more, each with its score in percent.

    ``names`` are those of the labels, written before the score. ``truths`` [box, 4] are annotated boxes or ``None``;
    the default ``title`` counts the boxes. ``None`` instead of detections is an image in which none are known.
    """
    sure = np.zeros(0, dtype=np.int64) if found is None else np.flatnonzero(found.scores >= least)
    counted = "n/a" if found is None else f"{len(sure)} of {least:g} or more"
    show_image(ax, image, None, truths, counted if title is None else title)
    if found is None:
        return ax
    right, bottom = ax.get_xlim()[1], ax.get_ylim()[0]
    for i in sure[np.argsort(found.scores[sure], kind="stable")]:  # the surest on top
        show_boxes(ax, found.boxes[i][None])
        x, y = found.boxes[i, :2].clip(0, [right, bottom])
        words = f"{names[found.labels[i]]} " if names is not None else ""
        ax.text(
            x, y, f"{words}{100 * found.scores[i]:.0f}", color="white", fontsize=size, va="top", ha="left",
            parse_math=False, bbox={"facecolor": FOUND, "edgecolor": "none", "pad": 0.8}, clip_on=True,
        )  # fmt: skip
    return ax


@styled
def teacher_and_pupil(
    images: Sequence[Picture],
    taught: Sequence[Any],
    detected: Mapping[str, Sequence[Detections | None]],
    truths: Sequence[Any],
    *,
    teacher: str = "taught",
    least: float = 0.5,
    names: Sequence[str] | None = None,
    cell: float = 1.9,
) -> Figure:
    """Images as columns; as rows the teacher's boxes, the detections of each pupil, and what is annotated.

    ``taught`` and ``truths`` hold boxes [box, 4] or ``None`` for each image; ``detected``: name -> the detections in
    each. Without any annotation the last row is left out. Raises :class:`ParameterError` for lists of other lengths.
    """
    for what, given in (("taught", taught), ("truths", truths), *detected.items()):
        if len(given) != len(images):
            raise ParameterError(f"{len(images)} images but {len(given)} of {what!r}: give one an image")
    if not images:
        raise ParameterError("no images: there is nothing to draw")
    annotated = any(boxes is not None for boxes in truths)
    rows = [teacher, *detected, *(["annotated"] if annotated else [])]
    fig, axes = subplots(len(rows), len(images), (cell, cell * 1.09))
    axes = np.reshape(axes, (len(rows), len(images)))
    for i, image in enumerate(images):
        show_image(axes[0, i], image, taught[i])
        for row, found in zip(axes[1:], detected.values(), strict=False):
            show_detections(row[i], image, found[i], least, names=names)
        if annotated:
            show_image(axes[-1, i], image, None, truths[i])
    label_rows(axes, rows)
    return fig


def pseudo_class_rows(
    samples: Sequence[Sample],
    surest: Sequence[Objects],
    score: ClassAware | None,
    categories: Sequence[str],
    threshold: float = 0.5,
) -> list[PictureRow]:
    """A row for each pseudo-class: its ``surest`` detections, framed by whether they are of its category.

    The category is the one that ``score`` matched the pseudo-class with: green is a detection that overlaps one of its
    objects by more than ``threshold`` (IoU), vermilion one that does not, or whose pseudo-class has no category.
    Without a ``score`` there are no frames. For :func:`foundling.report.figures_clusters.picture_rows`.
    """
    rows = []
    for cluster, objects in enumerate(surest):
        pictures, title = object_pictures(samples, objects), f"class {cluster + 1}"
        if score is None:
            rows.append(PictureRow(title, pictures))
            continue
        category = int(score.assignment[cluster])
        words = "no category left"
        if category != NO_CLASS:
            words = f"{categories[category]}, AP50 {score.matrix[0, cluster, category]:.0f} %"
        frames = [RIGHT if _fits(samples[i], box, category, threshold) else WRONG for i, box in _places(objects)]
        rows.append(PictureRow(f"{title}: {words}", pictures, frames))
    return rows


def _places(objects: Objects) -> list[tuple[int, Float[np.ndarray, " 4"]]]:
    return [(int(image), box) for image, box in zip(objects.images, objects.boxes, strict=True)]


def _fits(sample: Sample, box: Float[np.ndarray, " 4"], category: int, threshold: float) -> bool:
    if sample.target is None or category == NO_CLASS:
        return False
    meant = sample.target.boxes[(sample.target.labels == category) & ~sample.target.crowd]
    return bool(iou(box[None], meant).max(initial=0) > threshold)


@styled
def precision_recall(
    ax: Axes,
    curves: Mapping[str, Sequence[Curve | None]],
    *,
    colours: Mapping[str, str] | None = None,
    title: str | None = None,
    legend: bool = True,
) -> Axes:
    """Precision over recall in percent, down the list of all detections: name -> a curve for each run (seed).

    Runs of one name share its colour; the legend has the mean of their areas (AP). A dot marks where a curve ends: no
    detection is left. ``None`` is a run that has no curve, and a name without any says "n/a".
    """
    for n, (name, ones) in enumerate(curves.items()):
        colour = (colours or {}).get(name, PALETTE[n % len(PALETTE)])
        known = [one for one in ones if one is not None and not np.isnan(one.area)]
        area = f"AP {100 * np.mean([one.area for one in known]):.0f}" if known else "n/a"
        ax.plot([], [], color=colour, linewidth=1.6, label=f"{name}: {area}")
        for one in known:
            if not len(one.recall):
                continue
            recall, precision = (100 * np.concatenate([[first], part]) for first, part in
                                 ((0.0, one.recall), (one.precision[0], one.precision)))  # fmt: skip
            ax.plot(recall, precision, color=colour, linewidth=1.4)
            ax.plot(recall[-1:], precision[-1:], "o", color=colour, markersize=4)
    ax.set(xlabel="recall (%)", ylabel="precision (%)", xlim=(0, 102), ylim=(0, 102))
    ax.grid()
    if legend:
        ax.legend(loc="best", fontsize=8.5)
    if title is not None:
        ax.set_title(title)
    return ax


@styled
def class_curves(
    categories: Sequence[str],
    curves: Mapping[str, Sequence[Curve | None]],
    *,
    columns: int = 4,
    cell: tuple[float, float] = (2.0, 1.8),
) -> Figure:
    """A small chart for each category: precision over recall of each method; name -> a curve for each category.

    The AP of each method is written in its colour. A category that no pseudo-class was left for has no curve.
    """
    for name, given in curves.items():
        if len(given) != len(categories):
            raise ParameterError(f"{len(categories)} categories but {len(given)} curves of {name!r}: give one each")
    columns = max(1, min(columns, len(categories)))
    rows = max(1, -(-len(categories) // columns))
    fig, axes = subplots(rows, columns, cell)
    colours = dict(zip(curves, _colours(len(curves)), strict=True))
    for c, ax in enumerate(np.ravel(axes)):
        if c >= len(categories):
            ax.set_axis_off()
            continue
        alone = {name: [given[c]] for name, given in curves.items()}
        precision_recall(ax, alone, colours=colours, title=categories[c], legend=False)
        ax.set(xlabel="", ylabel="", xticks=[0, 50, 100], yticks=[0, 50, 100])
        for n, (name, (one,)) in enumerate(alone.items()):
            text = "n/a" if one is None or np.isnan(one.area) else f"{100 * one.area:.0f}"
            ax.text(0.97, 0.97 - 0.13 * n, text, transform=ax.transAxes, ha="right", va="top", fontsize=8.5,
                    color=colours[name], weight="bold")  # fmt: skip
    fig.supxlabel("recall (%)", fontsize=9.5)
    fig.supylabel("precision (%)", fontsize=9.5)
    handles = [Line2D([], [], color=colour, linewidth=1.6, label=name) for name, colour in colours.items()]
    fig.legend(handles=handles, loc="outside upper right", ncols=len(handles))
    return fig


def _colours(count: int) -> list[str]:
    """Colours of methods, the first of them grey where there are two or more: it is what the others start from."""
    learned = [PALETTE[n % len(PALETTE)] for n in range(count)]
    return [QUIET, *learned[: count - 1]] if count > 1 else learned


@styled
def found_by_count(
    ax: Axes,
    recalls: Mapping[str, Sequence[Float[np.ndarray, " _"]]],
    *,
    colours: Mapping[str, str] | None = None,
    title: str | None = None,
) -> Axes:
    """The share of objects found (0..1, drawn in percent) by the number of boxes an image may have, from 1.

    ``recalls``: name -> R(r) of each run, such as the ``recall[0]`` of :class:`foundling.evaluation.odap.OdAP`.
    """
    for n, (name, ones) in enumerate(recalls.items()):
        colour = (colours or {}).get(name, PALETTE[n % len(PALETTE)])
        for i, one in enumerate(ones):
            ax.plot(np.arange(1, len(one) + 1), 100 * one, "o-", color=colour, markersize=3.5, linewidth=1.4,
                    label=name if i == 0 else None)  # fmt: skip
    ax.set(xlabel="boxes an image", ylabel="objects found (%)")
    ax.set_ylim(bottom=0)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.grid(axis="y")
    if recalls:
        ax.legend(fontsize=8.5)
    if title is not None:
        ax.set_title(title)
    return ax


@styled
def metric_bars(
    values: Mapping[str, Mapping[str, Interval]],
    printed: Mapping[str, Mapping[str, float]] | None = None,
    metrics: Mapping[str, str] = METRICS,
    *,
    width: float = 3.3,
) -> Figure:
    """Bars with intervals of each method, a chart for each of ``metrics`` (name -> label of its axis) side by side.

    ``values``: method -> metric -> interval; ``printed`` likewise, a stroke each. A metric that a method lacks says
    "n/a".
    """
    if not values or not metrics:
        raise ParameterError("no methods, or no metrics: there is nothing to draw")
    fig, axes = subplots(1, len(metrics), (width, 0.42 * len(values) + 1.0))
    for n, (ax, (metric, label)) in enumerate(zip(np.ravel(axes), metrics.items(), strict=True)):
        each = [row.get(metric, Interval(None, None, None)) for row in values.values()]
        beside = [(printed or {}).get(name, {}).get(metric) for name in values]
        names = list(values) if n == 0 else [""] * len(values)
        value, low, high = ([interval[part] for interval in each] for part in range(3))
        bar_intervals(ax, names, value, low, high, beside, xlabel=label)
    return fig


@styled
def loss_parts(
    ax: Axes, history: Sequence[Mapping[str, Any]], parts: Mapping[str, str] = LOSSES, *, whole: str = "loss"
) -> Axes:
    """The loss of one run over its steps, and the ``parts`` it is the sum of: column -> what to call it.

    Columns that the history lacks are left out.
    """
    training_curve(ax, history, whole, label="all", color=QUIET)
    for (column, words), colour in zip(parts.items(), PALETTE, strict=False):
        if any(column in row for row in history):
            training_curve(ax, history, column, label=words, color=colour, linewidth=1.2)
    ax.set(ylabel="loss")
    ax.set_ylim(bottom=0)
    ax.legend(fontsize=8.5, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax


def run_curves(
    histories: Mapping[str, Sequence[Mapping[str, Any]]], parts: Mapping[str, str] = LOSSES, *, width: float = 4.4
) -> Figure:
    """Training of a detector: at the left the loss of every run (name -> history), at the right the first one's parts.

    Raises :class:`ParameterError` without a run.
    """
    if not histories:
        raise ParameterError("no runs: there is nothing to draw")
    fig, axes = subplots(1, 2, (width, 2.8))
    _each_run(axes[0], histories)
    loss_parts(axes[1], next(iter(histories.values())), parts)
    return fig


@styled
def _each_run(ax: Axes, histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    for n, (name, history) in enumerate(histories.items()):
        training_curve(ax, history, label=name, color=PALETTE[n % len(PALETTE)])
    ax.set_ylim(bottom=0)
    ax.legend(fontsize=8)
