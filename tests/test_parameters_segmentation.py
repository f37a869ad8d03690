"""The parameters of notebook 06: labels, rounds, segmenters, what they are measured on, and what they need."""

import pytest

from foundling.errors import ParameterError
from foundling.needs import embedded_weights, missing
from foundling.parameters import check_names, validate
from foundling.studies import load_study

SIX = "06_segmenter_training"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"semantic": [], "instances": {}}, "semantic and instances are both empty: give the settings of one"),
        ({"saliency": {"k": 3}}, "saliency needs 'source': the name of a source, such as 'lost'"),
        ({"saliency": {"source": "network"}}, "saliency is a network: give its 'weights', a checkpoint or its name"),
        ({"seeds": [1, 1]}, "seeds is [1, 1]: give each once"),
        ({"further": ["scenes"]}, "further.0 = 'scenes', of type str, is not legal"),
        ({"instance_part": "a:b:c"}, "instance_part = 'a:b:c', of type str, is not legal"),
        ({"semantic": [{"begin": "teacher"}]}, "semantic.1.begin is teacher, but nobody taught before round 1"),
        ({"semantic": [{"settings": "scenes_semantic"}], "later_on": ["multi_train"]}, "but there is no later round"),
        ({"semantic": [{"settings": "scenes_instances"}]}, "unknown objective 'solo'. Legal: semantic"),
        ({"semantic": [{"stepps": 5}]}, "semantic.1: unknown parameter 'stepps' (value 5): did you mean 'steps'?"),
        ({"semantic": [{}, {"seed": 3}]}, "semantic.2.seed is set by the notebook (see seeds): remove it"),
        ({"instances": {"settings": "scene_instances"}}, "no training settings 'scene_instances' in studies/training"),
        ({"instances": {"objective": "mask_rcnn", "classes": 3}}, "instances.classes is set by the notebook"),
        ({"instances": {"steps": 0}}, "instances: steps = 0, of type int, is not legal"),
        ({"description": {"sides": 64}}, "description.sides = 64 is not legal"),
        ({"upsample": "cubic"}, "upsample = 'cubic', of type str, is not legal"),
        ({"proposal_ks": [1]}, "proposal_ks.0 = 1, of type int, is not legal"),
    ],
)
def test_what_is_wrong_is_named(values, message):
    with pytest.raises(ParameterError) as caught:
        validate(SIX, values)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train_on": ["single_tran"]}, "train_on: scenes has no split 'single_tran': did you mean 'single_train'?"),
        ({"later_on": ["voc12:seg_trainag"]}, "later_on: voc12 has no split 'seg_trainag'"),
        ({"instance_train_on": ["voc7:train"]}, "instance_train_on: unknown dataset 'voc7'"),
        ({"instance_part": "single_vall"}, "instance_part: scenes has no split 'single_vall'"),
        ({"further": ["coco:val2071:voc"]}, "further: coco has no split 'val2071'"),
        ({"saliency": {"source": "lots"}}, "saliency.lots: unknown method 'lots': did you mean 'lost'?"),
        ({"saliency": {"source": "lost", "k": 0.5}}, "saliency.lost: k = 0.5, of type float, is not legal"),
        ({"semantic": [{"weights": "scenes_odn"}]}, "semantic: unknown weights 'scenes_odn'"),
        ({"instances": {"weights": "scenes_odn"}}, "solo: unknown weights 'scenes_odn'"),
        ({"proposal_backbone": "mae_vitb61"}, "proposal_backbone: unknown backbone 'mae_vitb61'"),
        ({"saliency_backbone": "nome"}, "saliency_backbone: unknown backbone 'nome'"),
        ({"backbone": "dino_resnet50", "facet": "queries", "semantic": []}, "proposal_backbone reads queries"),
        (
            {"backbone": "dino_resnet50", "description": {}, "instances": {}},
            "description reads cls, which the backbone",
        ),
    ],
)
def test_names_are_held_against_the_registries(values, message):
    with pytest.raises(ParameterError) as caught:
        check_names(validate(SIX, values), "here")
    assert message in str(caught.value)


