"""What one run of a notebook left in its folder, read and made ready for the study's page."""

import base64
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image, UnidentifiedImageError

from foundling.report.figures_sweeps import axis_text
from foundling.report.sweeps import write_sweep
from foundling.report.tables import CAPTIONS, MISSING, format_cell, read_table

_NUMBER = re.compile(r"[-+−]?\d[\d,]*(\.\d+)?(e[-+]?\d+)?( ?%| s)?( \[[^\]]*\])?")
_SUFFIXES = (".low", ".high", ".published")
_FIRST = ("study", "notebook", "commit", "modified", "device", "dataset", "weights", "seeds", "seconds")


def gather_run(folder: Path) -> dict[str, Any]:
    """What one run folder holds, ready for the template; ``problems`` says what is missing or unreadable in it."""
    problems: list[str] = []
    metrics = _read_json(folder / "metrics.json", problems)
    provenance = _read_json(folder / "provenance.json", problems)
    has_notebook = (folder / "notebook.html").is_file()
    if not has_notebook:
        problems.append("notebook.html is missing: the run stopped before its page was written.")
    return {
        "name": folder.name,
        "anchor": folder.name,
        "label": run_label(folder.name),
        "notebook": quote(f"{folder.name}/notebook.html") if has_notebook else None,
        "records": metric_records(metrics),
        "metrics": metric_table(metric_records(metrics)),
        "tables": _tables(folder / "tables", problems),
        "figures": _figures(folder / "figures", problems),
        "provenance": _provenance_rows(provenance),
        "unavailable": mapping(provenance.get("not_available")),
        "commit": _commit(provenance),
        "device": provenance.get("device"),
        "stamp": _stamp(provenance),
        "problems": problems,
    }


