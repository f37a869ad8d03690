"""Printed numbers stand beside refinements only under the paper's conditions."""

from pathlib import Path

import pytest

from foundling.parameters import validate
from foundling.report.beside_refinement import (
    ablation_beside,
    cad_beside,
    corloc_beside,
    hours_beside,
    preset_of,
    printed_ablation,
    printed_corloc,
)
from foundling.training.loop import Outcome

SEVEN = "07_box_refinement"
VOC07 = {"dataset": "voc07", "split": "trainval", "backbone": "dino_vits16", "train_on": [], "train_limit": 0}


def parameters(**changes):
    return validate(SEVEN, {**VOC07, "recipe": "refine_lost_code", "cad": {"settings": "voc07_cad"}, **changes})


def beside(p, outcomes=()):
    plain = p.runs()["refined"]
    return corloc_beside(p, plain, outcomes) | cad_beside(p, plain, p.detector(), outcomes)


ALL = {"f": 61.9, "h": 42.1, "refined": 62.0, "f_cad": 65.7, "refined_cad": 66.1}


@pytest.mark.parametrize("recipe", ["refine_lost_code", "refine_lost_paper"])
def test_lost_with_either_settings(recipe):
    p = parameters(recipe=recipe)
    assert beside(p) == ALL and preset_of(p.runs()["refined"]) == recipe.rpartition("_")[2]
    assert hours_beside(p, p.runs()["refined"]) == {"h": 0.5, "refined": 5.3}
    assert beside(parameters(recipe=recipe, train_on=["trainval"])) == ALL  # what is measured, by its name


def test_other_methods_and_sets():
    assert beside(parameters(recipe="refine_tokencut_code")) == {
        "f": 68.8, "h": 44.6, "refined": 69.0, "f_cad": 71.4, "refined_cad": 71.9
    }  # fmt: skip
    assert beside(parameters(recipe="refine_segmenter_code")) == {
        "f": 76.0, "h": 42.9, "refined": 77.5, "f_cad": 77.1, "refined_cad": 78.7
    }  # fmt: skip
    coco = parameters(dataset="coco20k", split="train", cad={"settings": "coco20k_cad"})
    assert beside(coco) == {"f": 50.7, "h": 33.7, "refined": 52.0, "f_cad": 57.5, "refined_cad": 58.7}
    assert beside(parameters(dataset="voc12")).keys() == {"f", "h", "refined"}  # a detector of VOC07's settings


@pytest.mark.parametrize(
    "changes",
    [
        {"limit": 100}, {"max_side": 480}, {"precision": "bf16"}, {"backbone": "dino_vitb16"}, {"weights": "random"},
        {"split": "test"}, {"train_on": ["trainval"], "train_limit": 9}, {"train_on": ["voc12:trainval"]},
        {"refinement": {"discovery": {"k": 1, "facet": "keys"}}},
    ],
)  # fmt: skip
def test_other_conditions_have_nothing_beside_them(changes):
    p = parameters(**changes)
    assert beside(p) == {} and hours_beside(p, p.runs()["refined"]) == {}
    assert ablation_beside(p, p.runs()["refined"]) is None


def test_other_settings_of_refinement_leave_what_stays_as_it_was():
    p = parameters(refinement={"refine_rate": 1e-4})
    assert beside(p) == {"f": 61.9, "f_cad": 65.7} and preset_of(p.runs()["refined"]) == ""
    p = parameters(refinement={"log_every": 7, "look_every": 5, "export_at": []})
    assert beside(p) == ALL


def test_a_run_that_stopped_has_nothing():
    done, stopped = Outcome(True, 9, Path("a"), []), Outcome(False, 5, Path("a"), [])
    p = parameters()
    assert beside(p, [done, done]) == ALL
    assert beside(p, [done, stopped]) == {"f": 61.9, "f_cad": 65.7}
    assert cad_beside(p, p.runs()["refined"], p.detector(), [done], [stopped]) == {}


def test_variants():
    p = parameters(ablation={"a": {"regulariser": 0.0}, "k5": {"boxes": 5}, "both": {"regulariser": 0.0, "boxes": 5},
                             "k7": {"boxes": 7}})  # fmt: skip
    found = {label: ablation_beside(p, one) for label, one in p.runs().items()}
    assert found == {"refined": 61.92, "a": 61.72, "k5": 62.16, "both": None, "k7": None}
    other = parameters(recipe="refine_tokencut_code")
    assert ablation_beside(other, other.runs()["refined"]) is None


def test_tables_for_orientation():
    rows = {row["method"]: row for row in printed_corloc()}
    assert len(rows) == 15
    assert rows["Box refinement (Ours) using LOST (network h)"]["COCO20k"] == 33.7
    assert rows["MOVE + CAD"]["VOC07 trainval"] == 77.1
    assert {row["variant"]: row["VOC12 trainval"] for row in printed_ablation()} == {
        "w/o reg.": 64.45, "k=1": 64.67, "k=5": 64.45, "k=10": 66.16, "k=15": 64.46
    }  # fmt: skip
