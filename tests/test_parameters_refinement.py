"""The parameters of notebook 07: what is refined, on which images, and what is missing for it."""

import pytest

from foundling.errors import ParameterError
from foundling.needs import embedded_weights, missing
from foundling.parameters import check_names, validate
from foundling.studies import load_study

SEVEN = "07_box_refinement"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"seeds": [1, 1]}, "seeds is [1, 1]: give each once"),
        ({"train_on": ["train", "train"]}, "train_on is ['train', 'train']: give each once"),
        ({"train_on": ["a:b:c"]}, "train_on.0 = 'a:b:c', of type str, is not legal"),
        ({"recipe": "scene_refine"}, "no training settings 'scene_refine' in studies/training: did you mean"),
        ({"recipe": "scenes_odin"}, "refinement, on scenes_odin.yaml: unknown objective 'odin'. Legal: refinement"),
        ({"refinement": {"boxes": 0}}, "refinement, on scenes_refine.yaml: boxes = 0, of type int, is not legal"),
        ({"refinement": {"boxs": 3}}, "unknown parameter 'boxs' (value 3): did you mean 'boxes'?"),
        ({"refinement": {"seed": 3}}, "refinement.seed is set by the notebook (see seeds, backbone, weights)"),
        ({"refinement": {"backbone": "scenes_mae"}}, "refinement.backbone is set by the notebook"),
        ({"refinement": {"weights": "random"}}, "refinement.weights is set by the notebook"),
        ({"ablation": {"k1": {"boxes": -1}}}, "ablation.k1, on scenes_refine.yaml: boxes = -1"),
        ({"ablation": {"K 1": {}}}, "ablation: label 'K 1' names metrics: use lower-case letters"),
        ({"ablation": {"h": {}}}, "ablation: label 'h' names metrics"),
        ({"maps": {"dino_seg": {}}}, "maps: 'dino_seg' is no method whose maps are drawn: choose among lost, tokencut"),
        ({"cad": {"stepps": 5}}, "cad: unknown parameter 'stepps' (value 5): did you mean 'steps'?"),
        ({"cad": {"seed": 1}}, "cad.seed is set by the notebook (see seeds): remove it"),
        ({"compare_backbones": ["scenes_mae"]}, "compare_backbones = ['scenes_mae'], of type list, is not legal"),
    ],
)
def test_what_is_wrong_is_named(values, message):
    with pytest.raises(ParameterError) as caught:
        validate(SEVEN, values)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train_on": ["single_tran"]}, "train_on: scenes has no split 'single_tran': did you mean 'single_train'?"),
        ({"train_on": ["voc7:train"]}, "train_on: unknown dataset 'voc7': did you mean 'voc07'?"),
        ({"refinement": {"network_weights": "dino_resnet5"}}, "network_weights: unknown weights 'dino_resnet5'"),
        ({"refinement": {"discovery": {"k": 0.5}}}, "refined.lost: k = 0.5, of type float, is not legal"),
        ({"ablation": {"a": {"discovery": {"tau": 0.5}}}}, "a.lost: unknown parameter 'tau'"),
        ({"maps": {"lost": {"k": -1}}}, "maps.lost: k is -1: give a whole number of patches"),
        ({"cad": {"weights": "scenes_odn"}}, "cad: weights: unknown weights 'scenes_odn': did you mean 'scenes_odin'?"),
        ({"backbone": "dino_resnet50"}, "backbone 'dino_resnet50' has no CLS token"),
        (
            {"recipe": "refine_segmenter_code", "refinement": {"weights": "segmentr"}},
            "refined: weights 'segmentr' of a segmenter: give pretrained, random or a file",
        ),
    ],
)  # fmt: skip
def test_names_are_held_against_the_registries(values, message):
    with pytest.raises(ParameterError) as caught:
        check_names(validate(SEVEN, values), "here")
    assert message in str(caught.value)


def test_what_is_refined_and_changed():
    given = validate(
        SEVEN, {"backbone": "scenes_mae", "refinement": {"boxes": 4}, "ablation": {"a": {"regulariser": 0.0}}}
    )
    runs = given.runs()
    assert list(runs) == ["refined", "a"]
    assert {(run.backbone, run.weights, run.boxes) for run in runs.values()} == {("scenes_mae", "pretrained", 4)}
    assert (runs["refined"].regulariser > 0, runs["a"].regulariser) == (True, 0.0)
    assert given.parts() == [("scenes", "single_train")] and validate(SEVEN, {"train_on": []}).parts() == []
    assert validate(SEVEN, {"cad": {}}).detector() is None
    check_names(validate(SEVEN, {}), "defaults")


def test_a_segmenter_is_that_of_its_settings():
    given = validate(SEVEN, {"recipe": "refine_segmenter_code", "refinement": {"weights": "my.pt"}, "cad": {}})
    run = given.runs()["refined"]
    assert (run.backbone, run.weights) == ("dino_vits8", "my.pt")
    assert given.files() == ["my.pt"]
    assert given.networks() == [("dino_vits8", "pretrained"), ("dino_resnet50", "pretrained")]
    check_names(given, "here")


def test_the_weights_that_are_begun_with_are_needed(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path))
    assert set(embedded_weights(validate(SEVEN, {}))) == {"scenes_odin"}
    assert set(embedded_weights(validate(SEVEN, {"cad": {"weights": "scenes_mae"}}))) == {"scenes_odin", "scenes_mae"}
    whats = [need.what for need in missing(load_study("box_refinement_voc07"))]
    for part in ("the weights of dino_vits16", "of dino_vits8", "of dino_resnet50", "the dataset 'voc07'",
                 "the weights of the segmenter move"):  # fmt: skip
        assert any(part in what for what in whats), part


def test_what_else_is_missing_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path))
    file = tmp_path / "mine.yaml"
    file.write_text(
        f"title: T\nnotebooks:\n  {SEVEN}:\n    recipe: refine_segmenter_code\n    refinement: {{weights: gone.pt}}\n"
        "    train_on: ['voc07:trainval']\n    cad: {}\n"
    )
    needs = {need.what: need.remedy for need in missing(load_study(str(file)))}
    assert "the weights of refinement or cad" in needs["the checkpoint gone.pt"]
    assert any(what.startswith("the training images: ") for what in needs)
    assert not any("segmenter move" in what for what in needs)
