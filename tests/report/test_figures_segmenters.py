"""Pictures of segmenters: what is drawn, by its data."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image

from foundling.errors import ParameterError
from foundling.report.figures_clusters import cluster_colours
from foundling.report.figures_instances import PALE, truth_colours
from foundling.report.figures_segmenters import (
    UNNAMED,
    by_class,
    class_bars,
    instance_rows,
    round_curves,
    segmented_rows,
)
from foundling.types import VOID


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def texts(ax):
    return [text.get_text() for text in ax.texts if text.get_text()]


def test_clusters_become_the_classes_that_they_were_matched_with():
    labels = np.array([[0, 1, 2], [3, VOID, 2]], dtype=np.uint8)
    np.testing.assert_array_equal(by_class(labels, np.array([0, 2, -1, 1])), [[0, 2, UNNAMED], [1, VOID, UNNAMED]])


def test_rows_of_label_maps_have_the_colours_and_names_of_classes():
    images = [Image.new("RGB", (20, 10)), Image.new("RGB", (8, 8))]
    one, two = np.zeros((10, 20), dtype=np.int64), np.zeros((8, 8), dtype=np.int64)
    one[:, :10], two[:4] = 2, UNNAMED
    fig = segmented_rows(images, {"round 1": [one, two], "annotated": [one, None]}, ("cat", "dog"), titles=["a", "b"])
    axes = np.array(fig.axes).reshape(2, 2)
    assert texts(axes[0, 0]) == ["dog", "round 1"] and texts(axes[1, 0]) == ["dog", "annotated"]
    assert texts(axes[0, 1]) == ["?"] and texts(axes[1, 1]) == ["none"]
    tint = axes[0, 0].images[-1].get_array()
    np.testing.assert_allclose(tint[0, 0, :3], cluster_colours(2)[1])
    assert tint[0, 15, 3] == 0  # background is not covered
    assert [ax.get_title(loc="left") or ax.get_title() for ax in axes[0]] == ["a", "b"]


def test_small_regions_are_coloured_but_not_named():
    labels = np.zeros((20, 20), dtype=np.int64)
    labels[0, 0] = 1
    fig = segmented_rows([Image.new("RGB", (20, 20))], {"r": [labels]}, ("cat",))
    assert texts(fig.axes[0]) == ["r"] and fig.axes[0].images[-1].get_array()[0, 0, 3] > 0


def test_masks_have_the_colour_of_the_object_that_they_coincide_with():
    truth = np.zeros((2, 12, 12), dtype=bool)
    truth[0, :5], truth[1, 7:, 7:] = True, True
    found = np.zeros((3, 12, 12), dtype=bool)
    found[0, 7:, 7:], found[1, :5], found[2, :, 5] = True, True, True
    fig = instance_rows([Image.new("RGB", (12, 12))], {"segmenter": [found]}, [truth], titles=["50 % found"])
    above, below = (ax.images[-1].get_array() for ax in fig.axes)
    for place, colour in (((0, 0), truth_colours(2)[0]), ((10, 10), truth_colours(2)[1])):
        np.testing.assert_allclose(above[place][:3], to_rgb(colour))
        np.testing.assert_allclose(below[place][:3], to_rgb(colour))
    pale = [to_rgb(colour) for colour in PALE]
    assert any(np.allclose(above[6, 5][:3], colour) for colour in pale)  # the smallest mask lies on top
    assert fig.axes[0].get_title(loc="left") == "50 % found"


def test_nothing_annotated_leaves_the_last_row_out():
    none = np.zeros((0, 6, 6), dtype=bool)
    fig = instance_rows([Image.new("RGB", (6, 6))], {"proposals": [none], "segmenter": [none]}, [None])
    assert len(fig.axes) == 2


def test_lists_of_other_lengths_are_refused():
    image, labels = Image.new("RGB", (4, 4)), np.zeros((4, 4), dtype=np.int64)
    with pytest.raises(ParameterError, match="1 images but 2 of 'r': give one an image"):
        segmented_rows([image], {"r": [labels, labels]}, ())
    with pytest.raises(ParameterError, match="no images, or no rows"):
        segmented_rows([], {}, ())
    with pytest.raises(ParameterError, match="1 images but 0 of 'truths'"):
        instance_rows([image], {"r": [np.zeros((0, 4, 4), dtype=bool)]}, [])


def test_bars_of_classes_lie_side_by_side_in_their_order():
    _, ax = plt.subplots()
    values = {"pseudo-masks": np.array([50.0, np.nan]), "round 1": np.array([60.0, 20.0])}
    class_bars(ax, ["background", "cat"], values)
    widths = [[bar.get_width() for bar in container] for container in ax.containers]
    assert widths == [[50, 0], [60, 20]]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["background", "cat"]
    assert texts(ax) == ["n/a"]
    with pytest.raises(ParameterError, match="2 classes but 1 values of 'x'"):
        class_bars(ax, ["a", "b"], {"x": np.zeros(1)})


def test_curves_are_those_of_the_histories():
    history = [{"step": 1, "loss": 2.0, "agreement": 0.5}, {"step": 2, "loss": 1.0, "agreement": 0.75}]
    longer = [*history, {"step": 9, "loss": 0.5, "agreement": 0.9}]
    fig = round_curves({"round 1": history, "round 2": longer})
    loss, share = fig.axes
    assert loss.get_xlim() == share.get_xlim() == (0, 9)  # the longest run fits
    np.testing.assert_array_equal(loss.lines[0].get_xydata(), [[1, 2], [2, 1]])
    np.testing.assert_array_equal(share.lines[0].get_xydata(), [[1, 50], [2, 75]])
    with pytest.raises(ParameterError, match="no runs"):
        round_curves({})
