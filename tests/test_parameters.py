"""Parameters are checked before anything runs, and the message says which one, why, and what would be right."""

import ast
import subprocess
import sys

import pytest

from foundling.errors import ParameterError
from foundling.parameters import (
    METHODS,
    NOTEBOOKS,
    check_methods,
    check_names,
    dataset_options,
    split_backbone,
    suggest,
    validate,
)
from foundling.paths import NOTEBOOKS as NOTEBOOK_FOLDER
from foundling.paths import ROOT

TWO = "02_single_object_discovery"


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_parameters_cell_of_each_notebook_equals_its_model(notebook):
    import nbformat

    content = nbformat.read(NOTEBOOK_FOLDER / f"{notebook}.ipynb", as_version=4)
    (cell,) = [cell for cell in content.cells if "parameters" in cell.metadata.get("tags", [])]
    values = {node.targets[0].id: ast.literal_eval(node.value) for node in ast.parse(cell.source).body}
    defaults = validate(notebook, {}).model_dump()
    assert values == defaults
    assert {name: type(value) for name, value in values.items()} == {n: type(v) for n, v in defaults.items()}


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_every_parameter_of_the_cell_has_a_comment(notebook):
    import nbformat

    content = nbformat.read(NOTEBOOK_FOLDER / f"{notebook}.ipynb", as_version=4)
    (cell,) = [cell for cell in content.cells if "parameters" in cell.metadata.get("tags", [])]
    lines = cell.source.splitlines()
    for node in ast.parse(cell.source).body:
        around = " ".join(lines[max(0, node.lineno - 2) : node.end_lineno])
        assert "#" in around, f"{node.targets[0].id} has no comment"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_sise": 8}, "unknown parameter 'batch_sise' (value 8): did you mean 'batch_size'? Legal: study, out,"),
        ({"batch_size": "8"}, "batch_size = '8', of type str, is not legal: it should be a valid integer (images the"),
        ({"batch_size": 0}, "batch_size = 0, of type int, is not legal: it should be greater than or equal to 1"),
        ({"limit": True}, "limit = True, of type bool, is not legal: it should be a valid integer"),
        ({"limit": 2.0}, "limit = 2.0, of type float, is not legal: it should be a valid integer"),
        ({"precision": "fp8"}, "precision = 'fp8', of type str, is not legal: it should be 'fp32', 'bf16' or 'fp16'"),
        ({"device": "gpu"}, "(auto, cpu, cuda, cuda:N or mps)"),
        ({"size": 95}, "greater than or equal to 96"),
        ({"seed": 2**32}, "less than 4294967296"),
        ({"backbone": None}, "backbone = None, of type NoneType, is not legal: it should be a valid string"),
        ({"compare_backbones": "dino_vits16"}, "compare_backbones = 'dino_vits16', of type str, is not legal"),
        ({"compare_backbones": ["a", "b c"]}, "compare_backbones.1 = 'b c', of type str"),
        ({"study": "a/b"}, "study = 'a/b', of type str, is not legal: it should match pattern"),
        ({"dataset": "folder"}, "dataset 'folder' needs root"),
        ({"dataset": "coco", "root": "x"}, "needs root (the images) and annotations"),
        ({"annotations": "a.json"}, "annotations goes with the dataset 'coco', not with 'scenes'"),
        ({"lost_ks": [1, 0]}, "lost_ks.1 = 0, of type int, is not legal: it should be greater than or equal to 1"),
        ({"methods": {}}, "methods needs the label 'lost' with 'method': 'lost'"),
        ({"methods": {**METHODS, "Lost 2": {"method": "lost"}}}, "label 'Lost 2' may hold lower-case letters"),
        ({"methods": {**METHODS, "mine": {"k": 3}}}, "methods.mine needs 'method'"),
    ],
)
def test_what_is_wrong_is_named_with_its_value_type_and_legal_values(values, message):
    with pytest.raises(ParameterError) as caught:
        validate(TWO, values, "studies/x.yaml")
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"studies/x.yaml, notebook {TWO}: ")


def test_every_problem_is_listed_at_once():
    with pytest.raises(ParameterError) as caught:
        validate("01_features", {"limit": "3", "seeed": 1, "max_side": -1})
    assert [line.split(": ")[1].split(" ")[0] for line in str(caught.value).splitlines()] == [
        "limit",
        "max_side",
        "unknown",
    ]


def test_unknown_notebook_suggests_the_nearest():
    with pytest.raises(ParameterError, match="unknown notebook '01_feature': did you mean '01_features'"):
        validate("01_feature", {})


def test_a_parameter_of_another_notebook_is_unknown():
    with pytest.raises(ParameterError, match="unknown parameter 'gallery'"):
        validate("01_features", {"gallery": 3})


def test_legal_values_are_kept_and_the_rest_is_default():
    given = validate(TWO, {"limit": 0, "lost_ks": [2, 5]})
    assert (given.limit, given.lost_ks, given.backbone) == (0, [2, 5], "scenes_odin")
    assert given.sweep() == {
        "lost_k2": {"method": "lost", "k": 2, "facet": "keys", "centre": True},
        "lost_k5": {"method": "lost", "k": 5, "facet": "keys", "centre": True},
    }


