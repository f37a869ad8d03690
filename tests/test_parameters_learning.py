"""Parameters of notebook 08: training runs are read and checked before anything runs."""

import subprocess
import sys

import pytest

from foundling.discovery.overlap_controls import CONTROLS as OVERLAP_CONTROLS
from foundling.discovery.overlap_stream import NETWORK
from foundling.discovery.selection import colour_candidates, untrained_candidates
from foundling.errors import ParameterError
from foundling.parameters import CONTROLS, check_names, validate

EIGHT = "08_representation_learning"


def test_runs_are_settings_with_what_is_given_in_place():
    given = validate(EIGHT, {"training": {"a": {"settings": "odin_short", "steps": 50}, "b": {"objective": "mae"}}})
    runs = given.runs()
    assert (runs["a"].objective, runs["a"].steps, runs["b"].objective) == ("odin", 50, "mae")
    assert validate(EIGHT, {"training": {}}).runs() == {}


def test_no_run_has_the_name_of_a_control():
    """The names are those of what measures; the parameters hold them once more, since they are read without torch."""
    boxes = colour_candidates((1,), (0.2,)) | untrained_candidates((1,), ("keys",), (0.2,))
    names = {label.partition(".")[2] for label in boxes} | set(OVERLAP_CONTROLS) | {NETWORK, "still"}
    assert names == set(CONTROLS)
    for name in names:
        with pytest.raises(ParameterError, match=f"training: label '{name}' names metrics"):
            validate(EIGHT, {"training": {name: {}}})


def test_its_own_untrained_weights_are_not_compared_twice():
    given = validate(EIGHT, {"compare_backbones": ["scenes_odin:random", "dino_vits16", "dino_vits16:random"]})
    assert given.compared() == ["dino_vits16", "dino_vits16:random"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"training": {"a": {"settings": "odin_shrot"}}}, "training.a: no training settings 'odin_shrot'"),
        ({"training": {"a": {"settings": "odin_short", "maskss": 3}}}, "unknown parameter 'maskss' (value 3): did you"),
        ({"training": {"a": {"steps": 5}}}, "training.a: warmup = 150 must be less than steps = 5"),
        ({"training": {"A b": {}}}, "training: label 'A b' names metrics: use lower-case letters, digits and _"),
        ({"training": {"random": {}}}, "training: label 'random' names metrics"),
        ({"training": {"scenes_odin": {}}}, "no name of a backbone or control of this notebook"),
        ({"training": [1]}, "training = [1], of type list, is not legal"),
        ({"train_minutes": -1.0}, "train_minutes = -1.0"),
        ({"train_minutes": float("inf")}, "train_minutes = inf"),
        ({"lost_ks": [0]}, "lost_ks.0 = 0"),
        ({"lost_facets": []}, "lost_facets = []"),
        ({"lost_facets": ["key"]}, "lost_facets.0 = 'key', of type str, is not legal: it should be 'keys', 'queries',"),
        ({"taus": [1.5]}, "taus.0 = 1.5"),
        ({"overlap_ks": [1, 0]}, "overlap_ks.1 = 0"),
        ({"choose_limit": 0}, "choose_limit = 0"),
    ],
)
def test_what_is_wrong_is_named(values, message):
    with pytest.raises(ParameterError) as caught:
        validate(EIGHT, values, "studies/x.yaml")
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"studies/x.yaml, notebook {EIGHT}: ")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"videos": "daviss"}, "unknown videos 'daviss': did you mean 'davis'"),
        (
            {"training": {"a": {"dataset": "scene", "images": 50}}},
            "training.a: unknown dataset 'scene': did you mean 'scenes'",
        ),
        (
            {"training": {"a": {"architecture": "swin_tiny_patch4_window7_224"}}},
            "is none that the notebook can look into",
        ),
        ({"training": {"a": {"architecture": "vit_tny"}}}, "training.a: architecture 'vit_tny' is none"),
        (
            {"backbone": "dino_resnet50", "lost_facets": ["queries"]},
            "lost_facets: dino_resnet50 has no queries: choose among keys, tokens",
        ),
    ],
)
def test_names_of_registries(values, message):
    with pytest.raises(ParameterError) as caught:
        check_names(validate(EIGHT, values), "x")
    assert message in str(caught.value)


def test_checking_imports_no_torch():
    code = (
        "import sys; from foundling.parameters import validate; validate('08_representation_learning', {}).runs(); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
