"""The printed figures of video object segmentation that belong beside ours: Odin's Table 5."""

from typing import Any

from foundling.report.published import published

NAMES = {"J&F": "jf", "J": "j", "F": "f"}  # as printed -> as in metrics.json


def printed_videos() -> list[dict[str, Any]]:
    """Odin's Table 5 (DAVIS'17 val, ResNet-50, nearest-neighbour propagation), one dict a row, in its order.

    Each has ``method``, ``backbone``, ``pretraining`` and ``setting`` (the stride) as printed, and ``jf``, ``j`` and
    ``f`` in percent. Our DAVIS figures belong beside a row only where network and stride are those of ``setting``, and
    none but DAVIS's do.
    """
    found: dict[str, dict[str, Any]] = {}
    for row in published(paper="odin", table="Table 5"):
        about = {column: row[column] for column in ("method", "backbone", "pretraining", "setting")}
        found.setdefault(row["method"], about)[NAMES[row["metric"]]] = row["value"]
    return list(found.values())
