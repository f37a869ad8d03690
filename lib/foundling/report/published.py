"""The papers' printed numbers: rows to put beside ours, and which of them the studies cover.

``resources/published_results.csv`` has one row a printed number, with the columns of :data:`COLUMNS`; an empty cell
means that the paper does not say.
"""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, TypedDict

from foundling.errors import ParameterError
from foundling.paths import RESOURCES

COLUMNS = ("paper", "table", "task", "method", "backbone", "pretraining", "train_set", "eval_set", "setting", "metric")
PUBLISHED = RESOURCES / "published_results.csv"

Row = dict[str, Any]  # the columns of COLUMNS as text, and "value" as a number


class Coverage(TypedDict):
    """How many of a table's published numbers the studies regenerate."""

    paper: str
    table: str
    rows: int
    covered: int


@cache
def _rows() -> tuple[Row, ...]:
    with PUBLISHED.open(encoding="utf-8", newline="") as stream:
        return tuple({**row, "value": float(row["value"])} for row in csv.DictReader(stream))


def published(**wanted: Any) -> list[Row]:
    """The published rows whose columns equal ``wanted``, in the order of the file.

    ``published(paper="lost", table="Table 1", eval_set="VOC07_trainval")``: the columns are those of :data:`COLUMNS`
    (text) and ``value`` (a number). Without arguments, every row.

    Raises :class:`ParameterError` for a column that does not exist; no match is an empty list.
    """
    for column in wanted:
        if column not in (*COLUMNS, "value"):
            raise ParameterError(f"published results have no column {column!r}: choose among {', '.join(COLUMNS)}")
    return [dict(row) for row in _rows() if all(row[column] == value for column, value in wanted.items())]


def coverage(studies: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Coverage]:
    """How many published numbers of each table the studies regenerate, in the order of the file.

    ``studies`` holds the ``published:`` list of each study file: selectors that map columns to exact values, such as
    ``{paper: lost, table: Table 1, method: LOST, eval_set: VOC07_trainval}``. A number that several selectors match
    counts once.

    Raises :class:`ParameterError`, naming the study, for a selector that matches no row or names no column.
    """
    covered: set[int] = set()
    for study, selectors in studies.items():
        for selector in selectors:
            covered |= _selected(study, selector)
    total = Counter((row["paper"], row["table"]) for row in _rows())
    reached = Counter((row["paper"], row["table"]) for i, row in enumerate(_rows()) if i in covered)
    return [
        Coverage(paper=paper, table=table, rows=count, covered=reached[paper, table])
        for (paper, table), count in total.items()
    ]


def _selected(study: str, selector: Mapping[str, Any]) -> set[int]:
    """The positions of the rows that one selector of a study matches."""
    for column in selector:
        if column not in (*COLUMNS, "value"):
            raise ParameterError(
                f"study {study!r}: published results have no column {column!r}: choose among {', '.join(COLUMNS)}"
            )
    matches = {i for i, row in enumerate(_rows()) if all(row[column] == value for column, value in selector.items())}
    if not selector or not matches:
        raise ParameterError(
            f"study {study!r}: no published number for {_text(selector) or 'an empty selector'}: {_nearest(selector)}"
        )
    return matches


def _nearest(selector: Mapping[str, Any]) -> str:
    """What does exist for the first column at which a selector stops matching."""
    rows = list(_rows())
    for column, value in selector.items():
        kept = [row for row in rows if row[column] == value]
        if not kept:
            return f"{column} is {value!r}; there is {_listed({row[column] for row in rows})}"
        rows = kept
    return "name at least one column"


def _listed(values: set[Any]) -> str:
    return ", ".join(repr(value) for value in sorted(values, key=str))


def _text(selector: Mapping[str, Any]) -> str:
    return ", ".join(f"{column}={value!r}" for column, value in selector.items())
