"""The printed recall by number of instances that belongs beside ours (instanceness, Table 1)."""

from collections.abc import Sequence

from foundling.report.published import published

NETWORKS = {  # our name -> the table's
    "mae_vitb16": "MAE",
    "dino_vitb16": "DINO",
    "selfpatch_vits16": "SelfPatch",
    "msn_vitb16": "MSN",
    "mocov3_vitb16": "MoCo-v3",
    "densecl_resnet101": "DenseCL",
}
EVAL_SETS = {("coco", "val2017"): "COCO_val2017", ("voc12", "seg_val"): "VOC12_split_not_stated"}
KS = (2, 3, 4, 5, 6)


def published_recall(
    dataset: str, split: str, backbone: str, ks: Sequence[int] = KS, facet: str = "keys"
) -> dict[str, float]:
    """Mean average recall (percent) by number of instances ("1" … "6+") as Table 1 prints it; empty where it does not.

    The paper does not say which images of VOC 2012 it takes; the masks of its segmentation task are those of
    ``seg_val`` and ``seg_train``, and its numbers are given for the former.
    """
    eval_set, name = EVAL_SETS.get((dataset, split)), NETWORKS.get(backbone)
    if eval_set is None or name is None or tuple(ks) != KS or facet != "keys":
        return {}
    rows = published(paper="instanceness", table="Table 1", method=name, eval_set=eval_set)
    return {row["setting"].partition(";")[0].removeprefix("instances="): row["value"] for row in rows}
