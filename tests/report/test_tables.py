"""Cells, tables and captions as text."""

import csv
import json

import numpy as np
import pytest

from foundling.errors import FoundlingError
from foundling.evaluation import Interval
from foundling.report.tables import format_cell, read_captions, read_table, write_caption, write_table


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (61.94, "61.9"),
        (np.float32(0.5), "0.5"),
        ((61.9, 60.53, 63.2), "61.9 [60.5, 63.2]"),
        (Interval(-1.25, -2.0, 0.5), "-1.2 [-2.0, 0.5]"),
        (Interval(None, None, None), "n/a"),
        ((1.0, None, None), "1.0"),
        (None, "n/a"),
        (float("nan"), "n/a"),
        (0.00123, "0.0012"),
        ((2.0, -3.5e-16, 4.0), "2.0 [0.0, 4.0]"),
        (-0.0, "0.0"),
        (5011, "5011"),
        (np.int64(3), "3"),
        (True, "yes"),
        (np.bool_(False), "no"),
        ("k = 100", "k = 100"),
    ],
)
def test_cells(value, text):
    assert format_cell(value) == text


def test_digits_and_a_wrong_interval():
    assert format_cell((0.87313, 0.85, 0.9), digits=3) == "0.873 [0.850, 0.900]"
    with pytest.raises(FoundlingError, match=r"\(value, low, high\), not \(1\.0, 2\.0\)"):
        format_cell((1.0, 2.0))


def test_a_table_is_what_the_rows_say(tmp_path):
    rows = [{"method": 'LOST, "keys"', "CorLoc": (61.9, 60.5, 63.2)}, {"method": "DINO-seg", "images": 5011}]
    path = write_table(tmp_path / "tables" / "corloc", rows, "CorLoc <of all>")
    assert path == tmp_path / "tables" / "corloc.csv"
    with path.open(newline="") as stream:
        assert list(csv.DictReader(stream)) == [
            {"method": 'LOST, "keys"', "CorLoc": "61.9 [60.5, 63.2]", "images": "n/a"},
            {"method": "DINO-seg", "CorLoc": "n/a", "images": "5011"},
        ]
    assert read_table(path)[0] == ["method", "CorLoc", "images"]
    assert read_captions(path.parent) == {"corloc": "CorLoc <of all>"}


def test_the_same_rows_give_the_same_bytes_and_leave_nothing_else(tmp_path):
    rows = [{"a": 1.0, "b": "ü"}]
    first = write_table(tmp_path / "one" / "t.csv", rows, "c").read_bytes()
    assert write_table(tmp_path / "two" / "t", rows, "c").read_bytes() == first == "a,b\n1.0,ü\n".encode()
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == ["captions.json", "t.csv"]


def test_named_columns_order_the_table_and_refuse_others(tmp_path):
    path = write_table(tmp_path / "t", [{"b": 1, "a": 2}], "c", columns=["a", "b"])
    assert path.read_text() == "a,b\n2,1\n"
    assert write_table(tmp_path / "none", [], "c", columns=["a"]).read_text() == "a\n"
    with pytest.raises(FoundlingError, match="'t' has columns a, but a row names 'b'"):
        write_table(tmp_path / "t", [{"a": 1, "b": 2}], "c", columns=["a"])
    with pytest.raises(FoundlingError, match="'t' has no columns"):
        write_table(tmp_path / "t", [], "c")


def test_captions_keep_the_order_of_the_story(tmp_path):
    for name in ("seed", "degree", "box", "degree"):
        write_caption(tmp_path / f"{name}.png", name.upper())
    assert list(json.loads((tmp_path / "captions.json").read_text())) == ["seed", "degree", "box"]
