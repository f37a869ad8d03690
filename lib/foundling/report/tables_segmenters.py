"""Rows of the tables of notebook 06: label maps round by round, steps of the method, and masks of objects."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from foundling.evaluation.bootstrap import Interval
from foundling.evaluation.repeats import mean_of_runs
from foundling.evaluation.segmentation import Segmentation

FIGURES = {  # figure of :class:`foundling.evaluation.ClassAgnostic` -> the heading of its column
    "AP50": "AP50",
    "AP75": "AP75",
    "AP": "AP",
    "AP_S": "AP S",
    "AP_M": "AP M",
    "AP_L": "AP L",
    "AR1": "AR1",
    "AR10": "AR10",
    "AR100": "AR100",
}


def round_rows(
    scores: Mapping[str, Mapping[str, Sequence[Segmentation]]],
    over_seeds: Mapping[str, Interval],
    published: Mapping[str, float],
    majority: Mapping[str, float],
) -> list[dict[str, Any]]:
    """A row for each set of label maps: name -> matching -> its scores, one a seed.

    mIoU is the mean over seeds with its interval over images, and beside it that over seeds. ``published`` has the mIoU
    by Hungarian matching that is printed for some of the names, ``majority`` that by majority voting.
    """
    rows = []
    for name, found in scores.items():
        hungarian = found["hungarian"]
        row: dict[str, Any] = {
            "label maps": name,
            "mIoU": over_images(hungarian),
            "over seeds": tuple(over_seeds[name]) if name in over_seeds else None,
            "objects only": float(np.mean([np.nanmean(one.classes[1:]) for one in hungarian])),
            "majority": over_images(found["majority"]),
            "classes found": float(np.mean([one.found for one in hungarian])),
        }
        row |= {"published": published.get(name)} if published else {}
        rows.append(row | ({"majority, published": majority.get(name)} if majority else {}))
    return rows


def over_images(scores: Sequence[Segmentation]) -> tuple[float | None, ...]:
    """The mean mIoU of several runs with its interval over images."""
    return tuple(mean_of_runs(scores).values["miou"])


def instance_rows(
    figures: Mapping[str, Mapping[str, Interval]],
    published: Mapping[str, float],
    ours: str,
    counts: Mapping[str, float],
    names: Sequence[str] = tuple(FIGURES),
) -> list[dict[str, Any]]:
    """A row for each set of masks: its figures with intervals, and how many masks an image it has.

    ``published`` are figures printed for ``ours``; they follow in a row of their own.
    """
    rows: list[dict[str, Any]] = [
        {"masks": who, "an image": counts.get(who), **{FIGURES[name]: tuple(row[name]) for name in names}}
        for who, row in figures.items()
    ]
    if published:
        rows.append({"masks": f"{ours}, published", **{FIGURES[name]: published.get(name) for name in names}})
    return rows
