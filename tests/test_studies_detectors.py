"""What the studies of detectors claim, against what their notebook shows beside its own numbers."""

import pytest

from foundling.datasets.voc import CATEGORIES
from foundling.report.beside_detectors import DECIDES, cad_beside, od_beside, pseudo_beside, teacher_beside
from foundling.report.published import published
from foundling.studies import load_study, study_names
from foundling.training.detection.detectron2_config import PRESETS

FIVE = "05_detector_training"
TABLES = ("Table 1", "Table 3", "Table 4", "Table 7", "Table 9", "Text A.5")
OURS = ("LOST + CAD", "LOST + OD", "LOST + OD†", "LOST pseudo-boxes")
SPREAD = "AP50_std"  # over runs: no run shows it
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


def shown(study) -> set[float]:
    """Every printed number that notebook 05 sets beside what the runs of a study measure."""
    numbers: set[float] = set()
    for run in load_study(study).runs:
        p, settings = run.parameters, run.parameters.runs()
        if "cad" in settings:
            numbers |= set(cad_beside(p, settings["cad"]).values())
        if "od" in settings:
            numbers |= {*od_beside(p, settings["od"]).values(), *pseudo_beside(p).values()}
        assert teacher_beside(p) or p.split == "test"
    return numbers


@pytest.mark.parametrize("study", CONFIGS)
def test_what_a_study_claims_is_what_it_shows(study):
    claimed = [row for one in load_study(study).published for row in published(**one)]
    assert {row["value"] for row in claimed if row["metric"] != SPREAD} <= shown(study)


def test_each_row_of_the_tables_is_claimed():
    claimed = [row for study in CONFIGS for one in load_study(study).published for row in published(**one)]
    wanted = [row for table in TABLES for row in published(paper="lost", table=table) if row["method"] in OURS]
    assert len(wanted) == 13 + 3 * (len(CATEGORIES) + 1) + 4 + 1
    assert all(row in claimed for row in wanted)
    assert {row["table"] for row in claimed} == set(TABLES)
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
