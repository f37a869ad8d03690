"""The settings of a training run: defaults, and what is said of wrong ones."""

from typing import Any

import pytest

from foundling.errors import ParameterError
from foundling.training.settings import OBJECTIVES, Common, Odin, settings_from


def test_every_setting_says_what_it_is() -> None:
    for model in OBJECTIVES.values():
        lacking = [name for name, field in model.model_fields.items() if not field.description]
        assert not lacking, model


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_defaults_describe_the_embedded_network(objective: str) -> None:
    settings = settings_from({"objective": objective}, "a.yaml")
    assert type(settings) is OBJECTIVES[objective]
    assert settings.architecture == "vit_tiny_patch16_224"
    assert settings.options == {"img_size": 96, "patch_size": 8, "embed_dim": 192, "depth": 4, "num_heads": 3}
    assert settings.dataset == "scenes"


def test_the_objective_is_odin_unless_named() -> None:
    assert isinstance(settings_from({"steps": 200}, "a.yaml"), Odin)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"objective": "odim"}, r"^a\.yaml: unknown objective 'odim': did you mean 'odin'\? Legal: odin, dino, mae$"),
        ({"objective": ["odin"]}, r"unknown objective"),
        ({"learning_rate": "1e-3"}, r"learning_rate = '1e-3' is text, not a number: YAML wants .* as in 1\.0e-3"),
        ({"stepz": 3}, r"unknown parameter 'stepz' \(value 3\): did you mean 'steps'\?"),
        ({"batch": 1}, r"batch = 1, .*greater than or equal to 2 \(images a step over all devices"),
        ({"batch": True}, r"batch = True, of type bool, is not legal"),
        ({"alpha": float("nan")}, r"alpha = nan.*finite"),
        ({"warmup": 300, "steps": 300}, r"warmup = 300 must be less than steps = 300"),
        ({"batch": 64, "images": 20}, r"batch = 64 is more than images = 20: an epoch needs a step"),
        ({"dataset": "folder"}, r"dataset 'folder' needs root"),
        ({"split": "single_train"}, r"dataset 'scenes' takes neither split nor root"),
        ({"images": 0}, r"dataset 'scenes' has no end: images must be 1 or more"),
        ({"objective": "mae", "masks": 3}, r"unknown parameter 'masks'"),
        ({"objective": "mae", "decoder_width": 10, "decoder_heads": 3}, r"decoder_width = 10 must be a multiple of"),
        ({"objective": "dino", "local_min_area": 0.5}, r"local_min_area = 0\.5 must be at most global_min_area = 0\.4"),
        ({"options": {"img_size": None}}, r"options.*img_size"),
    ],
)
def test_a_wrong_setting_is_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        settings_from(values, "a.yaml")


def test_settings_survive_being_written_down() -> None:
    settings = settings_from({"objective": "dino", "export_at": [3, 5]}, "a.yaml")
    assert settings_from(settings.model_dump(), "b.yaml") == settings
    assert set(Common.model_fields) < set(settings.model_dump())
