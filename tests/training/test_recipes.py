"""Recipes: every file is legal, what a notebook changes wins, what is wrong is named with its file."""

import pytest

from foundling.errors import ParameterError
from foundling.training.contrast_settings import ContrastOnSources
from foundling.training.detection.settings import Detector
from foundling.training.instance.settings import SEGMENTERS
from foundling.training.recipes import RECIPES, recipe, recipe_names
from foundling.training.refinement.settings import Refinement
from foundling.training.saliency_settings import SaliencyOnSources
from foundling.training.semantic.settings import Semantic
from foundling.training.settings import OBJECTIVES

MASKS = {"saliency": SaliencyOnSources, "contrast": ContrastOnSources}
SINGLE = {"detector": Detector, "semantic": Semantic, "refinement": Refinement}
EVERY = {**OBJECTIVES, **SINGLE, **SEGMENTERS, **MASKS}


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_is_legal(name):
    settings = recipe({"settings": name}, "test", EVERY)
    assert settings.warmup < settings.steps
    assert all(step < settings.steps for step in settings.export_at)


def test_there_are_recipes_for_what_the_studies_train():
    assert {"odin_short", "scenes_odin", "scenes_mae", "scenes_dino", "odin_resnet50", "odin_vitb8"} <= set(
        recipe_names()
    )


def test_what_is_given_takes_the_place_of_the_file():
    file, changed = (
        recipe({"settings": "odin_short"}, "x"),
        recipe({"settings": "odin_short", "steps": 77, "masks": 4}, "x"),
    )
    assert (changed.steps, changed.masks) == (77, 4)
    assert changed.model_copy(update={"steps": file.steps, "masks": file.masks}) == file


def test_without_a_file_the_rest_is_default():
    settings = recipe({"objective": "mae", "steps": 500}, "x")
    assert (settings.objective, settings.steps, settings.batch) == ("mae", 500, 24)


def test_only_the_objectives_that_are_asked_for_are_legal():
    assert recipe({"steps": 30}, "x", {"detector": Detector}) == Detector(steps=30)
    with pytest.raises(ParameterError, match=r"cad, on odin_short\.yaml: unknown objective 'odin'\. Legal: detector"):
        recipe({"settings": "odin_short"}, "cad", {"detector": Detector})
    with pytest.raises(ParameterError, match=r"unknown objective 'detector'\. Legal: odin, dino, mae"):
        recipe({"objective": "detector"}, "x")
    with pytest.raises(ParameterError, match="cad: steps = '30' is text, not a number"):
        recipe({"steps": "30"}, "cad", {"detector": Detector})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"settings": "odin_shrot"},
            "training.a: no training settings 'odin_shrot' in studies/training: did you mean 'odin_short'",
        ),
        ({"settings": 3}, "no training settings 3"),
        (
            {"settings": "odin_short", "stepps": 3},
            "training.a, on odin_short.yaml: unknown parameter 'stepps' (value 3): did you",
        ),
        ({"settings": "odin_short", "masks": 1}, "training.a, on odin_short.yaml: masks = 1"),
        ({"settings": "scenes_mae", "masks": 5}, "unknown parameter 'masks'"),
        ({"objective": "odinn"}, "training.a: unknown objective 'odinn'"),
    ],
)
def test_what_is_wrong_is_named(given, message):
    with pytest.raises(ParameterError) as caught:
        recipe(given, "training.a")
    assert message in str(caught.value)


def test_a_file_that_is_no_mapping_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("foundling.training.recipes.RECIPES", tmp_path)
    (tmp_path / "mine.yaml").write_text("- 3\n")
    with pytest.raises(ParameterError, match=r"mine\.yaml is not a training file"):
        recipe({"settings": "mine"}, "x")
    assert RECIPES.name == "training"
