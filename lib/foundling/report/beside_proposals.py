"""What is printed on the steps of making proposals (instanceness, Tables 4 to 6), to be set beside ours.

The paper measures a segmenter that was trained on the proposals, on COCO; we measure the proposals themselves. So the
numbers are not the same quantity: only which setting comes out better can be compared.
"""

from typing import Any

from foundling.report.published import published

ABOUT = {"Table 4": "k", "Table 5": "saliency", "Table 6": "component splitting"}


def printed_steps(table: str) -> list[dict[str, Any]]:
    """The rows of Table 4, 5 or 6: what was changed, and its metrics in percent (AP, AR, and those of sizes)."""
    about = ABOUT[table]
    rows: dict[str, dict[str, Any]] = {}
    for line in published(paper="instanceness", table=table):
        value = line["setting"].rpartition("; ")[2].partition("=")[2]
        rows.setdefault(value, {about: value})[line["metric"]] = line["value"]
    return list(rows.values())
