"""A sweep gathered: what the runs at its points measured, in one table and in pictures, and which points are missing.

The points of a swept notebook lie in ``reports/<study>/<NN_name>/<point>/``; table and figures go to
``reports/<study>/tables/`` and ``figures/``, under the notebook's name.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from foundling.combinations import combinations, point_name
from foundling.report.figures_sweeps import axis_text, gaps_and_scores, score_panels
from foundling.report.style import save_figure
from foundling.report.tables import MISSING, drop_captions, write_caption, write_table

Metrics = Mapping[str, float]
FAMILIES = ("corloc", "recall")  # what notebooks are about, before what else they measure


@dataclass(frozen=True)
class PointResult:
    """The run at one point: its metrics, or why there are none."""

    name: str
    axes: dict[str, Any]
    metrics: dict[str, float]
    problem: str
    page: bool  # whether notebook.html is there


@dataclass(frozen=True)
class Score:
    """One number of one point: of the ``label`` (a variant of a method), with what goes beside it."""

    point: PointResult
    label: str
    value: float
    low: float | None
    high: float | None
    published: float | None
    gap: float | None
    undefined: int | None

    @property
    def group(self) -> str:
        """What the label is a variant of: ``lost`` for ``lost.k-50``."""
        return self.label.partition(".")[0]


def read_points(folder: Path, axes: Mapping[str, Sequence[Any]]) -> list[PointResult]:
    """The points of the sweep over ``axes`` whose runs lie in ``folder``, in the order of the study file."""
    return [_read_point(folder / point_name(values), values) for values in combinations(axes, folder.name)]


def _read_point(folder: Path, axes: dict[str, Any]) -> PointResult:
    metrics: dict[str, float] = {}
    problem = _why_missing(folder)
    if not problem:
        try:
            content = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
            metrics = {name: float(value) for name, value in content.items()}
        except (ValueError, AttributeError, TypeError) as error:
            problem = f"metrics.json cannot be read ({error})"
    return PointResult(folder.name, axes, metrics, problem, (folder / "notebook.html").is_file())


def _why_missing(folder: Path) -> str:
    """Why a point has no metrics; empty if it has some."""
    if (folder / "metrics.json").is_file():
        return ""
    if (failed := folder / "notebook.failed.ipynb").is_file():
        return f"failed: {_error_of(failed)}"
    return "did not finish" if folder.is_dir() else "not run"


def _error_of(notebook: Path) -> str:
    """The error that ended a notebook, in one line."""
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        errors = [out for cell in cells for out in cell.get("outputs", []) if out.get("output_type") == "error"]
        text = f"{errors[-1]['ename']}: {errors[-1]['evalue']}" if errors else "the kernel ended"
    except (ValueError, KeyError, TypeError):
        text = "its notebook cannot be read"
    line = re.sub(r"\x1b\[[0-9;]*m", "", text).strip().partition("\n")[0]
    return line if len(line) <= 300 else line[:299] + "…"


def measured_family(points: Sequence[PointResult]) -> str | None:
    """The metrics that a sweep is about: the first of :data:`FAMILIES` that is there, else the first with an interval.

    Differences are never it: they are from another default at every point.
    """
    names = [name for point in points for name in point.metrics]
    families = [name.partition(".")[0] for name in names if name.endswith(".low") and name.count(".") > 1]
    present = {name.partition(".")[0] for name in names}
    return next((family for family in (*FAMILIES, *families) if family in present and family != "difference"), None)


def scores_of(points: Sequence[PointResult], family: str) -> list[Score]:
    """Every number of ``family``, point by point, in the order in which labels first appear by name."""
    return [_score(point, name) for point in points for name in _own(point.metrics, family)]


def _own(metrics: Metrics, family: str) -> list[str]:
    """The metrics of a family, without their intervals and published values; a group's default before its variants."""
    parts = {name + end for name in metrics for end in (".low", ".high", ".published")}
    return sorted(name for name in metrics if name.startswith(f"{family}.") and name not in parts)


