"""Rows of notebook 05's tables: intervals, printed numbers only where there are any, classes and pseudo-classes."""

import numpy as np

from foundling.evaluation import Interval
from foundling.evaluation.class_aware import ClassAware
from foundling.report.tables import write_table
from foundling.report.tables_detectors import box_rows, class_rows, pseudo_class_rows


def aware(values, objects, assignment) -> ClassAware:
    """Scores of classes, AP50 of clusters as ``values`` [cluster, class]."""
    matrix = np.array([values] * 10, dtype=np.float64)
    matrix[:, :, np.array(objects) == 0] = np.nan
    named = {c: k for k, c in enumerate(assignment) if c >= 0}
    classes = tuple(
        Interval(None if not count else float(matrix[0, named[c], c]) if c in named else 0.0, None, None)
        for c, count in enumerate(objects)
    )
    mean = float(np.mean([one.value for one in classes if one.value is not None]))
    values_of = {name: Interval(mean, mean - 1, mean + 1) for name in ("AP", "AP50", "AP75")}
    none = np.zeros((0, 3))
    return ClassAware(
        values_of, none, (1, 2), classes, none, matrix, np.array(assignment), (None,) * 3, np.array(objects)
    )


def test_a_row_for_each_method_with_printed_numbers_where_there_are_any(tmp_path):
    figures = {
        "LOST": {"corloc": Interval(50.0, 45.0, 55.0), "ap50": Interval(20.0, None, None)},
        "LOST + CAD": {"corloc": Interval(60.0, 55.0, 65.0), "ap50": Interval(30.0, 29.0, 31.0)},
    }
    rows = box_rows(figures, {"LOST + CAD": {"corloc": 65.7}}, ("corloc", "ap50"))
    assert list(rows[0]) == ["method", "CorLoc", "CorLoc, published", "AP50"]
    assert rows[0]["CorLoc, published"] is None and rows[1]["CorLoc, published"] == 65.7
    assert list(box_rows(figures, {}, ("corloc",))[1].items()) == [("method", "LOST + CAD"), ("CorLoc", (60, 55, 65))]
    written = write_table(tmp_path / "boxes", rows, "Boxes.").read_text()
    assert 'LOST,"50.0 [45.0, 55.0]",n/a,20.0' in written
    assert box_rows(figures, {})[0]["odAP50"] is None


def test_a_row_for_each_class_and_their_mean():
    scores = {
        "pseudo-boxes": aware([[10.0, 0.0, 0.0], [0.0, 20.0, 0.0]], [5, 3, 0], [0, 1]),
        "OD": aware([[0.0, 40.0, 0.0], [30.0, 0.0, 0.0]], [5, 3, 0], [1, 0]),
    }
    rows = class_rows(scores, ("cat", "dog", "cow"), {"OD": {"cat": 72.2, "ap50": 28.6}})
    assert [row["class"] for row in rows] == ["cat", "dog", "cow", "mean"]
    assert [row["objects"] for row in rows] == [5, 3, 0, 8]
    assert [row["OD"][0] for row in rows] == [30, 40, None, 35]
    assert [row["OD, published"] for row in rows] == [72.2, None, None, 28.6]
    assert rows[3]["pseudo-boxes"] == (15, 14, 16) and "pseudo-boxes, published" not in rows[0]
    assert class_rows({}, (), {}) == [{"class": "mean", "objects": 0}]


def test_a_row_for_each_pseudo_class():
    score = aware([[10.0, 0.0, 0.0], [4.0, 3.0, 0.0], [0.0, 20.0, 0.0]], [5, 3, 0], [0, -1, 1])
    rows = pseudo_class_rows(score, ("cat", "dog", "cow"), [7, 8, 9], [70, 80, 90])
    assert rows[0] == {"pseudo-class": "1", "boxes taught": 7, "detections": 70, "class": "cat", "AP50": 10.0}
    assert (rows[1]["class"], rows[1]["AP50"]) == ("(cat)", None)
    assert (rows[2]["class"], rows[2]["AP50"]) == ("dog", 20.0)
