"""The printed numbers that belong beside segmenters trained on found masks (COMUS' self-training; instanceness).

They are given where a run meets the conditions under which they were made: whole datasets, the papers' networks, masks
and settings, and a training that went to its end.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from foundling.parameters_clustering import NETWORK
from foundling.report.published import Row, published
from foundling.training.settings import MAY_CHANGE

if TYPE_CHECKING:
    from foundling.training.loop import Outcome

SALIENCY = {"basnet_unsupervised": "unsupervised saliency", "basnet_supervised": "supervised saliency"}
DESCRIBED = {  # as COMUS describes objects: the defaults of describe_objects
    "recipe": "comus", "descriptor": "cls", "side": 256, "colour": True, "background": "keep", "block": -1,
    "norm": "last", "facet": "tokens",
}  # fmt: skip
ROUNDS = {  # measured on -> the settings of each round, and what each of these is trained on
    ("voc12", "seg_val"): (("comus_semantic_1", "comus_semantic_2"), ["voc12:seg_train"], ["voc12:seg_trainaug"]),
    ("coco", "val2017"): (("comus_semantic_coco",), ["coco:train2017"], []),
}
CLASSES = {("voc12", "seg_val"): 20, ("coco", "val2017"): 80}
BATCHES = {("voc12", "seg_val"): 5, ("coco", "val2017"): 10}  # of images whose saliency is scaled together
FURTHER = {  # trained on, measured on -> the row
    ("voc12", "voc07:seg_test"): ("Table 2", "COMUS"),
    ("voc12", "coco:val2017:voc"): ("Table 4", "COMUS (trained on PASCAL)"),
    ("coco", "coco:val2017:voc"): ("Table 4", "COMUS (trained on COCO)"),
}
STEPS = {  # of Table 5: spectral clustering, self-learning, filtering, second iteration
    "pseudo_masks_kmeans": ("no", "no", "no", "no"),
    "pseudo_masks": ("yes", "no", "no", "no"),
    "iteration1_unfiltered": ("yes", "yes", "no", "no"),
    "iteration1": ("yes", "yes", "yes", "no"),
    "iteration2": ("yes", "yes", "yes", "yes"),
}
DISCOVERED = {"iou20": "discovered (IoU>=20%)", "iou0": "has cluster (IoU>0%)", "iou2": "categories with IoU>2%"}

EXTRACTORS = {  # our name -> that of instanceness, Table 2
    "mae_vitb16": "MAE",
    "dino_vitb16": "DINO",
    "selfpatch_vits16": "SelfPatch",
    "msn_vitb16": "MSN",
    "mocov3_vitb16": "MoCo-v3",
    "densecl_resnet101": "DenseCL",
}
INSTANCE_SETS = {  # of Table 3
    "coco:val2017": "COCO_val2017",
    "coco20k:train": "COCO20k",
    "uvo:val": "UVO_val",
    "voc07:trainval": "VOC07_trainval",
}
PROPOSED = {  # the settings of instanceness' proposals
    "proposal_ks": [2, 3, 4, 5], "facet": "keys", "upsample": "nearest", "split_parts": True, "intersection": 0.5,
    "nms": 0.8, "most": 0, "smallest": 0.0,
}  # fmt: skip
TRAINED = ["coco:train2017", "coco:unlabeled2017"]
SHORT, LONG = 30_000, 60_000  # steps: of Tables 4 to 7, and of 2 and 3


# Label maps


def semantic_beside(p: Any, outcomes: "Mapping[str, Sequence[Outcome]]" = {}) -> dict[str, float]:  # noqa: B006
    """mIoU by Hungarian matching that is printed for the label maps of a run, by their names in notebook 06.

    ``p`` are the notebook's parameters. ``outcomes`` has what the training of each name left: nothing is printed beside
    one that stopped before its last step. Tables 5 and 7, and of COCO Table 3.
    """
    if not is_comus(p) or p.clusters not in (0, CLASSES[p.dataset, p.split]):
        return {}
    if p.dataset == "coco":
        rows = published(paper="comus", table="Table 3", setting="Hungarian matching; all 81 categories")
        found = {("pseudo_masks" if row["method"] == "Pseudo-masks" else "iteration1"): row["value"] for row in rows}
    elif SALIENCY[p.saliency["weights"]] == "supervised saliency":
        found = _table_7("supervised saliency")
    else:
        found = {row: _table_5(flags) for row, flags in STEPS.items() if p.ablation or row not in ABLATED}
    return _finished(found, outcomes)


ABLATED = ("pseudo_masks_kmeans", "iteration1_unfiltered")  # what only the ablation measures


def _finished(found: Mapping[str, float], outcomes: "Mapping[str, Sequence[Outcome]]") -> dict[str, float]:
    return {name: value for name, value in found.items() if all(one.finished for one in outcomes.get(name, ()))}


def majority_beside(p: Any, outcomes: "Mapping[str, Sequence[Outcome]]" = {}) -> dict[str, float]:  # noqa: B006
    """mIoU by majority voting with 30 or 50 clusters (Table 8), by the names of label maps."""
    if not is_comus(p) or p.dataset != "voc12" or p.saliency["weights"] != "basnet_unsupervised":
        return {}
    rows = published(paper="comus", table="Table 8", setting=f"majority voting; K={p.clusters} clusters")
    return _finished({_iteration(row): row["value"] for row in rows if row["method"].startswith("COMUS")}, outcomes)


def discovered_beside(p: Any, outcomes: "Mapping[str, Sequence[Outcome]]" = {}) -> dict[str, dict[str, float]]:  # noqa: B006
    """How many classes of COCO are found, and their mean IoU (Table 3, Text 4.4): name -> bound -> metric -> value."""
    if not semantic_beside(p, outcomes) or p.dataset != "coco":
        return {}
    found: dict[str, dict[str, float]] = {}
    for bound, words in DISCOVERED.items():
        rows = published(paper="comus", method="COMUS", setting=f"Hungarian matching; {words}")
        found[bound] = {row["metric"]: row["value"] for row in rows}
    return found


def further_beside(p: Any, entry: str, outcomes: "Sequence[Outcome]" = ()) -> float | None:
    """mIoU of the last round on ``entry``, one of ``p.further`` (Tables 2 and 4), or ``None``."""
    known = FURTHER.get((p.dataset, entry))
    usual = is_comus(p) and p.clusters in (0, CLASSES[p.dataset, p.split])
    if known is None or not usual or p.saliency["weights"] != "basnet_unsupervised":
        return None
    if not all(outcome.finished for outcome in outcomes):
        return None
    table, method = known
    return published(paper="comus", table=table, method=method)[0]["value"]


def is_comus(p: Any) -> bool:
    """Whether the label maps of a run are made and learned as COMUS' are, whatever the number of clusters."""
    return (
        (p.dataset, p.split) in ROUNDS
        and _whole(p)
        and (p.backbone, p.weights) == ("dino_vits8", "pretrained")
        and _is_salient(p)
        and p.describer in ("", p.backbone)
        and DESCRIBED | p.description == DESCRIBED
        and (p.min_area, p.neighbours, p.share) == (400, 30, 0.8)
        and p.least_labelled == (1000 if p.dataset == "coco" else 0)
        and _is_self_trained(p)
    )


