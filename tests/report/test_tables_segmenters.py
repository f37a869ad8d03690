"""Rows of the tables of notebook 06."""

import numpy as np
import pytest

from foundling.evaluation.bootstrap import Interval
from foundling.evaluation.segmentation import segmentation_scores
from foundling.report.tables_segmenters import FIGURES, instance_rows, round_rows


def scored(right: int):
    """Two classes and the background, every second pixel of a class right or more."""
    tables = np.stack([np.eye(3, dtype=np.int64) * right + 10, np.eye(3, dtype=np.int64) * right + 8])
    return {how: [segmentation_scores(tables, how, resamples=50)] * 2 for how in ("hungarian", "majority")}


def test_a_row_for_each_set_of_label_maps():
    low, high = scored(30), scored(60)
    rows = round_rows({"pseudo-masks": low, "round 1": high}, {"round 1": Interval(70.0, 60.0, 80.0)}, {}, {})
    assert [row["label maps"] for row in rows] == ["pseudo-masks", "round 1"]
    assert rows[0]["mIoU"] == pytest.approx(tuple(low["hungarian"][0].miou))
    assert rows[1]["over seeds"] == (70.0, 60.0, 80.0) and rows[0]["over seeds"] is None
    assert rows[0]["objects only"] == pytest.approx(low["hungarian"][0].classes[1:].mean())
    assert rows[0]["classes found"] == low["hungarian"][0].found and "published" not in rows[0]
    beside = round_rows({"pseudo-masks": low, "round 1": high}, {}, {"round 1": 45.2}, {"round 1": 47.4})
    assert [(row["published"], row["majority, published"]) for row in beside] == [(None, None), (45.2, 47.4)]


def test_a_row_for_each_set_of_masks_and_what_is_printed():
    values = {name: Interval(float(n), None, None) for n, name in enumerate(FIGURES)}
    rows = instance_rows({"proposals": values, "gain": values}, {"AP50": 12.1}, "SOLOv2", {"proposals": 9.5})
    assert [row["masks"] for row in rows] == ["proposals", "gain", "SOLOv2, published"]
    assert rows[0]["an image"] == 9.5 and rows[1]["an image"] is None
    assert rows[0]["AR100"] == (8.0, None, None) and rows[2]["AP50"] == 12.1 and rows[2]["AR100"] is None
    assert len(instance_rows({"proposals": values}, {}, "SOLOv2", {})) == 1
