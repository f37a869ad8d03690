"""Pictures of a sweep: the score at every point, method by method, and the spectral gap beside it."""

import json
from collections.abc import Mapping, Sequence
from itertools import cycle, islice, pairwise, product
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter
from scipy.stats import spearmanr

from foundling.report.charts import MARKERS
from foundling.report.style import ACCENT, FAINT, FOUND, INK, PALETTE, QUIET, styled, subplots

MOST_PANELS = 4  # methods side by side; further ones are in the table only
ROW, PANEL = 0.26, 2.5  # inches
LETTER = 5.6  # points: the mean width of a letter


def axis_text(value: Any) -> str:
    """The value of an axis as a reader of tables and figures sees it."""
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def in_words(settings: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """The settings called ``names`` in few words: numbers with their name, switches by name where on, words alone."""
    words = []
    for name in names:
        value = settings[name]
        if isinstance(value, bool):
            words += [name] if value else []
        else:
            words.append(value if isinstance(value, str) else f"{name} {axis_text(value)}")
    return words


def gap_axis(ax: Axes) -> None:
    """A logarithmic axis for the gaps drawn on it, with plain numbers, also where they cover less than a decade."""
    ax.set_xscale("log")
    low, high = ax.get_xlim()
    ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high / low < 30 else (1.0,)))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.xaxis.set_minor_locator(NullLocator())


@styled
def score_panels(points: Sequence[Any], scores: Sequence[Any], axes: Mapping[str, Sequence[Any]], name: str) -> Figure:
    """One row a point, one panel a method, and a last one for the gaps: what :mod:`foundling.report.sweeps` gathered.

    The rows are named at the left by the axes that have several values, each value once for the rows that share it.
    """
    groups = list(dict.fromkeys(score.group for score in scores))[:MOST_PANELS]
    gaps = [score for score in scores if score.gap]
    columns = len(groups) + bool(gaps)
    named = {name: values for name, values in axes.items() if len(values) > 1} or axes
    letters = sum(max(len(name), *(len(axis_text(value)) for value in values)) for name, values in named.items())
    beside = (LETTER * letters + 12 * len(named) + 10) / 72  # inches
    fig, panels = subplots(1, columns, cell=(PANEL + beside / columns, max(1.6, ROW * len(points) + 0.9)))
    panels = np.atleast_1d(panels)
    row_of = {point.name: row for row, point in enumerate(points)}
    for ax, group in zip(panels, groups, strict=False):
        _scores(ax, [score for score in scores if score.group == group], row_of, group, name)
    reach = [end for s in scores for end in (s.value, s.low, s.high, s.published) if end is not None]
    for ax in panels[: len(groups)]:
        ax.set_xlim(min(0.0, *reach), max(reach) * 1.06 or 1.0)
    if gaps:
        _gaps(panels[-1], gaps, row_of)
    for ax in panels:
        _rows(ax, points, named)
    _row_names(panels[0], points, named)
    return fig


def _scores(ax: Axes, scores: Sequence[Any], row_of: Mapping[str, int], group: str, name: str) -> None:
    """Default settings as dots with intervals, the others as strokes, published numbers as diamonds."""
    others = [score for score in scores if score.label != group]
    own = [score for score in scores if score.label == group]
    ax.plot(
        [s.value for s in others], [row_of[s.point.name] for s in others], "|", color=QUIET, markersize=7, alpha=0.6
    )
    for score in own:
        row = row_of[score.point.name]
        if score.low is not None:
            ax.plot([score.low, score.high], [row, row], color=ACCENT, linewidth=1.6, solid_capstyle="butt", zorder=3)
        ax.plot(score.value, row, "o", color=ACCENT, markersize=5.5, zorder=4)
        if score.published is not None:
            ax.plot(score.published, row, "D", color=FOUND, markersize=5, markeredgecolor="white", zorder=5)
    ax.set_title(group)
    ax.set_xlabel(name)


def _gaps(ax: Axes, scores: Sequence[Any], row_of: Mapping[str, int]) -> None:
    others = [score for score in scores if score.label != score.group]
    own = [score for score in scores if score.label == score.group]
    ax.plot([s.gap for s in others], [row_of[s.point.name] for s in others], "|", color=QUIET, markersize=7, alpha=0.6)
    ax.plot([s.gap for s in own], [row_of[s.point.name] for s in own], "o", color=PALETTE[2], markersize=5.5, zorder=4)
    gap_axis(ax)
    ax.set_title("spectral gap")
    ax.set_xlabel("median gap, " + ", ".join(dict.fromkeys(score.group for score in scores)))


