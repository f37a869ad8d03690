"""The printed numbers that belong beside categories without labels: COMUS before self-training, LOST's retrieval."""

from typing import Any

from foundling.parameters_clustering import NETWORK, Clustering
from foundling.report.published import published

COMUS = "COMUS (Iteration 0)"
SOURCES = {  # the table's name -> what the notebook's parameters call such a source
    "Unsupervised saliency (DeepUSPS + BASNet)": NETWORK,
    "LOST": "lost",
    "DINOSeg": "dino_seg",
}
TEXT = "Text 4.3 (Table 1 absent from extraction)"


def printed_miou() -> dict[str, float]:
    """mIoU (percent, Hungarian matching, VOC 2012 val) of COMUS' pseudo-masks before self-training, by clustering."""
    rows = published(paper="comus", table="Table 5")
    found = {}
    for row in rows:
        setting = dict(part.split("=") for part in row["setting"].split("; ") if "=" in part)
        if setting["self-learning"] == "no":
            found["spectral" if setting["spectral clustering"] == "yes" else "kmeans"] = row["value"]
    return found


def printed_saliency() -> dict[str, float]:
    """IoU of the foreground (percent) of COMUS, Table 6, by source; which images is not stated."""
    names = {row["method"]: row["value"] for row in published(paper="comus", table="Table 6")}
    return {source: names[name] for name, source in SOURCES.items()}


def printed_corret() -> dict[str, float]:
    """CorRet (percent) of LOST, Table 10, by method and features; which images is not stated."""
    rows = published(paper="lost", table="Table 10")
    return {f"{row['method']}, {row['pretraining'] or row['backbone']}": row["value"] for row in rows}


def is_comus(p: Clustering) -> bool:
    """Whether a run repeats the conditions of COMUS' pseudo-masks: VOC 2012 val, its network, saliency and clusters."""
    described = (p.recipe, p.descriptor, p.side, p.block, p.colour, p.background)
    return (
        _whole(p, "voc12", "seg_val", "dino_vits8")
        and described == ("comus", "cls", 256, -1, True, "keep")
        and (_name(p), p.saliency_network) == (NETWORK, "basnet_unsupervised")
        and (p.region, p.min_area, p.clusters or 20, p.neighbours) == ("mask", 400, 20, 30)
    )


def is_retrieval(p: Clustering) -> bool:
    """Whether a run repeats what LOST says of its retrieval: CLS tokens of its boxes, 10 neighbours.

    The paper names neither the images nor the network but for "DINO": taken are those of its main results.
    """
    described = (p.recipe, p.descriptor, p.side, p.block, p.colour, p.background, p.region, p.min_area)
    return (
        _whole(p, "voc07", "trainval", "dino_vits16")
        and described == ("lost", "cls", 256, -1, True, "keep", "box", 0)
        and _name(p) == "lost"
        and p.retrieved == 10
    )


def _whole(p: Clustering, dataset: str, split: str, backbone: str) -> bool:
    """All images of a split, as they are, by published weights."""
    given = (p.dataset, p.split, p.backbone, p.weights, p.limit, p.max_side, p.precision)
    return given == (dataset, split, backbone, "pretrained", 0, 0, "fp32")


def _name(p: Clustering) -> Any:
    """The source whose masks become objects."""
    return p.saliency[p.source].get("source", p.source)
