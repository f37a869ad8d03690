"""The printed numbers that belong beside categories without labels: COMUS before self-training, LOST's retrieval."""

from typing import Any

from foundling.parameters_clustering import NETWORK, Clustering
from foundling.report.published import published

SOURCES = {  # the table's name -> what the studies call such a source
    "Unsupervised saliency (DeepUSPS + BASNet)": NETWORK,
    "LOST": "lost",
    "DINOSeg": "dino_seg",
    "Supervised saliency (BASNet)": "supervised",
}
COMUS = ("comus", "cls", 256, -1, True, "keep")  # how it describes objects
DISCOVERED = {"all": "all 81 categories", "iou20": "discovered (IoU>=20%)", "iou0": "has cluster (IoU>0%)"}


def printed_miou() -> dict[str, float]:
    """mIoU (percent, Hungarian matching, VOC 2012 val) of COMUS' pseudo-masks before self-training, by clustering."""
    rows = published(paper="comus", table="Table 5")
    found = {}
    for row in rows:
        setting = dict(part.split("=") for part in row["setting"].split("; ") if "=" in part)
        if setting["self-learning"] == "no":
            found["spectral" if setting["spectral clustering"] == "yes" else "kmeans"] = row["value"]
    return found


def printed_discovered() -> dict[str, dict[str, float]]:
    """COMUS, Table 3, on COCO val before self-training: mIoU (percent) of all classes, of those of an IoU of 20 or
    more, and of those of an IoU above 0, and how many these are; the background is one of them."""
    found: dict[str, dict[str, float]] = {}
    for name, setting in DISCOVERED.items():
        rows = published(
            paper="comus", table="Table 3", method="Pseudo-masks", setting=f"Hungarian matching; {setting}"
        )
        found[name] = {row["metric"]: row["value"] for row in rows}
    return found


def printed_saliency() -> dict[str, float]:
    """IoU of the foreground (percent) of COMUS, Table 6, by source; which images is not stated."""
    names = {row["method"]: row["value"] for row in published(paper="comus", table="Table 6")}
    return {source: names[name] for name, source in SOURCES.items()}


def printed_corret() -> dict[str, float]:
    """CorRet (percent) of LOST, Table 10, by method and features; which images is not stated."""
    rows = published(paper="lost", table="Table 10")
    return {f"{row['method']}, {row['pretraining'] or row['backbone']}": row["value"] for row in rows}


def printed_imagenet(p: Clustering) -> float | None:
    """Accuracy (percent) that COMUS, Table 12, prints for DINO on as many classes of ImageNet's validation images as a
    run clusters like its objects, or None for a run under other conditions. (Which DINO it was is not stated.)"""
    same = (
        _whole(p, "imagenet", "val", "dino_vits8")
        and _described(p) == COMUS
        and (_name(p), p.region, p.clusters or p.classes, p.neighbours) == ("whole_image", "box", p.classes, 30)
    )
    rows = published(paper="comus", table="Table 12", method="DINO") if same else []
    return next((row["value"] for row in rows if row["setting"].startswith(f"{p.classes} classes")), None)


def is_comus(p: Clustering) -> bool:
    """Whether a run repeats the conditions of COMUS' pseudo-masks: VOC 2012 val, its network, saliency and clusters."""
    return _as_comus(p, "voc12", "seg_val", 20, 0)


def is_comus_on_coco(p: Clustering) -> bool:
    """The same for COCO val2017, of whose images those with fewer than 1,000 annotated pixels are left out: its code
    meant to keep them in val, and compares with a word that never occurs."""
    return _as_comus(p, "coco", "val2017", 80, 1000)


def _as_comus(p: Clustering, dataset: str, split: str, categories: int, least_labelled: int) -> bool:
    return (
        _whole(p, dataset, split, "dino_vits8")
        and _described(p) == COMUS
        and _name(p) == NETWORK
        and p.saliency_weights(p.source) == "basnet_unsupervised"
        and (p.region, p.min_area, p.clusters or categories, p.neighbours) == ("mask", 400, categories, 30)
        and p.least_labelled == least_labelled
    )


def is_retrieval(p: Clustering) -> bool:
    """Whether a run repeats what LOST says of its retrieval: CLS tokens of its boxes, 10 neighbours.

    The paper names neither the images nor the network but for "DINO": taken are those of its main results.
    """
    return (
        _whole(p, "voc07", "trainval", "dino_vits16")
        and _described(p) == ("lost", *COMUS[1:])
        and (_name(p), p.region, p.min_area, p.retrieved) == ("lost", "box", 0, 10)
    )


def _described(p: Clustering) -> tuple[Any, ...]:
    return (p.recipe, p.descriptor, p.side, p.block, p.colour, p.background)


def _whole(p: Clustering, dataset: str, split: str, backbone: str) -> bool:
    """All images of a split, as they are, and one network with published weights."""
    given = (p.dataset, p.split, p.backbone, p.weights, p.limit, p.max_side, p.precision)
    return p.describer in ("", backbone) and given == (dataset, split, backbone, "pretrained", 0, 0, "fp32")


def _name(p: Clustering) -> Any:
    """The source whose masks become objects."""
    return p.saliency[p.source].get("source", p.source)
