"""Odin's printed numbers: read off its tables under the paper's conditions, and absent under any other."""

import pytest

from foundling.parameters import validate
from foundling.report.beside_training import (
    ablation_beside,
    ablation_setting,
    differences,
    overlap_beside,
    printed,
    video_beside,
)
from foundling.report.published import published
from foundling.training.recipes import recipe

EIGHT = "08_representation_learning"
COCO = {
    "dataset": "coco",
    "split": "val2017",
    "limit": 0,
    "overlap_limit": 0,
    "training": {},
    "videos": "davis",
    "video_limit": 0,
}
RESNET, VIT = (recipe({"settings": name}, "test") for name in ("odin_resnet50", "odin_vitb8"))
SHORT = recipe({"settings": "odin_short"}, "test")


def given(**changes):
    return validate(EIGHT, {**COCO, **changes})


@pytest.mark.parametrize(
    ("name", "grid", "filtered", "run", "abo"),
    [
        ("dino_resnet50", (32, 32), False, None, 38.3),
        ("supervised_resnet50", (32, 32), False, None, 35.8),
        ("supervised_resnet50", (32, 32), True, None, 39.5),
        ("dino_resnet50:random", (32, 32), False, None, 28.1),
        ("dino_vitb8", (56, 56), False, None, 42.7),
        ("dino_vitb8:random", (56, 56), True, None, 29.5),
        ("mine", (32, 32), False, RESNET, 41.5),
        ("mine", (256, 256), False, RESNET, 43.0),
        ("mine", (256, 256), True, RESNET, 47.2),
        ("mine", (56, 56), False, VIT, 45.9),
        ("dino_vits16", (28, 28), False, None, None),
        ("dino_resnet50", (64, 64), False, None, None),
        ("mine", (32, 32), False, SHORT, None),
        ("mine", (32, 32), False, RESNET.model_copy(update={"masks": 8}), None),
        ("mine", (32, 32), False, RESNET.model_copy(update={"steps": 3000}), None),
    ],
)
def test_tables_4_and_a1(name, grid, filtered, run, abo):
    found = overlap_beside(given(), name, grid, filtered, run)
    assert (found and found["abo_i"]) == abo


@pytest.mark.parametrize(
    "changes",
    [
        {"limit": 5}, {"overlap_limit": 5}, {"overlap_ks": [1, 2]},
        {"precision": "bf16"}, {"overlap_side": 512}, {"split": "train2017"},
        {"dataset": "scenes", "split": ""},
    ],
)  # fmt: skip
def test_other_conditions_have_no_printed_number(changes):
    assert overlap_beside(given(**changes), "dino_resnet50", (32, 32)) is None
    assert ablation_beside(given(**changes), RESNET) is None


RUNS = {
    "K=8; update every 100 epochs": {"masks": 8},
    "K=16; update every 100 epochs": {},
    "K=32; update every 100 epochs": {"masks": 32},
    "K=16; lambda_tau=1e-2": {"discovery": "continuous", "discovery_rate": 1e-2},
    "K=16; lambda_tau=1e-3": {"discovery": "continuous", "discovery_rate": 1e-3},
    "K=16; lambda_tau=1e-4": {"discovery": "continuous", "discovery_rate": 1e-4},
}


@pytest.mark.parametrize("name", RUNS)
def test_table_6(name):
    run = RESNET.model_copy(update=RUNS[name])
    assert ablation_setting(run) == name
    rows = published(paper="odin", table="Table 6", setting=f"underlying=object-discovery-overlap (with FPN); {name}")
    assert ablation_beside(given(), run) == {row["metric"].lower(): row["value"] for row in rows}
    assert len(rows) == 2


def test_all_rows_of_table_6_that_concern_discovery_have_their_run():
    rows = [row for row in published(paper="odin", table="Table 6") if "discovery" in row["setting"]]
    assert {row["setting"].partition("; ")[2] for row in rows} == set(RUNS)


@pytest.mark.parametrize(
    ("name", "run", "jf"),
    [
        ("supervised_resnet50", None, 27.0),
        ("supervised_resnet50:random", None, 15.2),
        ("dino_resnet50:random", None, 15.2),
        ("mine", RESNET, 35.6),
        ("mine", SHORT, None),
        ("dino_resnet50", None, None),
        ("dino_vitb8:random", None, None),
    ],
)
def test_table_5(name, run, jf):
    found = video_beside(given(), name, run)
    assert (found and found["j&f"]) == jf
    assert video_beside(given(videos="scenes_video"), name, run) is None
    assert video_beside(given(video_limit=3), name, run) is None


def test_a_printed_table_as_rows():
    rows = printed("Table 5", {"J&F": "J&F", "J": "J", "F": "F"})
    assert rows[0] == {
        "method": "Random",
        "network": "ResNet-50",
        "setting": "stride 32",
        "J&F": 15.2,
        "J": 15.9,
        "F": 14.6,
    }
    assert len(rows) == 4
    assert all("AP" not in row for row in printed("Table 6", {"ABO_i": "ABO_i", "OR": "OR"}))
    assert len(printed("Table 6", {"ABO_i": "ABO_i", "OR": "OR"})) == 6


def test_what_differs_between_runs():
    runs = {"a": SHORT, "b": SHORT.model_copy(update={"masks": 9}), "c": recipe({"objective": "mae"}, "x")}
    told = differences({k: runs[k] for k in "ab"})
    assert told == {"a": {"masks": SHORT.masks}, "b": {"masks": 9}}
    assert differences({"a": SHORT}) == {"a": {}}
    assert differences(runs)["c"]["objective"] == "mae" and "masks" not in differences(runs)["c"]
