"""The page of a study: what its runs wrote, gathered into one self-contained HTML file.

As a command: ``python -m foundling.report.page reports/demo``.
"""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from foundling.errors import DataMissing, FoundlingError, ParameterError
from foundling.files import write_bytes
from foundling.paths import STUDIES
from foundling.report.gather import gather_run, gather_sweep, mapping, metric_table
from foundling.report.render import render

_RUN_FOLDER = re.compile(r"\d\d_\w+")


def write_report(study_dir: Path, study_file: Path | None = None) -> Path:
    """Gather the runs of ``study_dir`` (``reports/<study>``) into its ``index.html`` and return that path.

    Each run folder ``<NN_name>`` gives its ``metrics.json``, tables, figures (embedded), notebook page (linked) and
    ``provenance.json``; the runs of a sweep are gathered into one table and figure, on top, with a link to each. Title,
    description and the notebooks and sweeps to expect come from ``study_file`` (default: ``studies/<study>.yaml``
    where it exists). What a run lacks, or wrote unreadably, is said in its section. The page is a function of these
    files alone.

    Raises :class:`DataMissing` where there is no run at all, :class:`ParameterError` for an unreadable study file.
    """
    folders = sorted(p for p in study_dir.glob("*") if p.is_dir() and _RUN_FOLDER.fullmatch(p.name))
    if not folders:
        raise DataMissing(
            f"{study_dir} holds no notebook run (a folder such as 02_single_object_discovery): "
            f"run the study first, with `make study STUDY={study_dir.name}`"
        )
    source = study_file or STUDIES / f"{study_dir.name}.yaml"
    text = source.read_text(encoding="utf-8") if source.is_file() else ""
    study = _study(text, source)
    sweep = {str(name): axes for name, axes in mapping(study.get("sweep")).items() if isinstance(axes, dict)}
    sweeps = [gather_sweep(study_dir, name, axes) for name, axes in sweep.items() if (study_dir / name).is_dir()]
    runs = [gather_run(folder) for folder in folders if folder.name not in sweep]
    absent = [name for name in study.get("notebooks") or () if not (study_dir / str(name)).is_dir()]
    page = render(
        "study.html",
        study=study_dir.name,
        title=study.get("title") or f"Study {study_dir.name}",
        description=study.get("description") or "",
        facts=_facts(runs, sweeps),
        problems=[f"{name} has not been run: `make study STUDY={study_dir.name}` runs it." for name in absent],
        summary=_summary(runs),
        runs=runs,
        sweeps=sweeps,
        study_file=source.name,
        study_text=text,
    )
    return write_bytes(study_dir / "index.html", page.encode())


def _summary(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The metrics that have an interval or a published value, of every run."""
    rows = [
        {"notebook": run["label"], **record}
        for run in runs
        for record in run["records"]
        if record["low"] is not None or record["published"] is not None
    ]
    return metric_table(rows)


def _facts(runs: Sequence[Mapping[str, Any]], sweeps: Sequence[Mapping[str, Any]]) -> list[str]:
    """What holds for the whole study: its size, and the commits and devices it ran on."""
    commits = [run["commit"] for run in runs if run["provenance"]] + [c for sweep in sweeps for c in sweep["commits"]]
    devices = [str(run["device"]) for run in runs if run["device"]] + [d for sweep in sweeps for d in sweep["devices"]]
    notebooks = len(runs) + len(sweeps)
    count = f"{notebooks} notebook{'' if notebooks == 1 else 's'}"
    points = [f"{sum(sweep['count'] for sweep in sweeps)} points of a sweep"] if sweeps else []
    return [count, *points, *(f"commit {c}" for c in dict.fromkeys(commits)), *dict.fromkeys(devices)]


def _study(text: str, source: Path) -> dict[str, Any]:
    """The keys of a study file (its text is ``text``), without judging them: ``foundling.studies`` does."""
    try:
        return mapping(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise ParameterError(f"{source} is not a readable YAML file: {' '.join(str(error).split())}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page of the study folder named on the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m foundling.report.page", description="Write the page of a study.")
    parser.add_argument("folder", type=Path, help="reports/<study>")
    parser.add_argument("--study", type=Path, metavar="FILE", help="the study file (default: studies/<study>.yaml)")
    args = parser.parse_args(arguments)
    try:
        print(write_report(args.folder, args.study))
    except FoundlingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
