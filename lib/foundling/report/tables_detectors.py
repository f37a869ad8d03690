"""Rows of the tables of notebook 05: what a teacher and its detectors reach, with intervals, beside what is printed."""

from collections.abc import Mapping, Sequence
from typing import Any

from foundling.evaluation.bootstrap import Interval
from foundling.evaluation.class_aware import ClassAware
from foundling.evaluation.matching import NO_CLASS

COLUMNS = {  # metric -> the heading of its column
    "corloc": "CorLoc",
    "ap50": "AP50",
    "ap": "AP",
    "ar1": "AR1",
    "ar10": "AR10",
    "ar100": "AR100",
    "odap50": "odAP50",
    "odap": "odAP@[50-95]",
    "voc_ap50": "AP50 (devkit)",
    "voc07_ap50": "AP50 (VOC 2007)",
}
Printed = Mapping[str, Mapping[str, float]]  # row -> metric or class -> the number that LOST prints


def box_rows(
    figures: Mapping[str, Mapping[str, Interval]], printed: Printed, metrics: Sequence[str] = tuple(COLUMNS)
) -> list[dict[str, Any]]:
    """A row for each method: its ``metrics`` with intervals, and behind each, where any is printed, what is."""
    shown = {name for row in printed.values() for name in row}
    rows = []
    for method, row in figures.items():
        line: dict[str, Any] = {"method": method}
        for name in metrics:
            line[COLUMNS[name]] = tuple(row[name]) if name in row else None
            if name in shown:
                line[f"{COLUMNS[name]}, published"] = printed.get(method, {}).get(name)
        rows.append(line)
    return rows


def class_rows(
    scores: Mapping[str, ClassAware], categories: Sequence[str], printed: Printed, figure: str = "AP50"
) -> list[dict[str, Any]]:
    """A row for each class: how many objects it has, the AP50 of each method, and what is printed; their mean last.

    Methods were measured on the same images. A class without objects reads "n/a" and is not in the mean.
    """
    objects = next(iter(scores.values())).objects if scores else ()
    rows: list[dict[str, Any]] = []
    for number, (name, count) in enumerate(zip(categories, objects, strict=True)):
        row: dict[str, Any] = {"class": name, "objects": int(count)}
        for method, score in scores.items():
            row |= _with_printed(method, score.classes[number], printed, name)
        rows.append(row)
    mean: dict[str, Any] = {"class": "mean", "objects": int(sum(objects))}
    for method, score in scores.items():
        mean |= _with_printed(method, score.values[figure], printed, "ap50")
    return [*rows, mean]


def _with_printed(method: str, ours: Interval, printed: Printed, name: str) -> dict[str, Any]:
    row: dict[str, Any] = {method: tuple(ours)}
    return row | ({f"{method}, published": printed[method].get(name)} if printed.get(method) else {})


def pseudo_class_rows(
    score: ClassAware, categories: Sequence[str], taught: Sequence[int], detected: Sequence[int]
) -> list[dict[str, Any]]:
    """A row for each pseudo-class (cluster, numbered from 1): its boxes in training, detections, class, and AP50.

    ``taught`` and ``detected`` count boxes and detections of each cluster; without a class, AP50 reads "n/a", and the
    class that it would have found best is named instead, in brackets.
    """
    rows = []
    for cluster, named in enumerate(score.assignment.tolist()):
        column = score.matrix[0, cluster]
        best = max(
            range(len(column)), key=lambda c: -1.0 if column[c] != column[c] else float(column[c])
        )  # nan: absent
        rows.append(
            {
                "pseudo-class": str(cluster + 1),
                "boxes taught": int(taught[cluster]),
                "detections": int(detected[cluster]),
                "class": categories[named] if named != NO_CLASS else f"({categories[best]})",
                "AP50": float(column[named]) if named != NO_CLASS else None,
            }
        )
    return rows
