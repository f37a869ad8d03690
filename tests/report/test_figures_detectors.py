"""Pictures of detectors: which boxes are drawn, with which frames, which lines and bars."""

import numpy as np
import pytest
from PIL import Image

from foundling.categories.crops import Objects
from foundling.errors import ParameterError
from foundling.evaluation import Interval, class_aware, od_ap, voc_precision
from foundling.evaluation.voc_ap import Curve
from foundling.report import figures_detectors as figures
from foundling.report.figures_clusters import RIGHT, WRONG
from foundling.report.style import subplots
from foundling.types import Detections, Sample, Target

BOX, OTHER, FAR = (4, 4, 24, 24), (30, 30, 50, 50), (60, 4, 70, 14)


def found_of(boxes, scores, labels=None) -> Detections:
    labels = np.zeros(len(boxes), dtype=np.int64) if labels is None else np.array(labels)
    return Detections(np.array(boxes, dtype=np.float64), np.array(scores), labels)


@pytest.fixture
def samples(tmp_path) -> list[Sample]:
    """Two images with an object of either class each."""
    made = []
    for i in (1, 2):
        file = tmp_path / f"{i}.png"
        Image.new("RGB", (80, 60), (90, 120, 200)).save(file)
        none = np.zeros(2, dtype=bool)
        target = Target(np.array([BOX, OTHER], dtype=np.float64), np.array([0, 1]), none, none, none)
        made.append(Sample(file.name, file, i, target))
    return made


@pytest.fixture
def image() -> Image.Image:
    return Image.new("RGB", (80, 60), (90, 120, 200))


def boxes_on(ax) -> list[tuple[float, ...]]:
    return [(*patch.get_xy(), patch.get_width(), patch.get_height()) for patch in ax.patches]


def test_detections_above_a_score_with_their_scores(image):
    _, ax = subplots()
    found = found_of([BOX, OTHER, FAR], [0.9, 0.5, 0.49], [1, 0, 1])
    assert figures.show_detections(ax, image, found, 0.5, names=("cat", "dog")) is ax
    assert sorted(boxes_on(ax)) == [(4, 4, 20, 20), (30, 30, 20, 20)]
    assert {text.get_text() for text in ax.texts} == {"dog 90", "cat 50"}
    assert ax.get_title(loc="left") == "2 of 0.5 or more"
    _, ax = subplots()
    figures.show_detections(ax, image, None, truths=np.array([BOX], dtype=np.float64))
    assert len(ax.patches) == 1 and ax.get_title(loc="left") == "n/a"


def test_the_teacher_above_its_pupils_above_the_truth(image):
    taught, truth = np.array([BOX], dtype=np.float64), np.array([BOX, OTHER], dtype=np.float64)
    found = found_of([BOX, OTHER, FAR], [0.9, 0.8, 0.1])
    fig = figures.teacher_and_pupil([image] * 2, [taught, None], {"CAD": [found, None]}, [truth, None], teacher="LOST")
    axes = np.reshape(fig.axes, (3, 2))
    assert [[len(ax.patches) for ax in row] for row in axes] == [[1, 0], [2, 0], [2, 0]]
    assert [row[0].texts[-1].get_text() for row in axes] == ["LOST", "CAD", "annotated"]
    alone = figures.teacher_and_pupil([image], [taught], {"CAD": [found]}, [None])
    assert len(alone.axes) == 2
    with pytest.raises(ParameterError, match="2 images but 1 of 'CAD'"):
        figures.teacher_and_pupil([image] * 2, [taught] * 2, {"CAD": [found]}, [None] * 2)
    with pytest.raises(ParameterError, match="no images"):
        figures.teacher_and_pupil([], [], {}, [])


