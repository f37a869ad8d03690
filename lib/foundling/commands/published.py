"""show the published numbers that ours are set beside

Lists how many numbers of each paper and table the package holds; --coverage also counts those that a study file
declares to regenerate; --paper and --table show the numbers themselves.
"""

import argparse
from collections.abc import Sequence
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--coverage", action="store_true", help="count the numbers that the studies regenerate")
    parser.add_argument("--paper", help="the numbers of one paper, such as lost")
    parser.add_argument("--table", help="the numbers of one of its tables, such as 'Table 1'")


def run(args: argparse.Namespace) -> int:
    from foundling.report.published import coverage
    from foundling.studies import published_selectors

    if args.paper or args.table:
        print_columns(numbers(args.paper, args.table))
        return 0
    rows = coverage(published_selectors() if args.coverage else {})
    columns = ["paper", "table", "rows", *(["covered"] if args.coverage else [])]
    total = ["all", "", *(sum(row[column] for row in rows) for column in columns[2:])]  # type: ignore[literal-required]
    heading = ["paper", "table", "numbers", *(["in studies"] if args.coverage else [])]
    print_columns([heading, *([row[column] for column in columns] for row in rows), total])  # type: ignore[literal-required]
    return 0


def numbers(paper: str | None, table: str | None) -> list[list[Any]]:
    """A heading and the published numbers of a paper, a table, or both; columns that say nothing are left out.

    Raises :class:`ParameterError`, with the legal names, if there are none.
    """
    from foundling.errors import ParameterError
    from foundling.report.published import COLUMNS, published

    rows = published(**{key: value for key, value in (("paper", paper), ("table", table)) if value})
    if not rows:
        legal = dict.fromkeys(f"{row['paper']}, {row['table']}" for row in published() if paper in (None, row["paper"]))
        papers = dict.fromkeys(row["paper"] for row in published())
        raise ParameterError(
            f"no published numbers for paper {paper!r}, table {table!r}: there are {'; '.join(legal or papers)}"
        )
    columns = [column for column in (*COLUMNS, "value") if any(row[column] != "" for row in rows)]
    return [columns, *([row[column] for column in columns] for row in rows)]


def print_columns(rows: Sequence[Sequence[Any]]) -> None:
    """Print rows of equal length with columns lined up: text to the left, numbers to the right."""
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [
            f"{cell:>{width}}" if isinstance(cell, int | float) else f"{cell:<{width}}"
            for cell, width in zip(row, widths, strict=True)
        ]
        print("  ".join(cells).rstrip())
