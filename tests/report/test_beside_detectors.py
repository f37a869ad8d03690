"""Printed numbers stand beside detectors only under LOST's conditions."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from foundling.report.beside_detectors import (
    SETS,
    cad_beside,
    is_papers,
    od_beside,
    printed_boxes,
    printed_classes,
    printed_clusters,
    pseudo_beside,
    spread_beside,
    teacher_beside,
    train_set,
)
from foundling.training.detection.detectron2_config import PRESETS
from foundling.training.loop import Outcome

CAD, OD = PRESETS["VOC07_CAD"], PRESETS["VOC07_OD"]


def parameters(split="trainval", parts=(), dataset="voc07", **changes) -> SimpleNamespace:
    """What notebook 05 has of parameters, as far as conditions look at them."""
    values = {
        "dataset": dataset, "split": split, "limit": 0, "max_side": 0, "precision": "fp32", "backbone": "dino_vits16",
        "weights": "pretrained", "teacher": {"method": "lost", "k": 100, "facet": "keys"}, "clusters": 0,
        "description": {"recipe": "lost", "descriptor": "cls", "side": 256, "facet": "tokens"},
        "clustering": "kmeans_lost", "train_limit": 0, "parts": lambda: list(parts), "seeds": [0],
    }  # fmt: skip
    return SimpleNamespace(**values | changes)


def test_class_agnostic_detectors():
    assert cad_beside(parameters(), CAD) == {"corloc": 65.7, "ap50": 29.0, "odap50": 19.8, "odap": 6.71}
    assert cad_beside(parameters("test", [("voc07", "trainval")]), CAD) == {"ap50": 29.0}
    coco = parameters("train", dataset="coco20k")
    assert cad_beside(coco, PRESETS["COCO20k_CAD"]) == {"corloc": 57.5, "ap50": 9.9, "odap50": 7.93, "odap": 2.51}
    voc12 = parameters(dataset="voc12")
    assert cad_beside(voc12, PRESETS["VOC12_CAD"]) == {"corloc": 70.4, "ap50": 33.5, "odap50": 24.9, "odap": 8.85}
    assert cad_beside(voc12, CAD) == {}  # settings of another dataset
    assert teacher_beside(parameters()) == {"corloc": 61.9}
    assert teacher_beside(parameters("test")) == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"limit": 100}, {"max_side": 480}, {"precision": "bf16"}, {"backbone": "dino_vitb16"}, {"weights": "random"},
        {"dataset": "scenes"}, {"teacher": {"method": "tokencut"}},
        {"train_limit": 9, "parts": [("voc07", "trainval")]},
        {"teacher": {"method": "lost", "k": 1, "facet": "keys"}}, {"parts": [("voc12", "trainval")]},
        {"teacher": {"method": "lost", "k": 100, "facet": "keys", "centre": True}},
    ],
)  # fmt: skip
def test_other_conditions_have_nothing_beside_them(changes):
    assert cad_beside(parameters(**changes), CAD) == {}


def test_settings_that_change_the_result_must_be_the_papers():
    assert is_papers(CAD, "cad", "VOC07_trainval")
    assert is_papers(CAD.model_copy(update={"engine": "torchvision", "workers": 0, "seed": 7}), "cad", "VOC07_trainval")
    others = {"steps": 24000, "network": "r50_fpn", "learning_rate": 0.01, "freeze_at": 0}
    for name, value in {**others, "precision": "bf16", "accumulate": 4}.items():
        assert not is_papers(CAD.model_copy(update={name: value}), "cad", "VOC07_trainval")
    assert not is_papers(CAD, "od", "VOC07_trainval")
    assert not is_papers(CAD, "cad", "")


def test_detectors_of_clusters():
    one = od_beside(parameters("test", [("voc07", "trainval")]), OD)
    assert (len(one), one["ap50"], one["cat"], one["diningtable"]) == (21, 28.6, 72.2, 28.1)
    union = [("voc12", "trainval"), ("voc07", "trainval")]
    both = od_beside(parameters("test", union), OD)
    assert (len(both), both["ap50"], both["bicycle"]) == (21, 29.9, 38.5)
    assert od_beside(parameters("test", union, clusters=30), OD) == {"ap50": 34.0}
    assert od_beside(parameters("test", union, clusters=31), OD) == {}
    assert od_beside(parameters("test", union, clustering="spectral"), OD) == {}
    assert od_beside(parameters("test", union, description={"recipe": "comus", "descriptor": "cls"}), OD) == {}
    assert od_beside(parameters("test", union), CAD) == {}
    assert od_beside(parameters(), OD) == {}
    pseudo = pseudo_beside(parameters("test"))
    assert (len(pseudo), pseudo["ap50"], pseudo["aeroplane"]) == (21, 15.1, 42.8)
    assert pseudo_beside(parameters("test", backbone="dino_vitb8")) == {}


def test_the_boxes_alone_depend_on_what_was_clustered():
    assert pseudo_beside(parameters("test", [("voc07", "trainval")])) == pseudo_beside(parameters("test"))
    for parts in ([("voc12", "trainval")], [("voc07", "trainval"), ("voc12", "trainval")], [("scenes", "multi_train")]):
        assert pseudo_beside(parameters("test", parts)) == {}
    assert pseudo_beside(parameters("test", [("voc07", "trainval")], train_limit=100)) == {}


def test_the_spread_over_four_seeds_of_twenty_clusters():
    union, four = [("voc12", "trainval"), ("voc07", "trainval")], [0, 1, 2, 3]
    assert spread_beside(parameters("test", union, seeds=four), OD) == 0.8
    assert spread_beside(parameters("test", union, seeds=four, clusters=20), OD) == 0.8
    assert spread_beside(parameters("test", union, seeds=four[:3]), OD) is None
    assert spread_beside(parameters("test", union, seeds=four, clusters=25), OD) is None
    assert spread_beside(parameters("test", union[1:], seeds=four), OD) is None  # of one year


def test_nothing_stands_beside_a_run_that_stopped_early():
    ended, stopped = (Outcome(done == 10, done, Path("run.safetensors"), []) for done in (10, 9))
    union = [("voc12", "trainval"), ("voc07", "trainval")]
    p = parameters("test", union, seeds=[0, 1, 2, 3])
    assert cad_beside(parameters(), CAD, [ended])["ap50"] == 29.0
    assert od_beside(p, OD, [ended] * 4)["ap50"] == 29.9 and spread_beside(p, OD, [ended] * 4) == 0.8
    assert cad_beside(parameters(), CAD, [stopped]) == cad_beside(parameters(), CAD, [ended, stopped]) == {}
    assert od_beside(p, OD, [ended, ended, stopped, ended]) == {}
    assert spread_beside(p, OD, [ended, ended, ended, stopped]) is None


def test_sets_are_named_as_in_the_papers():
    assert train_set(parameters()) == "VOC07_trainval"
    assert (
        train_set(parameters(parts=[("voc12", "trainval"), ("voc07", "trainval")])) == "VOC07_trainval+VOC12_trainval"
    )
    assert train_set(parameters(parts=[("scenes", "multi_train"), ("voc07", "trainval")])) == ""
    assert SETS["voc07", "test"] == "VOC07_test"


def test_tables_to_show():
    first = printed_boxes("Table 1")
    assert [row["method"] for row in first] == ["LOD", "LOST", "rOSD + CAD", "LOD + CAD", "LOST + CAD"]
    assert first[-1] == {"method": "LOST + CAD", "VOC07 trainval": 65.7, "VOC12 trainval": 70.4, "COCO20k": 57.5}
    assert printed_boxes("Table 4")[-1]["VOC07 test"] == 29.0
    ninth = printed_boxes("Table 9")[-1]
    assert (ninth["odAP50 COCO20k"], ninth["odAP@[50-95] VOC07 trainval"], len(ninth)) == (7.93, 6.71, 7)
    third = {row["method"]: row for row in printed_classes()}
    assert list(third) == ["rOSD + OD", "LOST pseudo-boxes", "LOST + OD", "LOST + OD†"]
    assert {len(row) for row in third.values()} == {22} and third["LOST + OD"]["mean"] == 28.6
    assert printed_clusters() == [
        {"clusters": count, "AP50": value} for count, value in (("20", 29.9), ("25", 29.4), ("30", 34.0), ("40", 32.2))
    ]
