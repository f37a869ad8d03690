"""Rows of notebook 08's tables: every number under its column, controls without settings, printed numbers beside."""

import numpy as np
import pytest

from foundling.evaluation import Interval, corloc
from foundling.evaluation.overlap import summarise
from foundling.evaluation.video import score_videos
from foundling.report.tables import format_cell
from foundling.report.tables_training import (
    corloc_rows,
    in_short,
    ordered,
    overlap_rows,
    run_rows,
    step_rows,
    video_rows,
)
from foundling.types import Target


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"method": "lost", "k": 5, "facet": "keys", "centre": False}, "facet keys, k 5"),
        ({"method": "colour_tokencut", "tau": 0.2, "deviation": True, "centre": True}, "tau 0.2, centred"),
        (
            {"method": "colour_lost", "k": 2, "centre": True, "space": "lab", "scale": True},
            "k 2, space lab, centred, scaled",
        ),
        ({"method": "centre_box", "side": 0.5}, "side 0.5"),
        ({"method": "whole_image"}, ""),
    ],
)
def test_settings_in_short(settings, text):
    assert in_short(settings) == text


def score(*hits: bool):
    no = np.zeros(1, dtype=bool)
    target = Target(
        boxes=np.array([[0.0, 0, 10, 10]]), labels=np.zeros(1, dtype=np.int64), difficult=no, truncated=no, crowd=no
    )
    return corloc(np.array([[0.0, 0, 10, 10 if hit else 1] for hit in hits]), [target] * len(hits))


def test_a_row_has_both_methods_with_their_settings():
    hits = {"corloc.a": score(True, False), "corloc.box": score(False, False), "tokencut.a": score(True, True)}
    settings = {"corloc.a": {"k": 5}, "corloc.box": {"side": 0.5}, "tokencut.a": {"tau": 0.2}}
    first, second = corloc_rows(hits, settings, {})
    assert list(first) == ["features", "LOST", "LOST: settings", "TokenCut", "TokenCut: settings"]
    assert (first["LOST"][0], first["TokenCut"][0]) == (50.0, 100.0)
    assert first["LOST"][1] <= 50 <= first["LOST"][2]
    assert (first["LOST: settings"], first["TokenCut: settings"]) == ("k 5", "tau 0.2")
    assert second == {"features": "box", "LOST": (0.0, 0.0, 0.0), "LOST: settings": "side 0.5"}


def test_what_was_learned_has_its_difference_from_the_best_control():
    hits, settings = {"corloc.a": score(True), "corloc.box": score(False)}, {"corloc.a": {"k": 5}, "corloc.box": {}}
    first, second = corloc_rows(hits, settings, {"corloc.a": Interval(9.0, 1.0, 17.0)})
    assert list(first) == ["features", "LOST", "LOST: less the best control", "LOST: settings"]
    assert format_cell(first["LOST: less the best control"]) == "9.0 [1.0, 17.0]"
    assert second["LOST: less the best control"] == ""


def test_steps_with_the_paired_difference_from_the_untrained_network():
    later = summarise(np.array([[0.6, 0.6, 1.0], [0.8, 0.8, 0.0]]))
    first, second, control = step_rows({0: OVERLAP, 50: later}, {"rectangles": OVERLAP})
    assert [row["step"] for row in (first, second, control)] == ["0", "50", "rectangles"]
    assert first["ABO_i: less untrained"] == control["ABO_i: less untrained"] == ""
    assert second["ABO_i: less untrained"] == pytest.approx((10, 10, 10))  # each image gains as much
    assert [row["ABO_i"][0] for row in (first, second, control)] == pytest.approx([60, 70, 60])


OVERLAP = summarise(np.array([[0.5, 0.6, 1.0], [0.7, 0.8, 0.0]]))


def test_overlap_beside_what_is_printed():
    first, second = overlap_rows({"a": OVERLAP, "b": OVERLAP}, {"b": {"abo_i": 38.3}})
    assert "abo_i, published" not in first
    assert second["abo_i, published"] == 38.3
    assert [first[name][0] for name in ("ABO_i", "ABO_c", "OR")] == pytest.approx([60, 70, 50])


def test_videos():
    masks = np.zeros((4, 8, 8), dtype=np.uint8)
    masks[:, 2:6, 2:6] = 1
    (row,) = video_rows({"still": score_videos([("v", masks, masks)])}, {"still": {"j&f": 15.2}})
    assert (row["J&F"], row["J"], row["F"], row["J recall"], row["J decay"]) == ((100.0, None, None), 100, 100, 100, 0)
    assert row["j&f, published"] == 15.2


def test_runs_with_what_differs():
    rows = run_rows(
        {"a": {"masks": 5}, "b": {"masks": 9}}, {"a": {"loss": 3.0}, "b": {"loss": 2.0}}, {"b": OVERLAP}, {}
    )
    assert rows[0] == {"run": "a", "masks": 5, "loss": 3.0}
    assert rows[1]["masks"] == 9 and rows[1]["ABO_i"][0] == pytest.approx(60)


def test_those_in_front_keep_their_own_order():
    assert ordered(["x", "b", "a", "y"], ["a", "b", "c"]) == ["a", "b", "x", "y"]