def _is_salient(p: Any) -> bool:
    """Whether objects are those of COMUS' BASNet, scaled over as many images."""
    given = {"weights": "", "batch_size": 1, "scale": "image"} | p.saliency
    wanted = {"source": NETWORK, "scale": "batch", "batch_size": BATCHES[p.dataset, p.split]}
    return given.get("weights") in SALIENCY and all(given[name] == value for name, value in wanted.items())


def _is_self_trained(p: Any) -> bool:
    recipes, first, later = ROUNDS[p.dataset, p.split]
    limits = (p.train_limit, p.later_limit if len(p.semantic) > 1 else 0)
    if (p.train_on, p.later_on, *limits) != (first, later, 0, 0) or len(p.semantic) != len(recipes):
        return False
    return all(_same(run, _recipe(name, "semantic")) for run, name in zip(p.rounds(), recipes, strict=True))


def _whole(p: Any) -> bool:
    return (p.limit, p.max_side, p.precision) == (0, 0, "fp32")


def _same(run: Any, wanted: Any) -> bool:
    """Whether the settings of two runs are the same, as far as they change a result (but for the seed).

    Either engine of Mask R-CNN will do.
    """
    own, other = (one.model_dump(exclude={*MAY_CHANGE, "seed", "engine"}) for one in (run, wanted))
    return bool(own == other)


def _recipe(name: str, kind: str, **changes: Any) -> Any:
    from foundling.training.instance.settings import SEGMENTERS
    from foundling.training.recipes import recipe
    from foundling.training.semantic.settings import Semantic

    models = {"semantic": Semantic} if kind == "semantic" else SEGMENTERS
    return recipe({"settings": name, **changes}, name, models)


def _table_5(flags: Sequence[str]) -> float:
    names = ("spectral clustering", "self-learning", "filtering", "2nd self-learning")
    wanted = dict(zip(names, flags, strict=True))
    for row in published(paper="comus", table="Table 5"):
        setting = dict(part.split("=") for part in row["setting"].split("; ") if "=" in part)
        if {name: setting[name] for name in names} == wanted:
            return row["value"]
    raise AssertionError(f"COMUS, Table 5, has no row {wanted}")


def _table_7(saliency: str) -> dict[str, float]:
    rows = published(paper="comus", table="Table 7", setting=f"Hungarian matching; {saliency}")
    return {_iteration(row): row["value"] for row in rows if row["method"].startswith("COMUS")}


def _iteration(row: Row) -> str:
    """The name of the label maps of "COMUS (Iteration 1)"."""
    return f"iteration{row['method'].rstrip(')').rpartition(' ')[2]}"


# Instances


