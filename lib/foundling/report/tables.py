"""Tables: rows in, a CSV with its caption out; the page turns the CSV into HTML."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from foundling.errors import ParameterError
from foundling.files import write_bytes

MISSING = "n/a"
CAPTIONS = "captions.json"
ROUNDING = 1e-12  # what is smaller is 0 but for rounding


def format_cell(value: Any, digits: int = 1) -> str:
    """One cell as text, the same on every machine.

    A float gets ``digits`` decimals, or two significant digits where those would hide that it is not zero (below
    :data:`ROUNDING` it is); an interval (value, low, high) reads "61.9 [60.5, 63.2]"; ``None`` and nan read "n/a"; the
    rest is its own text.
    """
    if isinstance(value, tuple):
        return _format_interval(value, digits)
    if value is None:
        return MISSING
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if not isinstance(value, float | np.floating):
        return str(value)
    number = float(value)
    if math.isnan(number):
        return MISSING
    if abs(number) < ROUNDING:
        number = 0.0  # no minus before a zero, either
    if 0 < abs(number) < 0.5 * 10**-digits:
        return f"{number:.2g}"
    return f"{number:.{digits}f}"


def _format_interval(parts: tuple[Any, ...], digits: int) -> str:
    if len(parts) != 3:
        raise ParameterError(f"a table cell is a number or (value, low, high), not {parts!r}")
    value, low, high = (format_cell(part, digits) for part in parts)
    return value if MISSING in (value, low, high) else f"{value} [{low}, {high}]"


def write_table(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    caption: str,
    columns: Sequence[str] | None = None,
    digits: int = 1,
) -> Path:
    """Write ``rows`` as CSV beside the other tables of a run, note the caption, and return the CSV's path.

    ``path`` is ``<run>/tables/<name>``, with or without ``.csv``; the caption goes to ``captions.json`` in the same
    folder. ``columns`` names and orders the columns (default: in order of first appearance); a row that lacks one
    reads "n/a" there. Cells are formatted by :func:`format_cell` with ``digits`` decimals.

    Raises :class:`ParameterError` for a table without columns, or a row with a column that ``columns`` does not name.
    """
    header = list(columns) if columns is not None else list(dict.fromkeys(name for row in rows for name in row))
    if not header:
        raise ParameterError(f"table {path.stem!r} has no columns: give it rows, or name its columns")
    for row in rows:
        if unknown := [name for name in row if name not in header]:
            raise ParameterError(
                f"table {path.stem!r} has columns {', '.join(header)}, but a row names {unknown[0]!r}: add or drop it"
            )
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([format_cell(row.get(name), digits) for name in header] for row in rows)
    target = path if path.suffix == ".csv" else path.with_name(path.name + ".csv")
    write_bytes(target, text.getvalue().encode())
    write_caption(target, caption)
    return target


def read_table(path: Path) -> tuple[list[str], list[list[str]]]:
    """The header and the rows of a table, as text."""
    with path.open(encoding="utf-8", newline="") as stream:
        header, *rows = csv.reader(stream)
    return header, rows


def write_caption(path: Path, caption: str) -> None:
    """Note the caption of a figure or table in the ``captions.json`` of its folder; their order there is the page's."""
    captions = read_captions(path.parent)
    captions[path.stem] = caption
    text = json.dumps(captions, indent=1, ensure_ascii=False) + "\n"
    write_bytes(path.parent / CAPTIONS, text.encode())


def drop_captions(folder: Path, begins: str) -> None:
    """Forget the captions of ``folder`` whose names begin with ``begins``: their files are gone."""
    captions = read_captions(folder)
    kept = {name: caption for name, caption in captions.items() if not name.startswith(begins)}
    if kept != captions:
        write_bytes(folder / CAPTIONS, (json.dumps(kept, indent=1, ensure_ascii=False) + "\n").encode())


def read_captions(folder: Path) -> dict[str, str]:
    """The captions of a folder of figures or tables, by name, in the order in which they were written."""
    listed = folder / CAPTIONS
    return json.loads(listed.read_text(encoding="utf-8")) if listed.is_file() else {}
