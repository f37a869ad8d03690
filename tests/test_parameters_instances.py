"""The parameters of notebook 03: partitions, and what becomes a proposal."""

import pytest

from foundling.errors import ParameterError
from foundling.parameters import check_names, validate

THREE = "03_instanceness"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ks": []}, "ks = [], of type list, is not legal"),
        ({"ks": [1, 2]}, "ks.0 = 1, of type int, is not legal: it should be greater than or equal to 2"),
        ({"ks": [3, 2]}, "ks is [3, 2]: give each k once, the smallest first"),
        ({"ks": [2, 2, 3]}, "ks is [2, 2, 3]: give each k once"),
        ({"ks": [2, 4]}, "proposal_ks asks for k = 3, which is not among ks ([2, 4]): add it there"),
        ({"facet": "cls"}, "facet = 'cls', of type str, is not legal: it should be 'keys', 'queries', 'values' or"),
        ({"intersection": 1.5}, "intersection = 1.5, of type float, is not legal"),
        ({"nms": -0.1}, "nms = -0.1, of type float, is not legal"),
        ({"split_parts": 1}, "split_parts = 1, of type int, is not legal: it should be a valid boolean"),
        (
            {"weights": "runs/mine.pth", "compare_backbones": ["scenes_odin"]},
            "compare_backbones has 'scenes_odin', the name of the run's own backbone, whose weights are 'runs/mine",
        ),
        (
            {"saliency_backbone": "dino_vitb16"},
            "saliency_backbone is 'dino_vitb16': choose a network of this run (scenes_odin, scenes_mae, "
            "scenes_odin:random), or empty",
        ),
    ],
)
def test_what_is_wrong_is_named(values, message):
    with pytest.raises(ParameterError) as caught:
        validate(THREE, values)
    assert message in str(caught.value)


def test_the_networks_of_proposals_may_be_any_of_the_run():
    chosen = {
        "compare_backbones": ["scenes_mae"],
        "proposal_backbone": "scenes_mae",
        "saliency_backbone": "scenes_odin",
    }
    assert validate(THREE, chosen).networks() == [("scenes_odin", "pretrained"), ("scenes_mae", "pretrained")]


def test_every_network_must_have_the_facet():
    given = validate(THREE, {"facet": "queries", "compare_backbones": ["densecl_resnet101", "dino_vitb16"]})
    with pytest.raises(ParameterError) as caught:
        check_names(given, "here")
    assert str(caught.value) == (
        "here: facet is 'queries', which densecl_resnet101 does not have: choose one of keys, tokens"
    )
    check_names(validate(THREE, {"facet": "tokens", "compare_backbones": ["densecl_resnet101"]}), "here")
