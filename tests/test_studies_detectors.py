"""What the studies of detectors claim, against what their notebook shows beside its own numbers."""

import pytest

from foundling.datasets.voc import CATEGORIES
from foundling.report.beside_detectors import (
    DECIDES,
    SETS,
    cad_beside,
    od_beside,
    pseudo_beside,
    spread_beside,
    teacher_beside,
)
from foundling.report.published import published
from foundling.studies import load_study, study_names
from foundling.training.detection.detectron2_config import PRESETS

FIVE = "05_detector_training"
TABLES = ("Table 1", "Table 3", "Table 4", "Table 7", "Table 9", "Text A.5")
OURS = ("LOST + CAD", "LOST + OD", "LOST + OD†", "LOST pseudo-boxes")
PRINTED = {"corloc": "CorLoc", "odap50": "odAP50", "odap": "odAP50-95", "std": "AP50_std"}  # others are AP50 of a class
CLAIMED_BY_ANOTHER = {"lost_od_seeds_voc0712": "lost_od_voc0712"}  # which has the same run, among others
CONFIGS = {  # study -> the authors' config of its detector
    "lost_cad_voc07": ("cad", "VOC07_CAD"),
    "lost_cad_voc07_detectron2": ("cad", "VOC07_CAD"),
    "lost_cad_voc12": ("cad", "VOC12_CAD"),
    "lost_cad_coco20k": ("cad", "COCO20k_CAD"),
    "lost_od_voc07": ("od", "VOC07_OD"),
    "lost_od_voc12": ("od", "VOC12_OD"),
    "lost_od_voc0712": ("od", "VOC07_OD"),
    "lost_od_seeds_voc0712": ("od", "VOC07_OD"),
}


Number = tuple[str, str, float]  # metric, as the paper calls it, what it was measured on, value


def shown(study: str) -> set[Number]:
    """Every printed number that notebook 05 sets beside what the runs of a study measure."""
    numbers: set[Number] = set()
    for run in load_study(study).runs:
        p, settings = run.parameters, run.parameters.runs()
        rows = [cad_beside(p, settings["cad"])] if "cad" in settings else []
        if "od" in settings:
            rows += [od_beside(p, settings["od"]), pseudo_beside(p)]
            spread = spread_beside(p, settings["od"])
            rows += [] if spread is None else [{"std": spread}]
        where = SETS[p.dataset, p.split]
        numbers |= {(PRINTED.get(name, "AP50"), where, value) for row in rows for name, value in row.items()}
        assert teacher_beside(p) or p.split == "test"
    return numbers


def claimed(study: str) -> set[Number]:
    rows = [row for one in load_study(study).published for row in published(**one)]
    return {(row["metric"], row["eval_set"], row["value"]) for row in rows}


@pytest.mark.parametrize("study", CONFIGS)
def test_what_a_study_claims_is_what_it_shows(study):
    assert claimed(study) <= shown(study)
    other = CLAIMED_BY_ANOTHER.get(study)
    assert shown(study) <= claimed(study) | (claimed(other) if other else set())


def test_the_boxes_alone_stand_beside_one_study_of_clusters():
    pseudo = ("AP50", "VOC07_test", 15.1)
    assert [study for study in CONFIGS if pseudo in shown(study)] == ["lost_od_voc07"]


def test_each_row_of_the_tables_is_claimed():
    rows = [row for study in CONFIGS for one in load_study(study).published for row in published(**one)]
    wanted = [row for table in TABLES for row in published(paper="lost", table=table) if row["method"] in OURS]
    assert len(wanted) == 13 + 3 * (len(CATEGORIES) + 1) + 4 + 1
    assert all(row in rows for row in wanted)
    assert {row["table"] for row in rows} == set(TABLES)
    others = [name for name in study_names() if name not in CONFIGS]
    assert not any(row in wanted for name in others for one in load_study(name).published for row in published(**one))


@pytest.mark.parametrize("study", CONFIGS)
def test_its_detector_is_that_of_the_authors_config(study):
    kind, name = CONFIGS[study]
    for run in load_study(study).runs:
        own = run.parameters.runs()[kind]
        assert {field: getattr(own, field) for field in DECIDES} == {
            field: getattr(PRESETS[name], field) for field in DECIDES
        }