def test_a_dataset_of_coco_that_is_downloaded_needs_no_root():
    assert validate(TWO, {"dataset": "coco", "split": "val2017"}).root == ""


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ({"lost": {"kk": 3}}, r"methods\.lost: unknown parameter 'kk' \(value 3\)"),
        ({"lost": {"facett": "keys"}}, "did you mean 'facet'"),
        ({"lost": {"k": "3"}}, r"methods\.lost: k = '3', of type str, is not legal: it should be a valid integer"),
        ({"lost": {"k": True}}, "k = True, of type bool"),
        ({"lost": {"k": 0}}, r"methods\.lost: .*k.* 0"),
        ({"lost": {"facet": "kyes"}}, "'kyes'"),
        ({"mine": {"method": "losst"}}, r"methods\.mine: unknown method 'losst': did you mean 'lost'"),
        ({"tokencut": {"tau": float("nan")}}, "tau = nan, of type float, is not legal: it should be a finite number$"),
        ({"tokencut": {"tau": True}}, "tau = True, of type bool, is not legal: it should be a valid number$"),
        ({"tokencut": {"tau": 2}}, r"methods\.tokencut: tau is 2.*between -1 and 1"),
        ({"dino_seg": {"head": 1.5}}, r"head = 1\.5, .* it should be a valid integer or a valid string$"),
        ({"dino_seg": {"rule": "biggest"}}, "'biggest'"),
        ({"whole_image": {"side": 1}}, "unknown parameter 'side'"),
    ],
)
def test_settings_of_methods_are_held_against_their_signatures(methods, message):
    with pytest.raises(ParameterError, match=message):
        check_methods(methods, "studies/x.yaml")


def test_default_methods_and_an_int_for_a_float_are_legal():
    check_methods({**METHODS, "cut": {"method": "tokencut", "tau": 0}}, "defaults")


def test_names_that_registries_hold_are_checked_together():
    wrong = validate(
        TWO, {"dataset": "sceness", "backbone": "dino_vits61", "methods": {**METHODS, "x": {"method": "y"}}}
    )
    with pytest.raises(ParameterError) as caught:
        check_names(wrong, "studies/x.yaml")
    message = str(caught.value)
    assert "unknown dataset 'sceness': did you mean 'scenes'" in message
    assert "unknown backbone 'dino_vits61': did you mean 'dino_vits16'" in message
    assert "methods.x: unknown method 'y'" in message


def without_attention(**changes):
    """The default methods but for dino_seg, which a network without attention cannot serve."""
    return {**{label: settings for label, settings in METHODS.items() if label != "dino_seg"}, **changes}


@pytest.mark.parametrize("backbone", ["dino_resnet50", "supervised_vgg16", "selfpatch_vits16"])
def test_a_backbone_without_attention_goes_without_dino_seg(backbone):
    check_names(validate(TWO, {"backbone": backbone, "methods": without_attention()}), "x")
    with pytest.raises(ParameterError) as caught:
        check_names(validate(TWO, {"backbone": backbone}), "x")
    (line,) = str(caught.value).splitlines()
    assert line.startswith(
        f"x: methods.dino_seg reads attention, which the backbone {backbone!r} does not have (it has "
    )
    assert "): remove the label 'dino_seg' from methods, or choose another backbone" in line


def test_a_backbone_with_attention_needs_dino_seg():
    with pytest.raises(ParameterError, match=r"x: methods needs the label 'dino_seg' with 'method': 'dino_seg'"):
        check_names(validate(TWO, {"methods": without_attention()}), "x")
    with pytest.raises(ParameterError, match="methods needs the label 'dino_seg' with 'method': 'dino_seg'"):
        validate(TWO, {"methods": without_attention(dino_seg={"method": "lost"})})


def test_every_label_is_held_against_what_the_backbone_has():
    methods = without_attention(lost={"method": "lost", "facet": "queries"}, head4={"method": "dino_seg", "head": 4})
    with pytest.raises(ParameterError) as caught:
        check_names(validate(TWO, {"backbone": "dino_resnet50", "methods": methods}), "x")
    first, second = str(caught.value).splitlines()
    assert first.startswith("x: methods.lost reads queries, which the backbone 'dino_resnet50' does not have")
    assert first.endswith("(it has keys, tokens): give it other settings, or choose another backbone")
    assert "methods.head4 reads attention" in second and "remove the label 'head4'" in second


def test_backbones_to_compare_need_what_lost_reads_and_no_more():
    compare = {"compare_backbones": ["dino_resnet50"]}
    check_names(validate(TWO, compare), "x")
    queries = {**METHODS, "lost": {"method": "lost", "facet": "queries"}}
    with pytest.raises(ParameterError, match="lost reads queries, which the backbone 'dino_resnet50' does not have"):
        check_names(validate(TWO, {**compare, "methods": queries}), "x")


