"""Rows of the tables of notebook 03, from results made by hand."""

import numpy as np
import pytest

from foundling.evaluation.recall import Instances, summarise_instances
from foundling.report.tables_instances import found_rows, recall_rows


def measured(*overlaps: float):
    """Recall in one image of four objects: one alone of its kind, three of another."""
    n = np.array([1, 3, 3, 3])
    fate = np.zeros(4, dtype=np.int64)
    return summarise_instances([Instances(fate, np.arange(4), n, n, np.array(overlaps), fate)])


RECALL = {"mine": measured(1.0, 0.8, 0.1, 0.6), "theirs": measured(0.2, 0.5, 0.9, 0.0)}


def test_objects_are_counted_by_who_finds_them():
    assert found_rows(RECALL, "mine") == [
        {
            "features": "theirs", "instances": "1", "objects": 1,
            "both": 0, "only mine": 1, "only these": 0, "neither": 0,
        },
        {
            "features": "theirs", "instances": "2+", "objects": 3,
            "both": 1, "only mine": 1, "only these": 1, "neither": 0,
        },
    ]  # fmt: skip


def test_recall_stands_beside_the_printed_one_where_there_is_any():
    rows, note = recall_rows(RECALL, {"mine": {}, "theirs": {"1": 21.0}}, "coco")
    assert [row["features"] for row in rows] == ["mine", "theirs", "theirs, published"]
    assert rows[0]["1"][0] == 100 and rows[1]["3"][0] == pytest.approx(100 / 3) and rows[0]["2"] == (None, None, None)
    assert rows[2]["1"] == 21.0 and note == "Published: instanceness, Table 1."
    assert "does not say which images" in recall_rows(RECALL, {"theirs": {"1": 38.3}}, "voc12")[1]


def test_elsewhere_the_papers_rows_are_called_so():
    rows, note = recall_rows(RECALL, {"mine": {}}, "scenes")
    assert [row["features"] for row in rows[2:]] == ["paper, COCO: DINO ViT-B/16", "paper, COCO: MAE ViT-B/16"]
    assert rows[2]["1"] == 21.0 and rows[3]["2"] == 8.6 and "other images and networks" in note
