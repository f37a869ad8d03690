"""The printed numbers that belong beside detectors trained on found boxes (LOST, Tables 1, 3, 4, 7 and 9).

They are given where a run meets the conditions under which LOST made them: whole datasets, boxes of LOST by DINO's
ViT-S/16, and a Faster R-CNN with the settings of its published configs, in either engine. LOST's tables say which
images were trained on; a row is given only for these, and only beside detectors whose training went to its end.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from foundling.datasets.voc import CATEGORIES
from foundling.report.beside import EVAL_SETS
from foundling.report.published import Row, published
from foundling.training.detection.detectron2_config import PRESETS

if TYPE_CHECKING:
    from foundling.training.loop import Outcome

SETS = {**EVAL_SETS, ("voc07", "test"): "VOC07_test"}
LOST = {"method": "lost", "k": 100, "facet": "keys"}
LOST_DEFAULTS = {"seed_similarity": "facet", "expansion": "facet", "centre": False}
DESCRIBED = {"recipe": "lost", "descriptor": "cls", "side": 256}
DESCRIBED_DEFAULTS = {"colour": True, "background": "keep", "block": -1, "norm": "last"}
UNION = "VOC07_trainval+VOC12_trainval"
PRESET = {  # trained on -> the config that LOST's authors published for it; the union has that of its parts
    ("cad", "VOC07_trainval"): "VOC07_CAD",
    ("cad", "VOC12_trainval"): "VOC12_CAD",
    ("cad", "COCO20k"): "COCO20k_CAD",
    ("od", "VOC07_trainval"): "VOC07_OD",
    ("od", UNION): "VOC07_OD",
}
DECIDES = (  # settings of a run that change its result
    "network", "weights", "min_sizes", "test_size", "max_size", "anchors", "ratios", "pool", "freeze_at", "norm",
    "box_beta", "rpn_samples", "rpn_candidates", "rpn_proposals", "test_proposals", "roi_samples", "roi_positive",
    "score_threshold", "nms_threshold", "detections", "steps", "batch", "optimiser", "schedule", "decay_at", "gamma",
    "learning_rate", "backbone_rate", "warmup", "warmup_factor", "weight_decay", "beta1", "clip", "precise_bn",
    "precision", "accumulate",
)  # fmt: skip
CLASSES = dict(zip(
    ("aero", "bike", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "table", "dog", "horse", "mbike",
     "person", "plant", "sheep", "sofa", "train", "tv"), CATEGORIES, strict=True,
))  # fmt: skip
METRICS = {("Table 1", "CorLoc"): "corloc", ("Table 4", "AP50"): "ap50"} | {
    ("Table 9", metric): name for metric, name in (("odAP50", "odap50"), ("odAP50-95", "odap"))
}
SHOWN = ("LOD", "LOST", "rOSD + CAD", "LOD + CAD", "LOST + CAD")  # of the methods of Tables 1, 4 and 9
SHORT = {"VOC07_trainval": "VOC07 trainval", "VOC07_test": "VOC07 test", "VOC12_trainval": "VOC12 trainval"}


def teacher_beside(p: Any) -> dict[str, float]:
    """``corloc`` that Table 1 prints for LOST itself, or nothing where the boxes of ``p`` are not its."""
    return _printed("LOST", SETS[p.dataset, p.split]) if _whole(p) and _is_lost(p) else {}


def cad_beside(p: Any, run: Any, outcomes: "Sequence[Outcome]" = ()) -> dict[str, float]:
    """``corloc``, ``ap50``, ``odap50`` and ``odap`` of "LOST + CAD" (Tables 1, 4, 9), as far as they are printed.

    ``p`` are the parameters of notebook 05, ``run`` the settings of its class-agnostic detector. ``outcomes`` are what
    the training of each seed left: nothing is given if one of them stopped before its last step.
    """
    trained = train_set(p)
    if not _whole(p) or not _is_lost(p) or not is_papers(run, "cad", trained) or not _finished(outcomes):
        return {}
    return _printed("LOST + CAD", SETS[p.dataset, p.split], trained)


def od_beside(p: Any, run: Any, outcomes: "Sequence[Outcome]" = ()) -> dict[str, float]:
    """AP50 of "LOST + OD", or of "LOST + OD†" trained on both years, with as many clusters, on VOC07 test.

    The keys are the names of the classes (Table 3; only for 20 clusters) and ``ap50``, their mean (Tables 3 and 7).
    ``run`` are the settings of the detector of clusters, ``outcomes`` as in :func:`cad_beside`.
    """
    trained = train_set(p)
    if not _whole(p) or not _is_lost(p) or not is_papers(run, "od", trained) or not _is_sorted(p):
        return {}
    if not _finished(outcomes):
        return {}
    found = _classes("LOST + OD†" if trained == UNION else "LOST + OD", SETS[p.dataset, p.split], p.clusters or 20)
    more = dict(_by_clusters(trained, SETS[p.dataset, p.split]))
    if "ap50" not in found and p.clusters in more:  # of other numbers of clusters only the mean is printed
        found["ap50"] = more[p.clusters]
    return found


def spread_beside(p: Any, run: Any, outcomes: "Sequence[Outcome]" = ()) -> float | None:
    """The standard deviation of AP50 over seeds of k-means that appendix A.5 prints for "LOST + OD†", or ``None``.

    The paper has four; here every seed is one of k-means and of training. ``outcomes`` as in :func:`cad_beside`.
    """
    if len(p.seeds) != 4 or train_set(p) != UNION or (p.clusters or 20) != 20 or not od_beside(p, run, outcomes):
        return None
    return published(paper="lost", table="Text A.5", metric="AP50_std")[0]["value"]


def pseudo_beside(p: Any) -> dict[str, float]:
    """AP50 of LOST's own boxes with their clusters, found in VOC07 test (Table 3), by class; ``ap50`` is their mean.

    The table does not say which boxes were clustered: taken are those of VOC07 trainval, on which the row below was
    trained, or those of the measured images themselves.
    """
    if not _whole(p) or not _is_lost(p) or not _is_sorted(p):
        return {}
    if train_set(p) not in ("VOC07_trainval", SETS[p.dataset, p.split]):
        return {}
    return _classes("LOST pseudo-boxes", SETS[p.dataset, p.split], p.clusters or 20)


def is_papers(run: Any, kind: str, trained: str) -> bool:
    """Whether the settings of a run are those of LOST's detector for these images, as far as they change a result.

    ``kind`` is ``"cad"`` or ``"od"``. Either engine will do; not so a batch in parts, as each part has its own batch
    statistics.
    """
    name = PRESET.get((kind, trained))
    return name is not None and all(getattr(run, field) == getattr(PRESETS[name], field) for field in DECIDES)


def train_set(p: Any) -> str:
    """The papers' name of what is trained on, or nothing where it has none."""
    named = [SETS.get(part, "") for part in p.parts() or [(p.dataset, p.split)]]
    return "+".join(sorted(named)) if all(named) and not (p.parts() and p.train_limit) else ""