TEN = "10_ablations"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"grids": {}}, "grids = {}, of type dict, is not legal"),
        ({"grids": {"Lost": {"method": "lost"}}}, "grids: label 'Lost' may hold lower-case letters"),
        ({"grids": {"lost": {"k": [1]}}}, "grids.lost needs 'method'"),
        ({"grids": {"lost": {"method": "lost", "k": []}}}, "grids.lost: k has no values"),
        ({"grids": {"lost": {"method": "lost", "k": [1, 1]}}}, "grids.lost: k has 1 twice"),
        ({"norm": "first"}, "norm = 'first', of type str, is not legal: it should be 'last', 'all' or 'none'"),
        ({"bias": 1}, "bias = 1, of type int, is not legal: it should be a valid boolean"),
        ({"compare_backbones": ["scenes_mae"]}, "compare_backbones = ['scenes_mae'], of type list, is not legal"),
        ({"proposal_ks": [[2], []]}, "proposal_ks.1 = [], of type list, is not legal"),
        ({"proposal_ks": [[2], [2]]}, "proposal_ks has [2] twice: keep one"),
        ({"saliency_backbones": ["none", "none"]}, "saliency_backbones has 'none' twice"),
    ],
)
def test_what_is_wrong_in_a_grid_is_named(values, message):
    with pytest.raises(ParameterError) as caught:
        validate(TEN, values)
    assert message in str(caught.value)


def test_every_variant_of_a_grid_is_held_against_its_method_and_the_network():
    grids = {"lost": {"method": "lost", "k": [1, "2"]}, "cut": {"method": "tokencutt"}}
    with pytest.raises(ParameterError) as caught:
        check_names(validate(TEN, {"grids": grids, "saliency_backbones": ["scenes_ma"]}), "x")
    text = str(caught.value)
    assert "x: grids.lost.k-2: k = '2', of type str" in text and "grids.cut: unknown method 'tokencutt'" in text
    with pytest.raises(
        ParameterError, match="saliency_backbones: unknown backbone 'scenes_ma': did you mean 'scenes_mae'"
    ):
        check_names(validate(TEN, {"saliency_backbones": ["scenes_ma"]}), "x")
    check_names(validate(TEN, {"saliency_backbones": ["scenes_ma"], "proposal_ks": []}), "x")
    with pytest.raises(ParameterError, match="bias and norm: dino_resnet50 is a CNN"):
        check_names(validate(TEN, {"backbone": "dino_resnet50", "bias": False}), "x")
    only = {"seg": {"method": "dino_seg"}}
    with pytest.raises(ParameterError, match=r"not one variant reads what dino_resnet50 has \(keys, tokens\)"):
        check_names(validate(TEN, {"backbone": "dino_resnet50", "grids": only}), "x")


def test_variants_that_a_network_cannot_serve_are_told_apart():
    grids = {"lost": {"method": "lost", "facet": ["queries", "keys"]}, "seg": {"method": "dino_seg"}}
    given = validate(TEN, {"backbone": "dino_resnet50", "grids": grids})
    assert given.by_grid() == {"lost": {"lost.facet-keys": {"method": "lost", "facet": "keys"}}, "seg": {}}
    assert given.served()[1] == {"lost": "dino_resnet50 has no queries", "seg": "dino_resnet50 has no attention"}


def test_proposals_change_one_step_at_a_time():
    given = validate(TEN, {"proposal_ks": [[2], [2, 3]], "saliency_backbones": ["none", "scenes_mae:random"]})
    whole = {"ks": [2, 3], "saliency": "scenes_mae:random", "split": True}
    assert given.proposal_variants() == {
        "default": whole,
        "k2": {**whole, "ks": [2]},
        "saliency_none": {**whole, "saliency": "none"},
        "not_split": {**whole, "split": False},
    }
    assert given.networks() == [("scenes_odin", "pretrained"), ("scenes_mae", "random")]


def test_a_split_is_checked_against_its_dataset():
    with pytest.raises(ParameterError, match="dataset 'voc07' has no split 'trainvall': did you mean 'trainval'"):
        check_names(validate(TWO, {"dataset": "voc07", "split": "trainvall"}), "x")


def test_dataset_options_take_relative_paths_from_the_checkout():
    own = validate(TWO, {"dataset": "folder", "root": "data/photos"})
    assert dataset_options(own) == {"split": None, "root": ROOT / "data/photos"}
    scenes = validate(TWO, {"split": "multi_val", "size": 96})
    assert dataset_options(scenes) == {"split": "multi_val", "root": None, "size": 96}


def test_further_backbones_may_be_untrained():
    assert split_backbone("scenes_odin:random") == ("scenes_odin", "random")
    assert split_backbone("dino_vits16") == ("dino_vits16", "pretrained")


def test_suggest_only_what_is_near():
    assert suggest("lots", ["lost", "tokencut"]) == ": did you mean 'lost'? Legal: lost, tokencut"
    assert suggest("zzz", ["lost", "tokencut"]) == ". Legal: lost, tokencut"


def test_checking_parameters_imports_no_torch():
    code = (
        "import sys, foundling.parameters, foundling.studies as s; s.load_study('demo'); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
