"""The parameters of notebook 05: the teacher, what is trained and on which images, and what is missing for it."""

import importlib.util

import pytest

from foundling.errors import ParameterError
from foundling.needs import embedded_weights, missing
from foundling.parameters import check_names, validate
from foundling.studies import load_study

FIVE = "05_detector_training"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cad": {}, "od": {}}, "cad and od are both empty: give the settings of one, or there is nothing to train"),
        ({"teacher": {"k": 3}}, "teacher needs 'method': the name of a discovery method, such as 'lost'"),
        ({"seeds": [1, 1]}, "seeds is [1, 1]: give each once"),
        ({"seeds": []}, "seeds = [], of type list, is not legal"),
        ({"train_on": ["train", "train"]}, "train_on is ['train', 'train']: give each once"),
        ({"train_on": ["a:b:c"]}, "train_on.0 = 'a:b:c', of type str, is not legal"),
        ({"description": {"sides": 64}}, "description.sides = 64 is not legal: it may have recipe (str), descriptor"),
        ({"description": {"colour": 1}}, "description.colour = 1 is not legal: it may have recipe (str)"),
        (
            {"clustering": "ward"},
            "clustering = 'ward', of type str, is not legal: it should be 'spectral', ",
        ),
        ({"cad": {"settings": "scenes_odin"}}, "cad, on scenes_odin.yaml: unknown objective 'odin'. Legal: detector"),
        ({"cad": {"settings": "scene_cad"}}, "no training settings 'scene_cad' in studies/training: did you mean"),
        ({"cad": {"stepps": 5}}, "cad: unknown parameter 'stepps' (value 5): did you mean 'steps'?"),
        ({"od": {"steps": 0}}, "od: steps = 0, of type int, is not legal"),
        ({"od": {"classes": 20}}, "od.classes is set by the notebook (see seeds and clusters): remove it"),
        ({"cad": {"seed": 1}}, "cad.seed is set by the notebook"),
        ({"compare_backbones": ["scenes_mae"]}, "compare_backbones = ['scenes_mae'], of type list, is not legal"),
    ],
)
def test_what_is_wrong_is_named(values, message):
    with pytest.raises(ParameterError) as caught:
        validate(FIVE, values)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train_on": ["multi_tran"]}, "train_on: scenes has no split 'multi_tran': did you mean 'multi_train'?"),
        ({"train_on": ["voc7:train"]}, "train_on: unknown dataset 'voc7': did you mean 'voc07'?"),
        ({"train_on": ["voc07:all"]}, "train_on: voc07 has no split 'all'"),
        ({"teacher": {"method": "lots"}}, "teacher.lots: unknown method 'lots': did you mean 'lost'?"),
        ({"teacher": {"method": "lost", "k": 0.5}}, "teacher.lost: k = 0.5, of type float, is not legal"),
        ({"cad": {"weights": "scenes_odn"}}, "cad: unknown weights 'scenes_odn': did you mean 'scenes_odin'?"),
        ({"backbone": "dino_resnet50", "teacher": {"method": "lost", "facet": "queries"}}, "teacher reads queries"),
        (
            {"backbone": "dino_resnet50", "description": {"descriptor": "cls"}},
            "description reads cls, which",
        ),
    ],
)
def test_names_are_held_against_the_registries(values, message):
    with pytest.raises(ParameterError) as caught:
        check_names(validate(FIVE, values), "here")
    assert message in str(caught.value)


def test_what_is_trained_on():
    assert validate(FIVE, {"train_on": []}).parts() == []
    given = validate(FIVE, {"dataset": "voc07", "split": "test", "train_on": ["trainval", "voc12:trainval"]})
    assert given.parts() == [("voc07", "trainval"), ("voc12", "trainval")]
    check_names(given, "here")
    check_names(validate(FIVE, {}), "defaults")


def test_runs_are_those_that_are_asked_for():
    given = validate(FIVE, {"cad": {}, "od": {"settings": "voc07_od", "steps": 30_000}})
    (run,) = given.runs().values()
    assert (run.objective, run.network, run.steps, run.batch) == ("detector", "r50_c4", 30_000, 16)
    assert list(validate(FIVE, {}).runs()) == ["cad", "od"]


def test_the_weights_that_detectors_start_from_are_needed(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path))
    assert set(embedded_weights(validate(FIVE, {}))) == {"scenes_odin"}
    mae = {"steps": 30, "weights": "scenes_mae"}
    assert set(embedded_weights(validate(FIVE, {"cad": mae}))) == {"scenes_odin", "scenes_mae"}
    whats = [need.what for need in missing(load_study("lost_od_voc0712"))]
    for part in ("the weights of dino_vits16", "the weights of dino_resnet50", "the dataset 'voc07'"):
        assert any(part in what for what in whats)
    training = [what for what in whats if what.startswith("the training images: ")]
    assert len(training) == 2  # both years


def test_what_else_is_missing_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path))
    file = tmp_path / "mine.yaml"
    gone = "{weights: gone.safetensors, steps: 30, engine: detectron2}"
    file.write_text(f"title: T\nnotebooks:\n  {FIVE}: {{cad: {gone}, od: {{}}}}\n")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    needs = {need.what: need.remedy for need in missing(load_study(str(file)))}
    assert "the detector's weights" in needs["the checkpoint gone.safetensors"]
    assert "environment.yml" in needs["Detectron2, the engine of this study"]
    assert validate(FIVE, {"cad": {"weights": "gone.safetensors", "steps": 30}}).files() == ["gone.safetensors"]
