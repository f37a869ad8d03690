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


def print_columns(rows: Sequence[Sequence[Any]]) -> None:
    """Print rows of equal length with columns lined up: text to the left, numbers to the right."""
    widths = [max(len(str(row[i])) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        cells = [
            f"{cell:>{width}}" if isinstance(cell, int | float) else f"{cell:<{width}}"
            for cell, width in zip(row, widths, strict=True)
        ]
        print("  ".join(cells).rstrip())
