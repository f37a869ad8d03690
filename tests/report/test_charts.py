"""What is drawn in charts: bars, intervals, published strokes, lines, bands and bins."""

import numpy as np
import pytest

from foundling.errors import FoundlingError
from foundling.report.charts import (
    bar_intervals,
    difference_dots,
    gap_histogram,
    grouped_intervals,
    line_with_band,
    stacked_shares,
)
from foundling.report.style import subplots


@pytest.fixture
def ax():
    return subplots()[1]


def legend(ax) -> list[str]:
    return [] if ax.get_legend() is None else [text.get_text() for text in ax.get_legend().get_texts()]


def test_bars_intervals_and_published_values(ax):
    names, values = ["LOST", "centred box", "TokenCut"], [61.9, None, 68.1]
    lows, highs, published = [60.5, None, 66.0], [63.2, None, 69.0], [61.9, None, 68.8]
    assert bar_intervals(ax, names, values, lows, highs, published, title="VOC07") is ax
    assert [bar.get_width() for bar in ax.patches] == [61.9, 0, 68.1]
    assert [label.get_text() for label in ax.get_yticklabels()] == names
    low_y, high_y = ax.get_ylim()
    assert low_y > high_y  # the first name is on top
    segments = [s for c in ax.collections for s in c.get_segments() if len(s) and np.isfinite(s).all()]
    assert [s[:, 0].tolist() for s in segments] == [[60.5, 63.2], [66.0, 69.0]]
    strokes = next(line for line in ax.lines if line.get_label() == "published")
    np.testing.assert_array_equal(strokes.get_xdata(), [61.9, np.nan, 68.8])
    assert [text.get_text() for text in ax.texts] == ["61.9", "n/a", "68.1"]
    assert legend(ax) == ["published"]
    assert ax.get_xlim()[1] > 69


def test_a_difference_that_may_be_none_is_hollow(ax):
    rows = [(5.0, 1.0, 9.0), (2.0, -1.0, 5.0), (-4.0, -6.0, -2.0), (3.0, None, None), (None, None, None)]
    assert difference_dots(ax, list("abcde"), rows, xlabel="points") is ax
    dots = [line for line in ax.lines if line.get_marker() == "o"]
    assert [(dot.get_xdata()[0], dot.get_ydata()[0]) for dot in dots] == [(5.0, 0), (2.0, 1), (-4.0, 2), (3.0, 3)]
    assert [dot.get_markerfacecolor() == "white" for dot in dots] == [False, True, False, True]
    intervals = [list(line.get_xdata()) for line in ax.lines if line.get_marker() == "None" and line not in dots]
    assert intervals == [[1.0, 9.0], [-1.0, 5.0], [-6.0, -2.0], [0, 0]]  # the last: where nothing differs
    assert [label.get_text() for label in ax.get_yticklabels()] == list("abcde") and ax.get_ylim() == (4.5, -0.5)
    with pytest.raises(FoundlingError, match="1 rows but 0 differences: give one a row"):
        difference_dots(ax, ["a"], [])


def test_bars_alone(ax):
    bar_intervals(ax, ["a", "b"], [3.0, None])
    assert not ax.collections and legend(ax) == []
    bar_intervals(subplots()[1], ["a"], [None], [None], [None], [None])  # nothing available: an empty chart


def test_bars_that_do_not_match_their_names(ax):
    with pytest.raises(FoundlingError, match="2 bars but 1 lows: give one a bar"):
        bar_intervals(ax, ["a", "b"], [1.0, 2.0], lows=[1.0])


def test_lines_and_bands(ax):
    line_with_band(ax, [1, 50, 100], [38, None, 62], [36, None, 60], [40, None, 64], published=[38.3, 58.8, 61.9])
    line_with_band(ax, [1, 100], [10, 20], label="other", xlabel="k", title="t")
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [[1, 38], [50, np.nan], [100, 62]])
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), [38.3, 58.8, 61.9])
    assert legend(ax) == ["published", "other"]
    assert len(ax.collections) == 1  # the second line has no band
    corners = ax.collections[0].get_paths()[0].vertices
    assert {(1.0, 36.0), (1.0, 40.0)} <= set(map(tuple, corners))


def test_dots_of_groups_stand_side_by_side(ax):
    series = {"odin": [(40, 35, 46), (None, None, None)], "mae": [(20, 18, 21), (7, None, None)]}
    grouped_intervals(ax, ["1", "2"], series, published={"mae": [16.8, None]}, ylabel="recall", xlabel="instances")
    dots = [c.lines[0] for c in ax.containers]
    np.testing.assert_array_equal([d.get_ydata() for d in dots], [[40, np.nan], [20, 7]])
    odin, mae = (d.get_xdata() for d in dots)
    assert (odin < [0, 1]).all() and (mae > [0, 1]).all() and np.allclose(odin + mae, [0, 2])
    spans = [c.lines[2][0].get_segments() for c in ax.containers]
    assert [s[0][:, 1].tolist() for s in spans] == [[35, 46], [18, 21]]
    assert spans[1][1][:, 1].tolist() == [7, 7]  # no interval
    assert [(text.get_text(), text.xy[0]) for text in ax.texts] == [("n/a", odin[1])]
    stroke = next(line for line in ax.lines if line.get_label() == "published")
    np.testing.assert_array_equal(stroke.get_xydata(), [[mae[0], 16.8], [mae[1], np.nan]])
    assert legend(ax) == ["odin", "mae", "published"]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["1", "2"]
    with pytest.raises(FoundlingError, match="2 groups but 1 values of 'a': give one a group"):
        grouped_intervals(ax, ["1", "2"], {"a": [(1, 0, 2)]})


def test_shares_are_stacked(ax):
    shares = {"found": [60.0, 3.0, None], "missed": [40.0, 97.0, None]}
    stacked_shares(ax, ["1", "2", "3"], shares, {"found": "#009E73", "missed": "#E3E3E3"}, title="net")
    bars = [(bar.get_y(), bar.get_height()) for bar in ax.patches]
    assert bars == [(0, 60), (0, 3), (0, 0), (60, 40), (3, 97), (0, 0)]
    assert [text.get_text() for text in ax.texts] == ["60", "40", "97", "n/a"]  # 3 is too small to be written in
    assert (ax.get_ylim(), ax.get_title(loc="left")) == ((0, 100), "net")
    with pytest.raises(FoundlingError, match="3 groups but 1 shares of 'found': give one a group"):
        stacked_shares(ax, ["1", "2", "3"], {"found": [1.0]}, {"found": "red"})


def test_gaps_are_binned_and_ties_counted(ax):
    gaps = np.array([0.0, 1e-9, 5e-7, 2e-6, 1e-3, 0.5, np.nan])
    gap_histogram(ax, gaps, tie=1e-6, xlabel="gap")
    heights = np.array([bar.get_height() for bar in ax.patches])
    edges = np.array([bar.get_x() for bar in ax.patches])
    assert heights.sum() == 6  # the missing gap is left out
    assert heights[edges < 0.99e-6].sum() == 3  # a bin ends at the bound
    assert legend(ax) == ["tie below 1e-06: 3 of 6 images; 1 not available"]
    assert ax.get_xscale() == "log"


@pytest.mark.parametrize("gaps", [[], [np.nan], [0.0, 0.0], [0.3]])
def test_few_gaps_still_draw(ax, gaps):
    gap_histogram(ax, np.array(gaps), xlabel="gap")
    known = [gap for gap in gaps if not np.isnan(gap)]
    assert sum(bar.get_height() for bar in ax.patches) == len(known)
