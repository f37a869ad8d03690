"""What the studies of detectors claim, against what their notebook shows beside its own numbers; the papers' settings."""

import pytest

from foundling.report.beside_detectors import cad_beside, od_beside, pseudo_beside, spread_beside
from foundling.report.published import published
from foundling.studies import load_study, published_selectors
from foundling.training.detection.detectron2_config import PRESETS
from foundling.training.detection.settings import Detector
from foundling.training.recipes import recipe

FIVE = "05_detector_training"
STUDIES = (
    "lost_cad_voc07", "lost_cad_voc07_detectron2", "lost_cad_voc12", "lost_cad_coco20k", "lost_od_voc07",
    "lost_od_voc0712", "lost_od_seeds_voc0712",
)  # fmt: skip
OURS = ("LOST + CAD", "LOST + OD", "LOST + OD†", "LOST pseudo-boxes")


def shown(study):
    """Every printed number that notebook 05 sets beside what it measures, in all points of the study."""
    numbers = []
    for run in study.runs:
        p, made = run.parameters, run.parameters.runs()
        numbers += cad_beside(p, made["cad"]).values() if "cad" in made else []
        if "od" in made:
            numbers += [*od_beside(p, made["od"]).values(), *pseudo_beside(p).values()]
            numbers += [value] if (value := spread_beside(p, made["od"])) is not None else []
    return numbers


def claimed(name):
    return [row for selector in published_selectors()[name] for row in published(**selector)]


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_shows_what_it_declares(name):
    study, numbers = load_study(name), [row["value"] for row in claimed(name)]
    ours = shown(study)
    assert numbers and set(numbers) <= set(ours)
    assert all(run.notebook == FIVE and run.parameters.limit == 0 for run in study.runs)


def test_every_row_of_losts_detectors_is_declared():
    wanted = [row for row in published(paper="lost") if row["method"] in OURS]
    assert len(wanted) == 3 + 3 * 21 + 4 + 4 + 6 + 1  # Tables 1, 3, 4, 7, 9 and text A.5
    told = [row for name in STUDIES for row in claimed(name)]
    assert all(row in told for row in wanted)
    assert not [row for name in published_selectors() if name not in STUDIES for row in claimed(name) if row in wanted]


def test_a_point_shows_only_its_own_images():
    study = load_study("lost_cad_voc07")
    by_split = {run.parameters.split: cad_beside(run.parameters, run.parameters.runs()["cad"]) for run in study.runs}
    assert by_split == {
        "trainval": {"corloc": 65.7, "ap50": 29.0, "odap50": 19.8, "odap": 6.71},
        "test": {"ap50": 29.0},
    }
    means = {}
    for run in load_study("lost_od_voc0712").runs:
        means[run.parameters.clusters] = od_beside(run.parameters, run.parameters.runs()["od"])["ap50"]
    assert means == {20: 29.9, 25: 29.4, 30: 34.0, 40: 32.2}


def test_other_conditions_have_no_published_number():
    run = load_study("lost_od_seeds_voc0712").run(FIVE)
    p = run.parameters
    assert spread_beside(p, p.runs()["od"]) == 0.8
    for change in ({"seeds": [0, 1]}, {"clusters": 30}, {"train_on": ["voc07:trainval"]}, {"limit": 5}):
        other = p.model_copy(update=change)
        assert spread_beside(other, other.runs()["od"]) is None
    shorter = p.runs()["od"].model_copy(update={"steps": 100})
    assert od_beside(p, shorter) == {}
    assert shown(load_study("lost_od_voc12")) == pseudo_of_test() and shown(load_study("tour")) == []


def pseudo_of_test():
    """The pseudo-boxes of VOC07 test are the same whatever is trained on, if their clusters are: the paper has one row."""
    return [row["value"] for row in published(paper="lost", table="Table 3", method="LOST pseudo-boxes")]


@pytest.mark.parametrize("name", ["VOC07_CAD", "VOC12_CAD", "COCO20k_CAD", "VOC07_OD", "VOC12_OD"])
def test_the_papers_settings_are_those_of_its_configs(name):
    file = recipe({"settings": name.lower(), "classes": PRESETS[name].classes}, "x", {"detector": Detector})
    assert file.model_copy(update={"engine": "detectron2"}) == PRESETS[name]
    assert file.engine == "torchvision"


def test_every_paper_run_uses_a_file_of_its_own_kind():
    used = {name: load_study(name).runs[0].parameters for name in (*STUDIES, "lost_od_voc12")}
    for name, p in used.items():
        assert bool(p.cad) == ("_cad_" in name) and bool(p.od) == ("_od_" in name)
        assert p.teacher == {"method": "lost", "k": 100, "facet": "keys"} and p.backbone == "dino_vits16"
        if p.od:
            assert (p.clustering, p.cluster_seed) == ("kmeans_lost", 123)
            assert p.description == {"recipe": "lost", "descriptor": "cls", "side": 256}
    assert used["lost_cad_voc07_detectron2"].runs()["cad"].engine == "detectron2"
