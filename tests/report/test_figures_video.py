"""Frames with tinted objects: what is tinted, outlined and left alone; strips and their errors; the printed rows."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from foundling.errors import ParameterError
from foundling.report.beside_video import printed_videos
from foundling.report.figures_video import OBJECT_COLOURS, show_labels, video_strip
from foundling.report.style import figure_png, subplots

GREY = np.full((20, 30, 3), 100, dtype=np.uint8)


def squares():
    labels = np.zeros((20, 30), dtype=np.uint8)
    labels[2:10, 4:12], labels[12:20, 22:30], labels[0, 0] = 1, 2, 255
    return labels


def test_each_object_is_tinted_in_its_colour_and_nothing_else():
    fig, ax = subplots()
    show_labels(ax, GREY, squares(), title="a $ b")
    tint = np.asarray(ax.images[1].get_array())
    assert (tint[..., 3] > 0).sum() == 128
    assert tint[5, 5, :3] == pytest.approx(to_rgb(OBJECT_COLOURS[0]))
    assert tint[15, 25, :3] == pytest.approx(to_rgb(OBJECT_COLOURS[1]))
    assert tint[0, 0, 3] == 0  # void
    assert ax.get_title(loc="left") == "a $ b"
    assert (ax.get_xlim(), ax.get_ylim()) == ((0, 30), (20, 0))
    assert figure_png(fig).startswith(b"\x89PNG")


def test_outlines_follow_the_objects_up_to_the_edge():
    _, ax = subplots()
    show_labels(ax, GREY, squares())
    first, second = ([path.get_extents() for path in drawn.get_paths()] for drawn in ax.collections)
    assert np.ravel(first[0].get_points()) == pytest.approx([4, 2, 12, 10], abs=0.51)
    assert np.ravel(second[0].get_points()) == pytest.approx([22, 12, 30, 20], abs=0.51)


def test_colours_begin_again_after_the_last():
    labels = np.full((20, 30), len(OBJECT_COLOURS) + 1, dtype=np.uint8)
    _, ax = subplots()
    show_labels(ax, GREY, labels)
    assert np.asarray(ax.images[1].get_array())[3, 3, :3] == pytest.approx(to_rgb(OBJECT_COLOURS[0]))


def test_a_strip_has_a_row_for_each_tracker_and_a_column_for_each_time():
    masks = [squares()] * 6
    fig = video_strip([GREY] * 6, {"truth": masks, "still": masks, "colour": masks}, times=(0, 2, 5))
    axes = fig.axes
    assert len(axes) == 9
    assert [ax.get_title(loc="left") for ax in axes[:4]] == ["frame 0", "frame 2", "frame 5", ""]
    assert [axes[i].texts[0].get_text() for i in (0, 3, 6)] == ["truth", "still", "colour"]
    single = video_strip([GREY], {"truth": [squares()]}, times=[0])
    assert len(single.axes) == 1


@pytest.mark.parametrize(
    ("frames", "rows", "times", "message"),
    [
        ([], {"a": []}, [0], "nothing to draw"),
        ([GREY], {}, [0], "nothing to draw"),
        ([GREY, GREY], {"a": [squares()]}, [0], "row 'a' has 1 masks for 2 frames"),
        ([GREY], {"a": [squares()]}, [1], "there is no frame 1: choose among 0 to 0"),
        ([GREY], {"a": [squares().T]}, [0], r"the image is 30×20 pixels, its labels \(20, 30\): give equal sizes"),
    ],
)
def test_strips_that_cannot_be_drawn(frames, rows, times, message):
    with pytest.raises(ParameterError, match=message):
        video_strip(frames, rows, times)


def test_the_printed_rows_are_those_of_table_5():
    rows = {row["method"]: (row["jf"], row["j"], row["f"]) for row in printed_videos()}
    assert rows == {
        "Random": (15.2, 15.9, 14.6),
        "Supervised": (27.0, 33.0, 20.9),
        "Odin": (35.6, 41.3, 29.9),
        "Odin†": (54.1, 54.3, 53.9),
    }
    assert [row["setting"].rsplit("; ", 1)[1] for row in printed_videos()] == ["stride 32"] * 3 + [
        "with FPN (stride 8)"
    ]