def _score(point: PointResult, name: str) -> Score:
    label, get = name.partition(".")[2], point.metrics.get
    undefined = get(f"undefined_cuts.{label}")
    return Score(
        point,
        label,
        point.metrics[name],
        get(f"{name}.low"),
        get(f"{name}.high"),
        get(f"{name}.published"),
        get(f"gap.{label}"),
        None if undefined is None else int(undefined),
    )


def sweep_rows(points: Sequence[PointResult], family: str) -> list[dict[str, Any]]:
    """A row for every point and label: the values of the axes, the number with its interval, and what goes beside it.

    A point without metrics has one row that says so. Columns that would be empty throughout are left out.
    """
    scores = scores_of(points, family)
    heading = {"corloc": "CorLoc"}.get(family, family)
    gaps, cuts = (any(getattr(score, name) is not None for score in scores) for name in ("gap", "undefined"))
    printed = any(score.published is not None for score in scores)
    rows: list[dict[str, Any]] = []
    for point in points:
        axes = {name: axis_text(value) for name, value in point.axes.items()}
        own = [score for score in scores if score.point is point]
        for score in own:
            number = score.value if score.low is None else (score.value, score.low, score.high)
            row: dict[str, Any] = {**axes, "setting": score.label, heading: number}
            row |= {"median gap": MISSING if score.gap is None else f"{score.gap:.3g}"} if gaps else {}
            row |= {"undefined cuts": score.undefined} if cuts else {}
            row |= {"published": score.published} if printed else {}
            rows.append(row)
        if not own:
            rows.append({**axes, "setting": f"missing ({point.problem.partition(':')[0] or 'no such metric'})"})
    return rows


def write_sweep(study_dir: Path, notebook: str, axes: Mapping[str, Sequence[Any]]) -> list[PointResult]:
    """Write the table and the figures of one sweep and return its points; without metrics only an empty table.

    The table is ``tables/<notebook>.csv``, the figures ``figures/<notebook>.png`` and, where gaps were measured,
    ``figures/<notebook>_gaps.png``; they are functions of the runs' metrics alone.
    """
    points = read_points(study_dir / notebook, axes)
    family = measured_family(points)
    rows = sweep_rows(points, family or "corloc")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    many = f"{len(points)} points of {', '.join(axes)}"
    name = {"corloc": "CorLoc (%)", None: "CorLoc (%)"}.get(family, str(family))
    caption = f"{name} at {many}, with 95 % intervals over images; a setting is named by what differs from its default."
    write_table(study_dir / "tables" / notebook, rows, caption, columns)
    for old in (study_dir / "figures").glob(f"{notebook}*.png"):
        old.unlink()
    drop_captions(study_dir / "figures", notebook)
    scores = [] if family is None else scores_of(points, family)
    if scores:
        fig = score_panels(points, scores, axes, name)
        path = save_figure(fig, study_dir / "figures" / f"{notebook}.png")
        write_caption(path, f"{name} at {many}. Dots: the default setting of each method, with its 95 % interval over "
                      "images; strokes: its other settings" + _beside(scores))  # fmt: skip
        plt.close(fig)
    if len([score for score in scores if score.gap]) > 2:
        fig, rank = gaps_and_scores(scores, axes, name)
        path = save_figure(fig, study_dir / "figures" / f"{notebook}_gaps.png")
        write_caption(path, f"{name} against the median spectral gap, one dot a point and setting; rank correlation "
                      f"(Spearman) {rank}. Dots share images and settings, so they are not independent; "
                      "settings whose median gap is 0 are left out.")  # fmt: skip
        plt.close(fig)
    return points


def _beside(scores: Sequence[Score]) -> str:
    gap = (
        "; on the right the median spectral gap (λ3 − λ2), no dot where it is 0"
        if any(score.gap for score in scores)
        else ""
    )
    return gap + ("; vermilion: published." if any(score.published is not None for score in scores) else ".")