def test_parts_and_runs_as_they_are_asked_for():
    p = validate(SIX, {"further": ["voc07:seg_test", "coco:val2017:voc"], "later_on": ["multi_train", "voc12:train"]})
    assert p.parts() == [("scenes", "single_train")]
    assert p.later_parts() == [("scenes", "multi_train"), ("voc12", "train")]
    assert validate(SIX, {}).later_parts() == p.parts() and validate(SIX, {"train_on": []}).later_parts() == []
    assert p.measured_instances() == ("scenes", "multi_val") and p.instance_parts() == [("scenes", "multi_train")]
    assert p.further_parts() == [("voc07", "seg_test", False), ("coco", "val2017", True)]
    assert [run.objective for run in p.runs()] == ["semantic", "semantic", "solo"]
    check_names(validate(SIX, {}), "defaults")
    alone = validate(SIX, {"semantic": [], "instances": {"settings": "instanceness_mask_rcnn"}, "instance_part": ""})
    assert alone.rounds() == [] and alone.segmenter().network == "r50_fpn" and alone.measured_instances() is None
    check_names(validate(SIX, {"saliency_backbone": "none", "proposal_backbone": "scenes_mae:random"}), "others")


def test_mistakes_in_parts_and_networks_are_told_once(tmp_path, monkeypatch):
    def lines(**values):
        with pytest.raises(ParameterError) as caught:
            check_names(validate(SIX, values), "here")
        return str(caught.value).count("no split") + str(caught.value).count("unknown backbone")

    assert lines(train_on=["single_tran"]) == lines(backbone="dino_vits17", describer="", instances={}) == 1
    assert lines(describer="scenes_objets") == 1
    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path))
    study = tmp_path / "s.yaml"
    study.write_text("title: T\nnotebooks:\n  06_segmenter_training: {semantic: [], train_on: ['voc12:seg_train']}\n")
    assert not missing(load_study(str(study)))  # never read


def test_objects_are_described_as_in_notebook_04():
    four = validate("04_clustering", {})
    six = validate(SIX, {})
    assert six.describer == four.describer and six.saliency == four.saliency[four.source]
    assert six.description == {name: getattr(four, name) for name in six.description}
    assert {"recipe", "descriptor", "side", "facet", "background"} == six.description.keys()


def test_the_weights_that_segmenters_start_from_are_needed(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path))
    labels = {"scenes_odin", "scenes_saliency", "scenes_objects"}
    assert set(embedded_weights(validate(SIX, {}))) == labels | {"scenes_mae"}
    assert set(embedded_weights(validate(SIX, {"instances": {}}))) == labels
    assert set(embedded_weights(validate(SIX, {"saliency_backbone": "none"}))) == labels
    plain = {"saliency": {"source": "lost"}, "describer": "", "semantic": [{"weights": "scenes_mae"}], "instances": {}}
    assert set(embedded_weights(validate(SIX, plain))) == {"scenes_odin", "scenes_mae"}
    others = {"semantic": [], "instances": {"weights": "scenes_mae"}, "proposal_backbone": "scenes_odin:random"}
    assert set(embedded_weights(validate(SIX, others))) == {"scenes_odin", "scenes_mae"}
    file = validate(SIX, {"instances": {"weights": "gone.safetensors"}, "semantic": []})
    assert file.files() == ["gone.safetensors"]


def test_what_is_missing_for_the_papers_studies_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path))
    told = "\n".join(need.what for need in missing(load_study("comus_voc12_self_training")))
    for part in ("the dataset 'voc12'", "the training images: VOC2012", "the images that are measured as well: VOC2007",
                 "the images that are measured as well: ", "the weights of the saliency network basnet_unsupervised",
                 "the weights of dino_vits8", "the weights of dino_resnet50"):  # fmt: skip
        assert part in told
    told = "\n".join(need.what for need in missing(load_study("instanceness_segmenters")))
    for part in (
        "image_info_unlabeled2017.json",
        "the weights of densecl_resnet101",
        "the weights of mae_vitb16",
        "UVO",
    ):
        assert part in told


def test_checkpoints_given_as_paths_are_missed(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path))
    study, sal = tmp_path / "mine.yaml", "{source: network, weights: sal.safetensors}"
    study.write_text(f"title: T\nnotebooks:\n  {SIX}: {{saliency: {sal}, instances: {{weights: gone.safetensors}}}}\n")
    needs = {need.what: need.remedy for need in missing(load_study(str(study)))}
    assert "the segmenter's weights" in needs["the checkpoint gone.safetensors"]
    assert "saliency" in needs["the checkpoint sal.safetensors"]
