"""Pictures of training: what is drawn where, and that numbers arrive as they are."""

import itertools

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from foundling.report import figures_training as ft
from foundling.report.charts import bar_intervals, line_with_band
from foundling.report.style import subplots


@pytest.fixture
def ax():
    return subplots()[1]


def image(height: int = 40, width: int = 60) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_windows_are_rectangles_in_pixels_with_a_key(ax):
    ft.show_windows(ax, image(), {"span": [0, 0, 1, 1], "view 1": [0.25, 0.5, 0.75, 1.0]})
    frames = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    assert [(r.get_x(), r.get_y(), r.get_width(), r.get_height()) for r in frames] == [(0, 0, 60, 40), (15, 20, 30, 20)]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["span", "view 1"]
    assert frames[0].get_linewidth() > frames[1].get_linewidth()


def test_segments_have_the_colour_of_their_number_over_a_grey_image(ax):
    labels = np.array([[0, 0, 2], [1, 1, 2]])
    ft.show_segments(ax, image(), labels, title="$K$ = 3")
    below, above = (drawn.get_array() for drawn in ax.images)
    assert np.ptp(np.asarray(below), axis=2).max() == 0
    for row, column in np.ndindex(2, 3):
        np.testing.assert_allclose(above[row, column], to_rgb(ft.SEGMENTS[labels[row, column]]))
    assert ax.images[1].get_extent() == [0, 60, 40, 0]
    (outlines,) = [c for c in ax.collections if isinstance(c, LineCollection)]
    points = np.concatenate(outlines.get_segments())
    assert points.min() == 0 and points.max(0).tolist() == [60, 40]


def test_numbers_are_exchanged_so_that_most_cells_agree():
    rng = np.random.default_rng(1)
    for _ in range(20):
        labels, reference = rng.integers(0, 4, (2, 5, 6))
        changed = ft.same_numbers(labels, reference)
        best = max(
            (np.array(order)[labels] == reference).sum() for order in itertools.permutations(range(4))
        )  # all ways to name four clusters
        assert (changed == reference).sum() == best
        assert len(np.unique(labels * 9 + changed)) == len(np.unique(labels))  # one name for one cluster


def test_the_same_clusters_under_other_names_become_equal():
    reference = np.array([[0, 1, 2], [2, 1, 0]])
    np.testing.assert_array_equal(ft.same_numbers((reference + 1) % 3, reference), reference)


def test_the_matrix_its_borders_and_its_positives(ax):
    similarity = np.linspace(-1, 1, 50).reshape(5, 10)
    ft.show_contrast(ax, similarity, np.array([0, 0, 1, 1, 1]), title="before", scale=True)
    np.testing.assert_allclose(ax.images[0].get_array(), similarity)
    assert ax.images[0].get_clim() == (-1, 1)
    positives = [(p.get_x(), p.get_y()) for p in ax.patches if isinstance(p, Rectangle)]
    assert positives == [(i, i) for i in range(5)]
    crosses = {tuple(line.get_xdata()) for line in ax.lines if len(line.get_xdata()) == 2}
    assert {(5 + i, 6 + i) for i in range(5)} <= crosses
    assert [text.get_text() for text in ax.get_xticklabels()] == ["1", "2", "1", "2"]
    assert ax.get_xticks().tolist() == [1.0, 3.5, 6.0, 8.5]
    assert len(ax.child_axes) == 1


HISTORY = [
    {"step": 1, "loss": 5.0, "feature_variance": 0.8, "by_position": 0.25, "by_image": 0.5},
    {"step": 5, "loss": 4.0},
    {"step": 9, "loss": 3.0, "feature_variance": 0.4, "by_position": 0.5, "by_image": 0.25},
]


def test_the_loss_over_the_steps(ax):
    ft.training_curve(ax, HISTORY)
    (line,) = ax.lines
    np.testing.assert_allclose(line.get_xydata(), [[1, 5.0], [5, 4.0], [9, 3.0]])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "loss")


def test_parts_of_the_variance_are_stacked_up_to_the_whole(ax):
    ft.variance_parts(ax, HISTORY, title="collapse?")
    tops = [
        {float(x): max(y for a, y in layer.get_paths()[0].vertices if a == x) for x in (1, 9)}
        for layer in ax.collections
    ]
    for top, first, last in zip(tops, (0.2, 0.6, 0.8), (0.2, 0.3, 0.4), strict=True):
        assert (top[1.0], top[9.0]) == (pytest.approx(first), pytest.approx(last))
    assert ax.get_legend().get_texts()[0].get_text() == "left to the patch"  # the order of the layers


def test_a_collapsed_network_has_no_parts(ax):
    ft.variance_parts(
        ax,
        [{"step": s, "feature_variance": 0.0, "by_position": float("nan"), "by_image": float("nan")} for s in (1, 2)],
    )
    assert all(np.isfinite(layer.get_paths()[0].vertices).all() for layer in ax.collections)


def test_a_strip_has_a_row_for_every_way_and_a_column_for_every_frame():
    masks = np.zeros((3, 40, 60), dtype=np.uint8)
    masks[:, 10:20, 10:20], masks[1, 30:, 30:], masks[2, 0, 0] = 1, 2, 255
    fig = ft.video_strip([image()] * 3, {"annotated": masks, "found": masks * 0}, ["frame 0", "frame 1", "frame 2"])
    axes = np.reshape(fig.axes, (2, 3))
    assert [ax.get_title(loc="left") for ax in axes[0]] == ["frame 0", "frame 1", "frame 2"]
    assert [row[0].texts[0].get_text() for row in axes] == ["annotated", "found"]
    assert [len(ax.images) - 1 for ax in axes.flat] == [1, 2, 1, 0, 0, 0]  # one tint an object; 255 is none
    tint = np.asarray(axes[0, 0].images[1].get_array())
    np.testing.assert_array_equal(tint[..., 3] > 0, masks[0] == 1)


def test_controls_are_grey(ax):
    bar_intervals(ax, ["a", "b", "c"], [1.0, 2.0, 3.0])
    before = ax.patches[0].get_facecolor()
    ft.grey_bars(ax, 1)
    assert ax.patches[0].get_facecolor() == before
    assert {bar.get_facecolor()[:3] for bar in ax.patches[1:]} == {to_rgb(ft.CONTROL)}


def test_names_of_level_lines_do_not_touch(ax):
    line_with_band(ax, [0, 1], [10.0, 20.0])
    ft.reference_lines(ax, {"high": 15.0, "low": 12.0, "near": 12.05, "same": 12.05})
    assert sorted(line.get_ydata()[0] for line in ax.lines[1:]) == [12.0, 12.05, 12.05, 15.0]
    places = {text.get_text(): text.get_position()[1] for text in ax.texts}
    assert list(places) == ["low", "near", "same", "high"]
    assert np.diff(list(places.values())).min() >= 0.075 - 1e-9
    low, high = ax.get_ylim()
    assert places["low"] == pytest.approx((12 - low) / (high - low))
