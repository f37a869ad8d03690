"""The parameters of notebook 04: sources of saliency, descriptions, clusters."""

import pytest

from foundling.errors import ParameterError
from foundling.needs import embedded_weights, missing
from foundling.parameters import check_names, validate
from foundling.studies import load_study

FOUR = "04_clustering"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"saliency": {}}, "saliency = {}, of type dict, is not legal"),
        ({"saliency": {"A b": {}}}, "saliency: label 'A b' names metrics: use lower-case letters, digits and _"),
        ({"saliency": {"lost": {"source": 3}}}, "saliency.lost needs 'source': the name of a source"),
        ({"source": "basnet"}, "source is 'basnet': choose a label of saliency (spectral, dino_seg, lost, tokencut, "),
        ({"saliency": {"network": {}}, "source": "network"}, "saliency.network is a network: give its 'weights', or"),
        ({"saliency": {"a": {"source": "network", "weights": 3}}, "source": "a"}, "saliency.a.weights is no text"),
        ({"seeds": [1]}, "seeds = [1], of type list, is not legal"),
        ({"seeds": [1, 1]}, "seeds is [1, 1]: give each once"),
        ({"share": 0.0}, "share = 0.0, of type float, is not legal"),
        ({"clusters": 255}, "clusters = 255, of type int, is not legal"),
        ({"describer": 3}, "describer = 3, of type int, is not legal"),
        ({"descriptor": "colour"}, "descriptor = 'colour', of type str, is not legal: it should be 'cls', 'mean' or"),
        ({"classes": 5}, "classes goes with the dataset 'imagenet', not with 'scenes'"),
        ({"region": "box"}, "background is 'mean' with region 'box'"),
        ({"compare_backbones": ["scenes_mae"]}, "compare_backbones = ['scenes_mae'], of type list, is not legal"),
    ],
)
def test_what_is_wrong_is_named(values, message):
    with pytest.raises(ParameterError) as caught:
        validate(FOUR, values)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"saliency": {"lost": {"k": 0.5}}, "source": "lost"}, "saliency.lost: k = 0.5"),
        ({"saliency": {"lost": {"source": "basnet"}}, "source": "lost"}, "saliency.lost: unknown method 'basnet'"),
        ({"descriptor": "cls"}, "descriptor reads cls, which the backbone 'scenes_objects' does not have"),
        ({"describer": "nobody"}, "describer: unknown backbone 'nobody'"),
        (
            {"backbone": "dino_resnet50", "saliency": {"lost": {"facet": "queries"}}, "source": "lost"},
            "saliency.lost reads queries, which",
        ),
    ],
)
def test_settings_are_held_against_the_methods_and_the_network(values, message):
    with pytest.raises(ParameterError) as caught:
        check_names(validate(FOUR, values), "here")
    assert message in str(caught.value)


def test_sources_are_methods_of_discovery():
    given = validate(FOUR, {"saliency": {"lost": {"k": 3}, "cut": {"source": "spectral"}, "network": {}},
                            "saliency_network": "basnet_unsupervised"})  # fmt: skip
    assert given.sources() == {"lost": {"method": "lost", "k": 3}, "cut": {"method": "saliency"}}
    check_names(given, "here")
    check_names(validate(FOUR, {}), "defaults")


def test_every_network_has_its_weights(tmp_path):
    there = tmp_path / "net.safetensors"
    there.touch()
    sources = {"lost": {"k": 3}, "network": {"scale": "batch"}, "mine": {"source": "network", "weights": str(there)}}
    given = validate(FOUR, {"saliency": sources, "saliency_network": "basnet_unsupervised"})
    assert given.saliency_networks() == ["network", "mine"]
    assert given.saliency_settings() == {
        "lost": {"k": 3},
        "network": {"scale": "batch", "weights": "basnet_unsupervised"},
        "mine": {"source": "network", "weights": str(there)},
    }


def test_an_absent_saliency_network_is_told_before_the_run(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path))
    whats = [need.what for need in missing(load_study("comus_voc12"))]
    for name in ("basnet_unsupervised", "basnet_supervised"):
        assert f"the weights of the saliency network {name}" in whats
    file = tmp_path / "mine.yaml"
    file.write_text(
        "title: T\nnotebooks:\n"
        "  04_clustering: {saliency_network: gone.safetensors, saliency: {lost: {}, network: {}}}\n"
    )
    whats = [need.what for need in missing(load_study(str(file)))]
    assert "the checkpoint gone.safetensors of saliency.network" in whats


def test_the_embedded_weights_of_both_networks_and_of_saliency_are_named():
    assert set(embedded_weights(validate(FOUR, {}))) == {"scenes_odin", "scenes_objects", "scenes_saliency"}
    lost = {"saliency": {"lost": {"source": "lost"}}, "source": "lost", "describer": ""}
    assert set(embedded_weights(validate(FOUR, lost))) == {"scenes_odin"}
    given = {"saliency": {"source": "network", "weights": "scenes_saliency"}, "instances": {}}
    used = {"scenes_odin", "scenes_objects", "scenes_saliency"}
    assert set(embedded_weights(validate("06_segmenter_training", given))) == used
