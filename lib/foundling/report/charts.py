"""Charts of numbers. Each function draws data on an axis and returns the axis; a number that is missing says "n/a"."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from foundling.errors import ParameterError
from foundling.report.style import ACCENT, FAINT, FILL, FOUND, INK, PALETTE, QUIET, as_array, styled
from foundling.report.tables import format_cell

MARKERS = "os^D"  # each goes with all colours before the next
Numbers = Sequence[float | int | None] | np.ndarray
Triple = Sequence[float | int | None]  # value, low, high


@styled
def bar_intervals(
    ax: Axes,
    names: Sequence[str],
    values: Numbers,
    lows: Numbers | None = None,
    highs: Numbers | None = None,
    published: Numbers | None = None,
    *,
    xlabel: str = "CorLoc (%)",
    title: str | None = None,
    xlim: tuple[float | int, float | int] | None = None,
) -> Axes:
    """Horizontal bars, first name on top, each with its interval, and the published value as an upright stroke.

    All lists are as long as ``names``; ``None`` is a missing number. The value is printed at the right of each bar.
    """
    for what, given in (("values", values), ("lows", lows), ("highs", highs), ("published", published)):
        if given is not None and len(given) != len(names):
            raise ParameterError(f"{len(names)} bars but {len(given)} {what}: give one a bar, None where it is missing")
    value, rows = _floats(values), np.arange(len(names))
    low = value if lows is None else _floats(lows)
    high = value if highs is None else _floats(highs)
    ax.barh(rows, np.nan_to_num(value), height=0.62, color=FILL, zorder=2)
    spread = np.stack([value - low, high - value]).clip(min=0)  # [2, bar]
    if lows is not None:
        ax.errorbar(value, rows, xerr=spread, fmt="none", ecolor=INK, elinewidth=1.3, capsize=3.5, zorder=4)
    printed = np.full(len(names), np.nan) if published is None else _floats(published)
    if np.isfinite(printed).any():
        ax.plot(printed, rows, "|", color=FOUND, markersize=21, markeredgewidth=2.6, zorder=3, label="published")
        ax.legend(loc="lower right", bbox_to_anchor=(1.0, 1.0), handletextpad=0.2, borderaxespad=0.1)
    ends = np.nanmax(np.stack([np.nan_to_num(value), np.nan_to_num(high), np.nan_to_num(printed)]), axis=0)
    for row, (end, number) in enumerate(zip(ends, values, strict=True)):
        ax.annotate(format_cell(number), (end, row), (8, 0), textcoords="offset points", va="center", color=INK)
    _axis(ax, xlabel, title)
    ax.set_yticks(rows, labels=list(names))
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(names) - 0.45, -0.55)
    ax.set_xlim(*(xlim or (0, max(float(ends.max(initial=0)) * 1.14, 1))))
    ax.grid(axis="x")
    return ax


@styled
def difference_dots(
    ax: Axes, names: Sequence[str], differences: Sequence[Triple], *, xlabel: str = "", title: str | None = None
) -> Axes:
    """Differences (value, low, high) as dots with their intervals about a line at 0, first name on top.

    A dot is hollow where its interval contains 0, or where it has none; a value of ``None`` leaves its row empty.
    """
    if len(differences) != len(names):
        raise ParameterError(f"{len(names)} rows but {len(differences)} differences: give one a row")
    for row, (value, low, high) in enumerate(differences):
        if value is None:
            continue
        decided = low is not None and high is not None and (low > 0 or high < 0)
        if low is not None and high is not None:
            ax.plot([low, high], [row, row], color=ACCENT, linewidth=1.6)
        ax.plot(value, row, "o", color=ACCENT, markerfacecolor=ACCENT if decided else "white", zorder=3)
    ax.axvline(0, color=QUIET, linewidth=1)
    _axis(ax, xlabel, title)
    ax.set_yticks(range(len(names)), labels=list(names))
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.grid(axis="x")
    return ax


@styled
def line_with_band(
    ax: Axes,
    x: Sequence[float | int] | np.ndarray,
    values: Numbers,
    lows: Numbers | None = None,
    highs: Numbers | None = None,
    *,
    published: Numbers | None = None,
    label: str | None = None,
    color: str = ACCENT,
    xlabel: str = "",
    ylabel: str = "CorLoc (%)",
    title: str | None = None,
) -> Axes:
    """A line over ``x`` (a sweep of k, for instance) with the band between ``lows`` and ``highs`` and published points.

    Call it again on the same axis for another line, with its own ``label`` and ``color``.
    """
    where, value = as_array(x).astype(np.float64), _floats(values)
    if lows is not None and highs is not None:
        ax.fill_between(where, _floats(lows), _floats(highs), color=color, alpha=0.18, linewidth=0)
    ax.plot(where, value, "o-", color=color, linewidth=1.8, markersize=5, label=label)
    if published is not None:
        ax.plot(where, _floats(published), "D", color=FOUND, markeredgecolor="white", markersize=7, label="published")
    _axis(ax, xlabel, title)
    ax.set_ylabel(ylabel)
    ax.grid(axis="y")
    if ax.get_legend_handles_labels()[0]:
        ax.legend()
    return ax


@styled
def grouped_intervals(
    ax: Axes,
    groups: Sequence[str],
    series: Mapping[str, Sequence[Triple]],
    *,
    published: Mapping[str, Numbers] | None = None,
    xlabel: str = "",
    ylabel: str = "",
    title: str | None = None,
) -> Axes:
    """Dots with intervals side by side in each group, a colour for each of ``series``, and published values as strokes.

    ``series``: name -> (value, low, high) for each group; a value of ``None`` says "n/a", ends of ``None`` draw no
    interval. ``published``: the same names, or some of them -> numbers.
    """
    middle = np.arange(len(groups), dtype=np.float64)
    step = 0.72 / max(len(series), 1)
    for i, (name, triples) in enumerate(series.items()):
        if len(triples) != len(groups):
            raise ParameterError(f"{len(groups)} groups but {len(triples)} values of {name!r}: give one a group")
        x = middle + (i - (len(series) - 1) / 2) * step
        value, low, high = (_floats([triple[part] for triple in triples]) for part in range(3))
        spread = np.stack([value - low, high - value]).clip(min=0)  # [2, group]
        color = PALETTE[i % len(PALETTE)]
        marker = MARKERS[i // len(PALETTE) % len(MARKERS)]
        ax.errorbar(x, value, yerr=np.nan_to_num(spread), fmt=marker, color=color, elinewidth=1.4, markersize=5,
                    capsize=2.5, label=name, zorder=3)  # fmt: skip
        for gone in x[np.isnan(value)]:
            ax.annotate("n/a", (gone, 0), (0, 3), textcoords="offset points", ha="center", fontsize=7, color=color)
        if published and name in published:
            printed = _floats(published[name])
            ax.plot(x, printed, "_", color=FOUND, markersize=12, markeredgewidth=2.4, zorder=2, label="published")
    _axis(ax, xlabel, title)
    ax.set_xticks(middle, labels=list(groups))
    ax.tick_params(axis="x", length=0)
    ax.set_ylabel(ylabel)
    ax.set_ylim(bottom=0)
    ax.set_xlim(-0.55, len(groups) - 0.45)
    for border in middle[1:] - 0.5:
        ax.axvline(border, color=FAINT, linewidth=0.8, zorder=0)
    ax.grid(axis="y")
    handles, names = ax.get_legend_handles_labels()
    named = dict(zip(names, handles, strict=True))  # "published" once
    key = {name: named[name] for name in (*series, "published") if name in named}
    ax.legend(key.values(), key, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=len(key), columnspacing=1.2,
              handletextpad=0.3, borderaxespad=0.1)  # fmt: skip
    return ax


@styled
def stacked_shares(
    ax: Axes,
    groups: Sequence[str],
    shares: Mapping[str, Numbers],
    colours: Mapping[str, str],
    *,
    xlabel: str = "",
    ylabel: str = "",
    title: str | None = None,
) -> Axes:
    """Upright bars, one a group, stacked from ``shares`` in percent: name -> one number a group, the first below.

    Parts of 6 % and more have their number written in; a group whose shares are ``None`` says "n/a".
    """
    x, base = np.arange(len(groups)), np.zeros(len(groups))
    for name, numbers in shares.items():
        height = np.nan_to_num(_floats(numbers))
        if len(height) != len(groups):
            raise ParameterError(f"{len(groups)} groups but {len(height)} shares of {name!r}: give one a group")
        ax.bar(x, height, 0.78, base, color=colours[name], label=name, edgecolor="white", linewidth=0.6)
        red, green, blue = to_rgb(colours[name])
        dark = 0.3 * red + 0.59 * green + 0.11 * blue < 0.55
        for at, low, part in zip(x.tolist(), base, height, strict=True):
            if part >= 6:
                ax.text(at, low + part / 2, f"{part:.0f}", ha="center", va="center", fontsize=8,
                        color="white" if dark else INK)  # fmt: skip
        base += height
    for at in x[base == 0].tolist():
        ax.annotate("n/a", (at, 0), (0, 3), textcoords="offset points", ha="center", color=INK)
    _axis(ax, xlabel, title)
    ax.set_xticks(x, labels=list(groups))
    ax.tick_params(axis="x", length=0)
    ax.set_ylabel(ylabel)
    ax.set_ylim(0, 100)
    return ax


@styled
def gap_histogram(ax: Axes, gaps: Any, tie: float = 1e-6, *, xlabel: str, title: str | None = None) -> Axes:
    """How near to a tie the images' eigenvalue gaps are, on a logarithmic axis, with the tie bound marked.

    ``gaps`` [image] are not negative; those below ``tie`` leave the cut undefined and are counted in the legend, and
    those of exactly 0 are drawn at the left edge. Missing (nan) gaps are left out, and the legend says how many.
    """
    every = as_array(gaps).astype(np.float64).ravel()
    known = every[np.isfinite(every)]
    quarters = np.log10(known[known > 0] / tie) * 4  # bins of a quarter of a decade, the bound being an edge
    first, last = np.floor(quarters.min(initial=-4)), np.floor(quarters.max(initial=4)) + 1
    edges = tie * 10 ** (np.arange(first, last + 1) / 4)
    ax.hist(np.clip(known, edges[0], None), bins=edges.tolist(), color=FILL)
    missing = "" if len(known) == len(every) else f"; {len(every) - len(known)} not available"
    ties = int((known < tie).sum())
    ax.axvline(tie, color=FOUND, linewidth=1.6, label=f"tie below {tie:g}: {ties} of {len(known)} images{missing}")
    ax.set_xscale("log")
    _axis(ax, xlabel, title)
    ax.set_ylabel("images")
    ax.grid(axis="y")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1.0), borderaxespad=0.2)
    return ax


def _floats(values: Numbers) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _axis(ax: Axes, xlabel: str, title: str | None) -> None:
    ax.set_xlabel(xlabel)
    if title is not None:
        ax.set_title(title)