def test_a_row_for_each_pseudo_class_with_frames(samples):
    detected = {1: found_of([BOX, OTHER], [0.9, 0.8], [1, 0]), 2: found_of([BOX, FAR], [0.7, 0.6], [1, 2])}
    score = class_aware(detected, samples, 2, 3, resamples=0)
    assert score.assignment.tolist() == [1, 0, -1]

    def objects(images, boxes) -> Objects:
        n = len(images)
        names = tuple(samples[i].name for i in images)
        where = np.array(boxes, dtype=np.float64).reshape(-1, 4)
        return Objects(np.array(images, dtype=np.int64), names, np.arange(n), where, np.ones(n), (None,) * n)

    surest = [objects([0, 1], [OTHER, BOX]), objects([0], [BOX]), objects([1], [FAR])]
    rows = figures.pseudo_class_rows(samples, surest, score, ("cat", "dog"))
    assert [row.title for row in rows] == [
        "class 1: dog, AP50 50 %", "class 2: cat, AP50 100 %", "class 3: no category left",
    ]  # fmt: skip
    assert [list(row.frames) for row in rows] == [[RIGHT, WRONG], [RIGHT], [WRONG]]
    assert [len(row.pictures) for row in rows] == [2, 1, 1]
    plain = figures.pseudo_class_rows(samples, surest[:1], None, ())
    assert (plain[0].title, plain[0].frames) == ("class 1", ())


def test_precision_over_recall(samples):
    detected = {1: found_of([BOX, FAR, OTHER], [0.9, 0.8, 0.7])}
    curve = voc_precision(detected, samples, resamples=0).curve
    _, ax = subplots()
    empty = Curve(np.zeros(0), np.zeros(0), np.zeros(0), 0.0)
    assert figures.precision_recall(ax, {"CAD": [curve, empty], "none": [None]}, title="all") is ax
    x, y = next(line.get_data() for line in ax.lines if len(line.get_xdata()) > 1)
    np.testing.assert_allclose(x, [0, 25, 25, 50])
    np.testing.assert_allclose(y, [100, 100, 50, 200 / 3])
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == [f"CAD: AP {100 * curve.area / 2:.0f}", "none: n/a"]


def test_a_chart_for_each_category():
    curve = Curve(np.array([0.5, 1.0]), np.array([1.0, 1.0]), np.array([0.9, 0.8]), 1.0)
    fig = figures.class_curves(
        ("cat", "dog", "cow"), {"pseudo-boxes": [curve, None, None], "OD": [curve] * 3}, columns=2
    )
    drawn = [ax for ax in fig.axes if ax.axison]
    assert [ax.get_title(loc="left") for ax in drawn] == ["cat", "dog", "cow"]
    assert [[text.get_text() for text in ax.texts] for ax in drawn] == [["100", "100"], ["n/a", "100"], ["n/a", "100"]]
    assert len({line.get_color() for line in drawn[0].lines}) == 2
    with pytest.raises(ParameterError, match="3 categories but 1 curves of 'OD'"):
        figures.class_curves(("cat", "dog", "cow"), {"OD": [curve]})


def test_objects_found_by_the_number_of_boxes(samples):
    scores = od_ap({1: found_of([BOX, OTHER], [0.9, 0.8])}, samples, resamples=0)
    _, ax = subplots()
    assert figures.found_by_count(ax, {"CAD": [scores.recall[0]] * 2}) is ax
    assert len(ax.lines) == 2 and len(ax.get_legend().get_texts()) == 1
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [25, 50, 50, 50, 50])
    np.testing.assert_allclose(ax.lines[0].get_xdata(), [1, 2, 3, 4, 5])


def test_bars_of_metrics_with_what_is_printed():
    values = {"LOST": {"corloc": Interval(50.0, 45.0, 55.0)}, "LOST + CAD": {"corloc": Interval(60.0, None, None)}}
    fig = figures.metric_bars(values, {"LOST": {"corloc": 61.9}}, {"corloc": "CorLoc (%)", "ap50": "AP50 (%)"})
    left, right = fig.axes
    assert [bar.get_width() for bar in left.patches] == [50, 60]
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["LOST", "LOST + CAD"]
    assert [text.get_text() for text in right.texts] == ["n/a", "n/a"]
    assert left.get_legend() is not None and right.get_legend() is None
    with pytest.raises(ParameterError, match="nothing to draw"):
        figures.metric_bars({})


def test_losses_of_runs_and_their_parts():
    history = [{"step": s, "loss": 2.0 / s, "loss_classifier": 1.0 / s, "loss_box_reg": 1.0 / s} for s in (1, 2, 3)]
    fig = figures.run_curves({"seed 0": history, "seed 1": history[:2]})
    left, right = fig.axes
    assert [len(line.get_xdata()) for line in left.lines] == [3, 2]
    assert [text.get_text() for text in right.get_legend().get_texts()] == [
        "all", "boxes: which class", "boxes: corners",
    ]  # fmt: skip
    with pytest.raises(ParameterError, match="no runs"):
        figures.run_curves({})
