"""Pictures of refinement: what is drawn where, and what is refused."""

import numpy as np
import pytest
from matplotlib.colors import same_color
from PIL import Image

from foundling.errors import ParameterError
from foundling.evaluation import Interval
from foundling.report import figures_refinement as figures
from foundling.report.figures_refinement import MapRow
from foundling.report.style import FOUND, TRUTH, subplots

BOX, OTHER = np.array([4.0, 4.0, 24.0, 24.0]), np.array([30.0, 30.0, 50.0, 50.0])


@pytest.fixture
def images() -> list[Image.Image]:
    return [Image.new("RGB", (64, 48), (90, 120, 200)) for _ in range(2)]


def history() -> list[dict[str, float]]:
    same = {"class": 0.1, "giou": 1.0}
    rows = [
        {"step": 10 * (i + 1), "phase": float(i >= 3), "l1": 2.0 - 0.1 * i, "iou": 0.1 * i, **same} for i in range(5)
    ]
    rows[2] |= {"agreement": 0.4, "drift": 0.0}
    rows[4] |= {"agreement": 0.5, "drift": 0.25}
    return rows


def colours_of(ax) -> list[str]:
    names = {FOUND: "found", TRUTH: "truth"}
    edges = [patch.get_edgecolor() for patch in ax.patches]
    return [next((name for colour, name in names.items() if same_color(edge, colour)), "white") for edge in edges]


def test_maps_of_one_kind_share_a_scale_and_carry_their_boxes(images):
    low, high = np.zeros((6, 8)), np.full((6, 8), 2.0)
    rows = [
        MapRow("f", "degree", [low, None], 8, [BOX[None], OTHER[None]], [OTHER[None], None]),
        MapRow("f refined", "degree", [high, low], 8, [OTHER[None], None]),
        MapRow("f, cut", "vector", [high, high - 5], 8),
    ]
    fig = figures.before_and_after(images, rows, [BOX[None], None])
    axes = np.reshape(fig.axes, (4, 2))
    limits = [ax.images[-1].get_clim() for ax in axes[1:3, 0]]
    assert limits == [(0, 2), (0, 2)] and axes[3, 1].images[-1].get_clim() == (-3, -3)
    assert colours_of(axes[0, 0]) == ["truth"] and not axes[0, 1].patches
    assert colours_of(axes[1, 0]) == ["white", "found"]
    assert axes[1, 1].images[-1].get_array().shape == (48, 64, 3)  # no map: the image, with its box
    assert colours_of(axes[1, 1]) == ["found"] and not axes[3, 0].patches
    assert [ax.texts[-1].get_text() for ax in axes[:, 0]] == ["annotated", "f", "f refined", "f, cut"]
    with pytest.raises(ParameterError, match="2 images but 1 maps in the row 'f': give each"):
        figures.before_and_after(images, [MapRow("f", "degree", [low], 8)])
    with pytest.raises(ParameterError, match="nothing to draw"):
        figures.before_and_after([], rows)


def test_what_h_sees(images):
    three = np.arange(3 * 4 * 5, dtype=np.float64).reshape(3, 4, 5)
    fig = figures.input_of_h(images[0], three)
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["image", "queries", "keys", "values"]
    np.testing.assert_array_equal(fig.axes[2].images[0].get_array(), three[1])
    assert len(figures.input_of_h(images[0], three[:1]).axes) == 2
    many = figures.input_of_h(images[0], np.concatenate([three, three])).axes[1]
    np.testing.assert_allclose(many.images[0].get_array(), np.linalg.norm(three[:2], axis=0))


def test_boxes_that_moved(images):
    fig = figures.moved_boxes(images, np.stack([BOX, BOX]), np.stack([OTHER, BOX]), [BOX[None], None], ["a", "b"])
    left, right = fig.axes
    assert colours_of(left) == ["truth", "white", "found"] and colours_of(right) == ["white", "found"]
    assert left.patches[2].get_xy() == (30, 30) and left.get_title(loc="left") == "a"
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["before", "after", "annotated"]
    with pytest.raises(ParameterError, match="2 images but 1 of 'truths'"):
        figures.moved_boxes(images, np.stack([BOX, BOX]), np.stack([BOX, BOX]), [None])
    with pytest.raises(ParameterError, match="2 images but 1 of 'before'"):
        figures.moved_boxes(images, BOX[None], BOX[None], [None, None])


def test_phases_are_told_apart():
    assert figures.phase_spans(history()) == [(0.0, 30.0, "h"), (30.0, 50.0, "f")]
    back = [*history(), {"step": 60, "phase": 0.0}]
    assert figures.phase_spans(back)[-1] == (50.0, 60.0, "h")
    assert figures.phase_spans([]) == []
    fig = figures.phase_curves({"seed 0": history(), "seed 1": history()})
    losses, agreement, drift = fig.axes
    assert [line.get_label() for line in losses.lines] == list(figures.LOSSES.values())
    np.testing.assert_allclose(losses.lines[1].get_ydata(), [2.0, 1.9, 1.8, 1.7, 1.6])
    np.testing.assert_allclose(agreement.lines[1].get_xydata(), [[30, 0.4], [50, 0.5]])  # dots of looks
    np.testing.assert_allclose(drift.lines[0].get_ydata(), [0, 0.25])
    assert [text.get_text() for text in losses.texts] == ["h", "f"] and losses.get_xlim() == (0, 50)
    with pytest.raises(ParameterError, match="no runs"):
        figures.phase_curves({})


def test_the_choice_of_a_checkpoint():
    corlocs = [Interval(60.0, 55.0, 65.0), Interval(64.0, 60.0, 68.0), Interval(62.0, None, None)]
    fig = figures.checkpoint_choice([10, 20, 30], [0.5, None, 0.4], corlocs, 0, base=61.0)
    left, right = fig.axes
    marks = {line.get_label(): line.get_xdata()[0] for line in right.lines if not line.get_label().startswith("_")}
    assert marks == {"f": 0, "chosen without labels": 10, "last": 30, "best by ground truth": 20}
    assert np.isnan(left.lines[0].get_ydata()[1])
    nothing = figures.checkpoint_choice([10], [0.5], [Interval(None, None, None)], 0)
    assert not any(line.get_label() == "best by ground truth" for line in nothing.axes[1].lines)
    with pytest.raises(ParameterError, match="2 checkpoints, 1 agreements, 1 CorLocs: give each"):
        figures.checkpoint_choice([1, 2], [0.5], corlocs[:1], 0)


def test_variants_with_their_drift():
    values = {"plain": Interval(60.0, 55.0, 65.0), "k1": Interval(50.0, 45.0, 55.0)}
    fig = figures.ablation_bars(values, {"plain": 0.5, "k1": None}, {"k1": 62.5})
    left, right = fig.axes
    assert [bar.get_width() for bar in left.patches] == [60, 50] and [bar.get_width() for bar in right.patches] == [
        0.5,
        0,
    ]
    assert [text.get_text() for text in right.texts] == ["0.5", "n/a"]
    with pytest.raises(ParameterError, match="no variants"):
        figures.ablation_bars({}, {})


def test_the_ground_of_the_phase_that_trains_f():
    _, ax = subplots()
    figures.shade_phases(ax, history())
    (span,) = ax.patches
    assert (span.get_x(), span.get_width()) == (30, 20)
