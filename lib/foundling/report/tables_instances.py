"""Rows of the tables of notebook 03: recall by number of instances, and which objects each kind of features finds."""

from collections.abc import Mapping
from typing import Any

from foundling.evaluation import MeanRecall
from foundling.evaluation.recall import BUCKETS
from foundling.report.beside_instances import published_recall

PAPER = {"DINO ViT-B/16": "dino_vitb16", "MAE ViT-B/16": "mae_vitb16"}  # shown where nothing printed is comparable


def recall_rows(
    recall: Mapping[str, MeanRecall], printed: Mapping[str, Mapping[str, float]], dataset: str
) -> tuple[list[dict[str, Any]], str]:
    """One row a kind of features with its recall in every column, then what is printed, and a sentence that says so.

    ``printed`` holds what :func:`published_recall` gives for each network on these images of ``dataset``; where it is
    empty throughout, two rows of the paper's own images and networks follow for orientation.
    """
    rows: list[dict[str, Any]] = [
        {"features": name, **{group: tuple(result.groups[group].recall) for group in (*BUCKETS, "all")}}
        for name, result in recall.items()
    ]
    if any(printed.values()):
        rows += [{"features": f"{name}, published", **row} for name, row in printed.items() if row]
        unsure = "; it does not say which images of VOC 2012 it takes" if dataset == "voc12" else ""
        return rows, f"Published: instanceness, Table 1{unsure}."
    rows += [
        {"features": f"paper, COCO: {title}", **published_recall("coco", "val2017", name)}
        for title, name in PAPER.items()
    ]
    return rows, "Rows 'paper' are printed for other images and networks (Table 1), for orientation."


def found_rows(recall: Mapping[str, MeanRecall], own: str) -> list[dict[str, Any]]:
    """Of the objects alone of their kind, and of the others: how many ``own`` finds (IoU of at least 0.5), other
    features find, both or neither; all measured on the same objects.
    """
    mine, rows = recall[own].instances, []
    for name in recall:
        for group in ("1", "2+") if name != own else ():
            inside = mine.in_group(group)
            a, b = (table.measure("at_50")[inside] > 0 for table in (mine, recall[name].instances))
            counts = {"both": a & b, f"only {own}": a & ~b, "only these": ~a & b, "neither": ~a & ~b}
            rows.append(
                {
                    "features": name,
                    "instances": group,
                    "objects": int(inside.sum()),
                    **{title: int(which.sum()) for title, which in counts.items()},
                }
            )
    return rows