def _rows(ax: Axes, points: Sequence[Any], axes: Mapping[str, Sequence[Any]]) -> None:
    """Rows from the top; a line wherever the first axis takes its next value; missing points are said to be so."""
    ax.set_ylim(len(points) - 0.4, -0.6)
    ax.set_yticks([])
    ax.grid(axis="x")
    ax.spines["left"].set_visible(False)
    first = next(iter(axes), None)
    for row, (above, point) in enumerate(pairwise(points), 1):
        if first is not None and above.axes[first] != point.axes[first]:
            ax.axhline(row - 0.5, color=FAINT, linewidth=1.4)
    for row, point in enumerate(points):
        if not point.metrics:
            ax.text(0.02, row, "missing", color=QUIET, va="center", transform=ax.get_yaxis_transform(), fontsize=8)


def _row_names(ax: Axes, points: Sequence[Any], axes: Mapping[str, Sequence[Any]]) -> None:
    """The values of the axes, as a table to the left of ``ax``: a value stands where it differs from the row above."""
    texts = {name: [axis_text(point.axes[name]) for point in points] for name in axes}
    right = 10.0  # points to the left of the panel, where the last column ends
    for place, (name, column) in reversed(list(enumerate(texts.items()))):
        right += LETTER * max(map(len, [name, *column])) + 12
        at: dict[str, Any] = {
            "xycoords": ax.get_yaxis_transform(),
            "xytext": (-right, 0),
            "textcoords": "offset points",
        }
        ax.annotate(name, (0, -0.85), va="bottom", color=QUIET, **at)
        before = list(axes)[: place + 1]
        for row, text in enumerate(column):
            if row == 0 or any(texts[axis][row] != texts[axis][row - 1] for axis in before):
                ax.annotate(text, (0, row), va="center", color=INK, **at)


@styled
def gaps_and_scores(scores: Sequence[Any], axes: Mapping[str, Sequence[Any]], name: str) -> tuple[Figure, str]:
    """Score against gap, a dot a point and setting, coloured by the first axis with several values.

    Also returns their rank correlation (Spearman) as text, over all and for each of these values: without a spread of
    either there is none.
    """
    known = [score for score in scores if score.gap]
    fig, ax = subplots(cell=(5.6, 3.8))
    axis = next((axis for axis, values in axes.items() if len(values) > 1), next(iter(axes)))
    ranks = {}
    for look, value in zip(_looks(len(axes[axis])), axes[axis], strict=True):
        own = [score for score in known if score.point.axes[axis] == value]
        ranks[axis_text(value)] = _rank(own)
        ax.plot([s.gap for s in own], [s.value for s in own], alpha=0.55, markersize=5, label=axis_text(value), **look)
    gap_axis(ax)
    ax.set_xlabel("median spectral gap λ3 − λ2")
    ax.set_ylabel(name)
    ax.set_ylim(bottom=0)
    ax.grid()
    ax.legend(title=axis, loc="center left", bbox_to_anchor=(1.0, 0.5), alignment="left")
    apart = f" ({', '.join(f'{value} {rank}' for value, rank in ranks.items())})" if len(ranks) > 1 else ""
    return fig, _rank(known) + apart


def _rank(scores: Sequence[Any]) -> str:
    gaps, values = [s.gap for s in scores], [s.value for s in scores]
    spread = len(set(gaps)) > 1 and len(set(values)) > 1
    return f"{spearmanr(gaps, values).statistic:.2f}" if spread else "not defined"


def _looks(count: int) -> list[dict[str, Any]]:
    """``count`` ways to draw dots, as told apart as they can be: each marker goes with all colours before the next."""
    every = cycle(product(MARKERS, PALETTE))
    return [{"marker": marker, "color": color, "linestyle": "none"} for marker, color in islice(every, count)]


@styled
def variants_by_gap(ax: Axes, gaps: Mapping[str, float], results: Mapping[str, Any], groups: Mapping[str, str]) -> Axes:
    """CorLoc with its interval against the median gap, a dot a variant, coloured by what ``groups`` says of it.

    ``gaps`` and ``results`` (:class:`foundling.evaluation.CorLoc`) are by label; those without a number are left out.
    """
    known = {label: gap for label, gap in gaps.items() if gap > 0 and results[label].value is not None}
    named_groups = dict.fromkeys(groups[label] for label in known)
    for look, group in zip(_looks(len(named_groups)), named_groups, strict=True):
        for i, label in enumerate(label for label in known if groups[label] == group):
            score, named = results[label], group if i == 0 else None
            if score.low is not None:
                ax.plot([gaps[label]] * 2, [score.low, score.high], color=look["color"], linewidth=1.2, alpha=0.6)
            ax.plot(gaps[label], score.value, markersize=6, label=named, **look)
    gap_axis(ax)
    ax.set_xlabel("median spectral gap λ3 − λ2")
    ax.set_ylabel("CorLoc (%)")
    ax.set_ylim(bottom=0)
    ax.grid()
    if known:
        ax.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return ax
