"""The published numbers: the file itself, selections, and what the studies cover."""

import csv

import pytest

from foundling.errors import FoundlingError
from foundling.report.published import COLUMNS, PUBLISHED, coverage, published


def test_the_file_is_whole():
    rows = published()
    assert len(rows) == 960
    assert set(rows[0]) == {*COLUMNS, "value"}
    assert {row["paper"] for row in rows} == {"lost", "comus", "odin", "box_refinement", "instanceness"}
    assert all(row["paper"] and row["table"] and row["method"] and row["metric"] for row in rows)


def test_the_file_is_the_collected_one(shared):
    assert PUBLISHED.read_bytes() == (shared / "data" / "published_results.csv").read_bytes()


def test_selection_agrees_with_a_loop_over_the_file():
    with PUBLISHED.open(newline="") as stream:
        expected = [r for r in csv.DictReader(stream) if r["paper"] == "lost" and r["eval_set"] == "COCO20k"]
    found = published(paper="lost", eval_set="COCO20k")
    assert [(r["table"], r["method"], r["value"]) for r in found] == [
        (r["table"], r["method"], float(r["value"])) for r in expected
    ]
    assert 20 < len(found) < 100
    assert published(paper="nobody") == []
    wanted = {"paper": "lost", "table": "Table 1", "method": "LOST"}
    assert [row["value"] for row in published(**wanted, eval_set="VOC07_trainval")] == [61.9]


def test_rows_belong_to_the_caller():
    published(paper="lost")[0]["value"] = -1
    assert published(paper="lost")[0]["value"] != -1


def test_a_column_that_does_not_exist():
    with pytest.raises(FoundlingError, match="no column 'dataset': choose among paper, table"):
        published(dataset="voc07")


def test_coverage_counts_each_number_once():
    one = {"paper": "lost", "table": "Table 1", "method": "LOST", "eval_set": "VOC07_trainval"}
    wide = {"paper": "lost", "table": "Table 1", "method": "LOST"}
    other = {"paper": "lost", "table": "Table 2", "backbone": "ViT-B/16"}
    studies = {"a": [one, one], "b": [wide], "c": [other]}
    found = {(r["paper"], r["table"]): (r["rows"], r["covered"]) for r in coverage(studies)}
    assert found["lost", "Table 1"] == (36, 3)
    assert found["lost", "Table 2"] == (18, 3)
    assert sum(rows for rows, _ in found.values()) == 960
    assert sum(covered for _, covered in found.values()) == 6
    assert all(r["covered"] == 0 for r in coverage({}))


def test_a_selector_that_matches_nothing_is_an_error_that_names_the_study():
    wrong = {"paper": "lost", "table": "Table 1", "method": "TokenCut"}
    with pytest.raises(FoundlingError, match=r"study 'voc07': .*method is 'TokenCut'; there is .*'LOST'"):
        coverage({"voc07": [wrong]})
    with pytest.raises(FoundlingError, match="paper is 'LOST'; there is 'box_refinement'"):
        coverage({"voc07": [{"paper": "LOST"}]})
    with pytest.raises(FoundlingError, match="study 'voc07': published results have no column 'papre'"):
        coverage({"voc07": [{"papre": "lost"}]})
    with pytest.raises(FoundlingError, match="study 'voc07': no published number for an empty selector"):
        coverage({"voc07": [{}]})
