"""Settings chosen on training images: the best by counting hits, the first of equals, or the first untried."""

import numpy as np
import pytest
from PIL import Image

from foundling.backbones import load_backbone
from foundling.datasets import open_dataset
from foundling.discovery import METHODS, discover_images
from foundling.discovery.selection import (
    choose_settings,
    colour_candidates,
    grid,
    network_candidates,
    training_samples,
    untrained_candidates,
)
from foundling.errors import ParameterError
from foundling.evaluation import iou
from foundling.types import Sample, Target

BOXES = [(8, 8, 24, 24), (20, 4, 44, 28), (4, 20, 20, 44), (24, 24, 40, 40), (0, 0, 40, 40)]


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("scenes_odin", weights="random", device="cpu")


@pytest.fixture
def samples(tmp_path, rng):
    """Squares of one colour on noise, annotated."""
    made = []
    for i, (x0, y0, x1, y1) in enumerate(BOXES):
        pixels = rng.integers(0, 90, (48, 48, 3), dtype=np.uint8)
        pixels[y0:y1, x0:x1] = (250, 200, 20 * i)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
        box = np.array([[x0, y0, x1, y1]], dtype=np.float64)
        no = np.zeros(1, dtype=bool)
        target = Target(boxes=box, labels=np.zeros(1, dtype=np.int64), difficult=no, truncated=no, crowd=no)
        made.append(Sample(f"{i}.png", tmp_path / f"{i}.png", i + 1, target))
    return made


def hits_one_by_one(backbone, samples, settings) -> float:
    """CorLoc from the definition: every image by itself, the best box of a fresh run."""
    hits = 0
    for sample in samples:
        (box,) = discover_images(backbone, [sample], {"it": settings}, progress=False).boxes["it"]
        hits += iou(box[None], sample.target.boxes).max() >= 0.5
    return 100 * hits / len(samples)


def test_all_combinations_the_last_setting_moving_fastest():
    assert grid("lost", centre=(False, True), k=(1, 5)) == [
        {"method": "lost", "centre": False, "k": 1},
        {"method": "lost", "centre": False, "k": 5},
        {"method": "lost", "centre": True, "k": 1},
        {"method": "lost", "centre": True, "k": 5},
    ]


def test_the_choice_is_the_best_by_counting_and_all_that_was_tried_is_told(backbone, samples):
    candidates = {
        "corloc.colour": grid("colour_lost", centre=(False, True), k=(1, 4, 30)),
        "box": grid("centre_box", side=(0.2, 0.5, 0.8)),
    }
    chosen = choose_settings(backbone, samples, candidates, progress=False)
    for label, some in candidates.items():
        expected = [hits_one_by_one(backbone, samples, settings) for settings in some]
        assert [value for _, value in chosen[label].tried] == pytest.approx(expected)
        assert [settings for settings, _ in chosen[label].tried] == some
        assert chosen[label].settings == some[int(np.argmax(expected))]  # the first of equals
        assert chosen[label].corloc == pytest.approx(max(expected))
    assert max(value for _, value in chosen["corloc.colour"].tried) > 50  # there was something to choose
    assert len({value for _, value in chosen["corloc.colour"].tried}) > 1


def test_of_equals_the_first(backbone, samples):
    same = [{"method": "whole_image"}, {"method": "centre_box", "side": 1.0}]
    assert choose_settings(backbone, samples, {"a": same, "b": same[::-1]}, progress=False)["b"].settings == same[1]


def test_without_images_or_alternatives_it_is_the_first_untried(backbone, samples):
    two = grid("lost", k=(3, 4))
    assert choose_settings(backbone, [], {"x": two}) == {"x": (two[0], None, ((two[0], None), (two[1], None)))}
    assert choose_settings(backbone, samples, {"x": two[:1]})["x"] == (two[0], None, ((two[0], None),))


def test_labels_tell_networks_and_controls_apart():
    network = network_candidates("net", (1, 5), ("keys", "tokens"), (0.2,))
    assert {label: len(some) for label, some in network.items()} == {"corloc.net": 8, "tokencut.net": 2}
    assert set(untrained_candidates((1,), ("keys",), (0.2,))) == {
        f"{metric}.random{centred}" for metric in ("corloc", "tokencut") for centred in ("", "_centred")
    }
    colours = colour_candidates((1, 5), (0.2, 0.4))
    assert {"corloc.centre_box", "corloc.colour_mean", "tokencut.colour_deviation_centred"} <= set(colours)
    assert len(colours) == 11
    assert not colour_candidates((), ())
    assert set(network_candidates("net", (), ("keys",), (0.2,))) == {"tokencut.net"}
    raw, centred = (colours[f"corloc.colour_mean{end}"][0] for end in ("", "_centred"))
    assert (raw["centre"], centred["centre"], raw["deviation"]) == (False, True, False)
    scaled = {"deviation": True, "centre": True, "space": "lab", "scale": True}
    assert colours["corloc.colour_scaled"] == [{"method": "colour_lost", **scaled, "k": k} for k in (1, 5)]
    assert colours["tokencut.colour_scaled"] == [{"method": "colour_tokencut", **scaled, "tau": t} for t in (0.2, 0.4)]


def test_every_candidate_is_legal_for_its_method():
    everything = {**network_candidates("n", (1, 7), ("keys", "tokens"), (0.0, 0.2)), **colour_candidates((1,), (0.1,))}
    for some in everything.values():
        for settings in some:
            name = settings["method"]
            METHODS[name].facets(**{**METHODS[name].defaults, **{k: v for k, v in settings.items() if k != "method"}})


def test_scenes_have_a_training_part_and_folders_have_none(tmp_path, monkeypatch):
    monkeypatch.setenv("FOUNDLING_DATA", str(tmp_path / "data"))
    part = training_samples(open_dataset("scenes", "single_val", size=96, count=2), 3, size=96)
    assert [sample.name for sample in part] == [
        sample.name for sample in open_dataset("scenes", "single_train", size=96, count=3)
    ]
    Image.new("RGB", (16, 16)).save(tmp_path / "a.png")
    assert training_samples(open_dataset("folder", root=tmp_path), 3) == ()


def test_images_without_objects_cannot_choose(backbone, samples):
    bare = [Sample(s.name, s.path, s.image_id) for s in samples]
    with pytest.raises(ParameterError, match="cannot be chosen on images without annotated objects"):
        choose_settings(backbone, bare, {"x": grid("lost", k=(1, 2))}, progress=False)


def test_a_label_without_candidates_is_named(backbone, samples):
    with pytest.raises(ParameterError, match=r"no settings to choose from for 'corloc\.x'"):
        choose_settings(backbone, samples, {"corloc.x": []})