def _whole(p: Any) -> bool:
    """All images of a split that LOST measures, as they are."""
    return (p.dataset, p.split) in SETS and (p.limit, p.max_side, p.precision) == (0, 0, "fp32")


def _finished(outcomes: "Sequence[Outcome]") -> bool:
    return all(outcome.finished for outcome in outcomes)


def _is_lost(p: Any) -> bool:
    given = LOST_DEFAULTS | p.teacher
    return (p.backbone, p.weights) == ("dino_vits16", "pretrained") and given == LOST | LOST_DEFAULTS


def _is_sorted(p: Any) -> bool:
    """Whether objects are described and clustered as LOST's are."""
    given = DESCRIBED_DEFAULTS | {name: value for name, value in p.description.items() if name != "facet"}
    return p.clustering == "kmeans_lost" and given == DESCRIBED | DESCRIBED_DEFAULTS


def _printed(method: str, eval_set: str, trained: str = "") -> dict[str, float]:
    rows = [row for row in published(paper="lost", method=method, eval_set=eval_set) if row["train_set"] == trained]
    return {METRICS[key]: row["value"] for row in rows if (key := (row["table"], row["metric"])) in METRICS}


def _classes(method: str, eval_set: str, clusters: int) -> dict[str, float]:
    """AP50 by class, and their mean, of a row of Table 3."""
    rows = published(paper="lost", table="Table 3", method=method, eval_set=eval_set)
    return {_class(row): row["value"] for row in rows if f"K={clusters} clusters" in row["setting"].split("; ")}


def _class(row: Row) -> str:
    return CLASSES.get(row["setting"].rpartition("; ")[2].removeprefix("class="), "ap50")


def _by_clusters(trained: str, eval_set: str) -> list[tuple[int, float]]:
    """The number of clusters and the mean AP50 of every row of Table 7."""
    rows = published(paper="lost", table="Table 7", train_set=trained, eval_set=eval_set)
    return [(int(row["setting"].partition(" ")[0].removeprefix("K=")), row["value"]) for row in rows]


def printed_boxes(table: str) -> list[dict[str, Any]]:
    """Table 1, 4 or 9 as rows to show: a line for each method of :data:`SHOWN`, a column for each dataset (and metric).

    For orientation, where no printed number belongs beside ours.
    """
    lines: dict[str, dict[str, Any]] = {name: {"method": name} for name in SHOWN}
    for row in published(paper="lost", table=table):
        if row["method"] in lines:
            metric = row["metric"].replace("50-95", "@[50-95]")
            where: str = SHORT.get(row["eval_set"]) or row["eval_set"]
            lines[row["method"]][f"{metric} {where}" if table == "Table 9" else where] = row["value"]
    return [line for line in lines.values() if len(line) > 1]


def printed_classes() -> list[dict[str, Any]]:
    """Table 3 as rows to show: a line for each method without labels, a column for each class, and the mean."""
    lines: dict[str, dict[str, Any]] = {}
    for row in published(paper="lost", table="Table 3"):
        if "supervision=none" in row["setting"]:
            name = _class(row)
            lines.setdefault(row["method"], {"method": row["method"]})["mean" if name == "ap50" else name] = row[
                "value"
            ]
    return list(lines.values())


def printed_clusters() -> list[dict[str, Any]]:
    """Table 7 as rows to show: the number of clusters, and AP50 of the detector trained on both years."""
    return [{"clusters": str(count), "AP50": value} for count, value in _by_clusters(UNION, "VOC07_test")]