def instances_beside(p: Any, outcomes: "Sequence[Outcome]" = ()) -> dict[str, float]:
    """Figures of the instance segmenter on COCO val2017 (instanceness, Tables 2 and 4 to 7), where any are printed.

    ``outcomes`` are what the training of each seed left: nothing is given if one stopped before its last step.
    """
    rows = _instance_rows(p, "coco:val2017") if all(one.finished for one in outcomes) else []
    return {_figure(row): row["value"] for row in rows}


def further_instances_beside(p: Any, entry: str, outcomes: "Sequence[Outcome]" = ()) -> dict[str, float]:
    """Its figures on ``entry``, one of ``p.further`` (Table 3)."""
    where = INSTANCE_SETS.get(entry)
    if where is None or not all(one.finished for one in outcomes) or not _is_main(p):
        return {}
    rows = published(paper="instanceness", table="Table 3", method="Ours (MAE)", eval_set=where)
    return {_figure(row): row["value"] for row in rows}


def _is_main(p: Any) -> bool:
    """Whether this is the segmenter of the paper's Table 3: MAE's proposals, all steps."""
    changed = _changed(p)
    return p.proposal_backbone == "mae_vitb16" and changed == {} and _steps(p) == LONG


def _steps(p: Any) -> int:
    """For how long the paper's own segmenter is trained, or 0 where it is not the paper's."""
    run = p.segmenter()
    same = [steps for steps in (SHORT, LONG) if run and _same(run, _recipe("instanceness_solo", "", steps=steps))]
    return same[0] if same else 0


def _changed(p: Any) -> dict[str, Any] | None:
    """What differs from the paper's proposals, ``None`` where the images or all else do."""
    measured = p.measured_instances() or (p.dataset, p.split)
    limits = (p.instance_limit if p.instance_part else p.limit, p.instance_train_limit, p.max_side)
    usual = measured == ("coco", "val2017") and limits == (0, 0, 0) and p.precision == "fp32"
    if not usual or p.instance_train_on != TRAINED or not p.instances or p.weights != "pretrained":
        return None
    changed = {name: getattr(p, name) for name, value in PROPOSED.items() if getattr(p, name) != value}
    return changed | ({} if p.saliency_backbone == "dino_vitb16" else {"saliency_backbone": p.saliency_backbone})


def _instance_rows(p: Any, entry: str) -> list[Row]:
    changed, steps = _changed(p), _steps(p)
    if changed is None:
        return []
    if steps == LONG:
        method = EXTRACTORS.get(p.proposal_backbone) if changed == {} else None
        return published(paper="instanceness", table="Table 2", method=method) if method else []
    if p.proposal_backbone != "mae_vitb16":
        return []
    if _same(p.segmenter(), _recipe("instanceness_mask_rcnn", "")):
        return _of_setting("Table 7", "segmenter=Mask R-CNN") if changed == {} else []
    if steps != SHORT:
        return []
    if changed == {}:  # the same row ends Tables 4 to 7
        sizes = _of_setting("Table 4", "k=2-5")
        return [*_of_setting("Table 7", "segmenter=SOLOv2"), *(row for row in sizes if "_" in row["metric"])]
    match changed:
        case {"proposal_ks": [k]} if len(changed) == 1:
            return _of_setting("Table 4", f"k={k}")
        case {"saliency_backbone": name} if len(changed) == 1:
            return _of_setting("Table 5", f"saliency={EXTRACTORS.get(name, name)}")
        case {"split_parts": False} if len(changed) == 1:
            return _of_setting("Table 6", "component splitting=no")
    return []


def _of_setting(table: str, ends: str) -> list[Row]:
    rows = published(paper="instanceness", table=table)
    return [row for row in rows if row["setting"].rpartition("; ")[2] == ends]


def _figure(row: Row) -> str:
    """The name of a figure in our tables; the paper's "AR" is that of 100 masks."""
    return "AR100" if row["metric"] == "AR" else str(row["metric"])


# Tables to show


def printed_rounds() -> list[dict[str, Any]]:
    """COMUS on VOC 2012 val, step by step (Table 5): rows to show."""
    words = {
        "pseudo_masks_kmeans": "k-means",
        "pseudo_masks": "spectral clusters",
        "iteration1_unfiltered": "+ self-training",
        "iteration1": "+ filter",
        "iteration2": "+ second round",
    }
    return [{"step": words[name], "mIoU": _table_5(flags)} for name, flags in STEPS.items()]


def printed_extractors() -> list[dict[str, Any]]:
    """Class-agnostic figures of segmenters by the network of their proposals (instanceness, Table 2): rows to show."""
    lines: dict[str, dict[str, Any]] = {}
    for row in published(paper="instanceness", table="Table 2"):
        lines.setdefault(row["method"], {"proposals of": row["method"]})[row["metric"]] = row["value"]
    return list(lines.values())


def printed_segmenters() -> list[dict[str, Any]]:
    """SOLOv2 and Mask R-CNN on the same proposals (instanceness, Table 7): rows to show."""
    lines: dict[str, dict[str, Any]] = {}
    for row in published(paper="instanceness", table="Table 7"):
        name = row["setting"].rpartition("=")[2]
        lines.setdefault(name, {"segmenter": name})[row["metric"]] = row["value"]
    return list(lines.values())
