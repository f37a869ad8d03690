"""Rows of the tables of notebook 10, from small results made by hand."""

from pathlib import Path

import numpy as np

from foundling.evaluation import ClassAgnostic, CorLoc, Interval, class_agnostic
from foundling.report.published import published
from foundling.report.tables_ablations import FURTHER, MAIN, step_rows, variant_rows
from foundling.types import Sample

NONE = np.zeros(1, dtype=bool)


def corloc(value: float) -> CorLoc:
    return CorLoc(value, value - 1, value + 1, NONE, NONE, np.zeros(1))


def test_a_variant_has_its_settings_its_number_and_the_difference():
    own = {"lost": {"method": "lost", "k": 1, "centre": True}, "lost.k-5": {"method": "lost", "k": 5, "centre": True}}
    result, difference = {"lost": corloc(60.0), "lost.k-5": corloc(50.0)}, {"lost.k-5": Interval(-10.0, -12.0, -8.0)}
    rows = variant_rows(own, ["k", "centre"], result, difference, {"lost": None, "lost.k-5": None})
    assert rows[0] == {
        "k": "1", "centre": "true", "CorLoc": (60.0, 59.0, 61.0), "difference from the default": "default"
    }  # fmt: skip
    assert rows[1]["difference from the default"] == (-10.0, -12.0, -8.0)
    rows = variant_rows(own, ["k"], result, difference, {"lost": 61.9, "lost.k-5": None})
    assert [row["published"] for row in rows] == [61.9, None]


def agnostic(ap: float) -> ClassAgnostic:
    names = ("AP", "AP50", "AR100")
    values = {name: Interval(ap, ap - 1, ap + 1) for name in names}
    return ClassAgnostic(values=values, images=(1, 2), draws=np.full((4, 3), ap), objects=2, results=2)


def test_a_step_is_compared_with_the_first():
    steps = {
        "default": {"ks": [2, 3], "saliency": "x", "split": True},
        "k2": {"ks": [2], "saliency": "x", "split": True},
    }
    rows = step_rows(steps, {"default": agnostic(3.0), "k2": agnostic(5.0)}, {"default": 9.0, "k2": 4.0})
    assert rows[0]["AP against the first"] == "default" and rows[0]["k"] == "2, 3"
    assert rows[1]["AP against the first"] == (2.0, 2.0, 2.0)
    assert rows[1]["masks an image"] == 4.0 and rows[1]["AP"] == (5.0, 4.0, 6.0)
    rows = step_rows(steps, {"default": agnostic(3.0), "k2": agnostic(5.0)}, {"default": 9.0, "k2": 4.0}, ["AR100"])
    assert rows[1] == {"k": "2", "saliency": "x", "split": True, "masks an image": 4.0, "AR100": (5.0, 4.0, 6.0)}


def test_all_figures_that_the_paper_prints_of_the_steps_have_their_column():
    tables = [published(paper="instanceness", table=table) for table in ("Table 4", "Table 5", "Table 6")]
    named = {row["metric"] for rows in tables for row in rows}
    printed = {"AR100" if name == "AR" else name for name in named}
    assert printed == {*MAIN, *FURTHER}
    assert printed <= set(class_agnostic([], [Sample("a", Path("a.png"), 1)]).values)