def gather_sweep(study_dir: Path, notebook: str, axes: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """A swept notebook, ready for the template: its table and figures, written anew, and each point with its state."""
    points = write_sweep(study_dir, notebook, axes)
    problems: list[str] = []
    missing = [point.name for point in points if point.problem]
    if missing:
        problems.append(
            f"{len(missing)} of {len(points)} points are missing: `make study STUDY={study_dir.name}` tries them again."
        )
    provenances = [
        _read_json(study_dir / notebook / point.name / "provenance.json", problems)
        for point in points
        if not point.problem
    ]
    return {
        "anchor": notebook,
        "label": run_label(notebook),
        "tables": _tables(study_dir / "tables", problems, notebook),
        "figures": _figures(study_dir / "figures", problems, notebook),
        "points": [
            {
                "name": ", ".join(f"{name} {axis_text(value)}" for name, value in point.axes.items()),
                "link": quote(f"{notebook}/{point.name}/notebook.html") if point.page else None,
                "problem": point.problem,
            }
            for point in points
        ],
        "count": len(points),
        "stamp": " · ".join(dict.fromkeys(part for p in provenances for part in _stamp(p).split(" · "))),
        "commits": [_commit(provenance) for provenance in provenances],
        "devices": [str(provenance["device"]) for provenance in provenances if provenance.get("device")],
        "problems": problems,
    }


def run_label(name: str) -> str:
    """``02_single_object_discovery`` as a heading: "02 Single object discovery"."""
    number, _, words = name.partition("_")
    return f"{number} {words.replace('_', ' ').capitalize()}"


def metric_records(metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One record (name, value, low, high, published) a metric; ``x.low`` and its like belong to the metric ``x``."""
    own = [name for name in metrics if not (name.endswith(_SUFFIXES) and name.rpartition(".")[0] in metrics)]
    return [{"name": name, "value": metrics[name]} | {s[1:]: metrics.get(name + s) for s in _SUFFIXES} for name in own]


def metric_table(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Records as a table; the columns notebook and published are there where a record has them."""
    columns = {"metric": "name", "ours [95 % interval]": "ours", "published": "published"}
    if any("notebook" in record for record in records):
        columns = {"notebook": "notebook", **columns}
    if all(record["published"] is None for record in records):
        del columns["published"]
    digits = _digits(records)
    rows = []
    for record in records:
        value, decimals = record["value"], digits[_family(record)]
        ours = value if record["low"] is None else (value, record["low"], record["high"])
        cells = {
            **record,
            "ours": format_cell(int(value) if _whole(record) else ours, decimals),
            "published": format_cell(record["published"], decimals),
        }
        rows.append([cells[key] for key in columns.values()])
    return _table("", list(columns), rows)


def _whole(record: Mapping[str, Any]) -> bool:
    """Whether a metric is a count: a whole number without an interval or a published value."""
    value = record["value"]
    return record["low"] is None and record["published"] is None and isinstance(value, float) and value.is_integer()


def _family(record: Mapping[str, Any]) -> str:
    return record["name"].partition(".")[0]


def _digits(records: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Decimals that leave the largest number of each family of metrics (``corloc.…``) about three figures."""
    largest: dict[str, float] = {}
    for record in records:
        parts = [record[key] for key in ("value", "low", "high", "published")]
        reach = max((abs(part) for part in parts if isinstance(part, int | float)), default=0.0)
        largest[_family(record)] = max(reach, largest.get(_family(record), 0.0))
    return {family: 1 if reach >= 10 or reach == 0 else 2 if reach >= 1 else 3 for family, reach in largest.items()}


def _table(caption: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> dict[str, Any]:
    """A table for the template; columns of nothing but numbers are aligned to the right."""
    columns = [[row[i] for row in rows] for i in range(len(header))]
    numeric = [
        any(cells) and all(cell in ("", MISSING) or bool(_NUMBER.fullmatch(cell)) for cell in cells)
        for cells in columns
    ]
    return {"caption": caption, "header": list(header), "rows": list(rows), "numeric": numeric}


def _tables(folder: Path, problems: list[str], begins: str = "") -> list[dict[str, Any]]:
    tables = []
    captions = _captions(folder, problems, begins)
    for path in _ordered(folder, f"{begins}*.csv", captions, problems):
        try:
            header, rows = read_table(path)
        except (ValueError, UnicodeDecodeError) as error:
            problems.append(f"tables/{path.name} cannot be read ({error}).")
            continue
        if any(len(row) != len(header) for row in rows):
            problems.append(f"tables/{path.name} has rows that are longer or shorter than its header.")
            continue
        tables.append(_table(captions.get(path.stem, path.stem), header, rows))
    return tables


def _figures(folder: Path, problems: list[str], begins: str = "") -> list[dict[str, Any]]:
    figures = []
    captions = _captions(folder, problems, begins)
    for path in _ordered(folder, f"{begins}*.png", captions, problems):
        content = path.read_bytes()
        try:
            with Image.open(io.BytesIO(content)) as image:
                width, height = image.size
        except UnidentifiedImageError:
            problems.append(f"figures/{path.name} is not a picture.")
            continue
        uri = "data:image/png;base64," + base64.b64encode(content).decode()
        caption = captions.get(path.stem, "")
        figures.append({"name": path.stem, "caption": caption, "uri": uri, "width": width, "height": height})
    return figures


def _captions(folder: Path, problems: list[str], begins: str) -> dict[str, str]:
    listed = folder / CAPTIONS
    captions = _parsed(listed, problems, "captions are missing below") if listed.is_file() else {}
    return {name: caption for name, caption in captions.items() if name.startswith(begins)}


def _ordered(folder: Path, pattern: str, captions: Mapping[str, str], problems: list[str]) -> list[Path]:
    """The files of a folder in the order of their captions, then those without one by name."""
    present = {path.stem: path for path in sorted(folder.glob(pattern))}
    problems += [f"{folder.name}/{name} has a caption but no file." for name in captions if name not in present]
    return [present[name] for name in [*captions, *(n for n in present if n not in captions)] if name in present]


def _read_json(path: Path, problems: list[str]) -> dict[str, Any]:
    if not path.is_file():
        problems.append(f"{path.name} is missing: the run did not finish.")
        return {}
    return _parsed(path, problems, "run the notebook again")


def _parsed(path: Path, problems: list[str], remedy: str) -> dict[str, Any]:
    """The object that a JSON file holds; anything else is a problem, and an empty object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        problems.append(f"{path.name} cannot be read ({error}): {remedy}.")
        return {}
    if not isinstance(content, dict):
        problems.append(f"{path.name} holds no names and values: {remedy}.")
        return {}
    return content


def mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _flat(value: Any, inside: bool = False) -> str:
    """A value of the provenance as one line of text: names and values, parts of parts in brackets."""
    if isinstance(value, dict):
        text = ", ".join(f"{name} {_flat(part, inside=True)}" for name, part in value.items())
    elif isinstance(value, list):
        text = ", ".join(_flat(part, inside=True) for part in value)
    elif isinstance(value, float):
        return f"{value:.4g}"
    else:
        return '""' if value == "" else format_cell(value)
    return f"({text})" if inside else text or "none"


def _provenance_rows(provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and text of every fact, the ones that identify the run first."""
    names = [*(n for n in _FIRST if n in provenance), *(n for n in provenance if n not in _FIRST)]
    return [(name.replace("_", " "), _flat(provenance[name])) for name in names if name != "not_available"]


def _commit(provenance: Mapping[str, Any]) -> str:
    """The commit, short, and whether the code had been changed since."""
    changed = " with changes" if provenance.get("modified") else ""
    return str(provenance.get("commit") or "unknown")[:10] + changed


def _stamp(provenance: Mapping[str, Any]) -> str:
    """What made a figure or table: study, commit, backbone and its weights' checksum."""
    weights = mapping(provenance.get("weights"))
    sums = {name: entry.get("checksum") if isinstance(entry, dict) else entry for name, entry in weights.items()}
    named = [f"{name} {checksum}" for name, checksum in sums.items()]
    return " · ".join([f"study {provenance.get('study', MISSING)}", f"commit {_commit(provenance)}", *named])
