"""The baselines that look at no features."""

import sys
from typing import Any

import numpy as np
import pytest
from oracles import make_features
from PIL import Image

from foundling.discovery import METHODS, centre_box, selective_search, whole_image
from foundling.types import ParameterError

SIZES = [(30, 50), (32, 64)]


def test_the_centre_box_has_the_images_shape() -> None:
    first, second = centre_box(make_features((2, 4), sizes=SIZES), side=0.5)
    assert first.boxes.tolist() == [[12.5, 7.5, 37.5, 22.5]]
    assert second.boxes.tolist() == [[16, 8, 48, 24]]


def test_by_default_it_covers_half_of_the_image() -> None:
    for found, (height, width) in zip(centre_box(make_features((2, 4), sizes=SIZES)), SIZES, strict=True):
        x0, y0, x1, y1 = found.boxes[0]
        np.testing.assert_allclose((x1 - x0) * (y1 - y0), height * width / 2, rtol=1e-12)
        np.testing.assert_allclose([x0 + x1, y0 + y1], [width, height], rtol=1e-12)


def test_the_whole_image_leaves_the_padding_out() -> None:
    found = whole_image(make_features((2, 4), sizes=SIZES))
    assert [d.boxes.tolist() for d in found] == [[[0, 0, 50, 30]], [[0, 0, 64, 32]]]


def test_selective_search_finds_a_square() -> None:
    pixels = np.full((60, 80, 3), 40, dtype=np.uint8)
    pixels[10:40, 20:60] = (250, 20, 20)
    features = make_features((4, 5), sizes=[(60, 80)], images=(Image.fromarray(pixels),))
    (found,) = selective_search(features)
    assert found.values["regions"] >= 2
    proposals = sys.modules["foundling.discovery.classic"].propose(pixels, "fast", 0)
    assert found.boxes[0].tolist() == proposals[0].tolist()
    assert np.abs(proposals - [20, 10, 60, 40]).max(axis=1).min() <= 2  # the square is among the regions


def test_selective_search_repeats_itself_and_keeps_red_and_blue_apart(rng: np.random.Generator) -> None:
    image = Image.fromarray(rng.integers(0, 256, (10, 12, 3), dtype=np.uint8)).resize((90, 70))
    features = make_features((5, 6), sizes=[(70, 90)] * 2, images=(image, image))
    first, second = selective_search(features)
    (again,) = selective_search(features[1])
    assert first.boxes.tolist() == second.boxes.tolist() == again.boxes.tolist()
    x0, y0, x1, y1 = first.boxes[0]
    assert 0 <= x0 < x1 <= 90
    assert 0 <= y0 < y1 <= 70
    propose = sys.modules["foundling.discovery.classic"].propose
    rankings = {str(propose(np.asarray(image), "fast", seed)[:20].tolist()) for seed in range(4)}
    assert len(rankings) > 1  # the seed is used


def test_an_image_of_one_pixel_has_no_region() -> None:
    features = make_features((1, 1), sizes=[(1, 1)], images=(Image.new("RGB", (1, 1)),))
    (found,) = selective_search(features)
    assert found.boxes.tolist() == [[0, 0, 1, 1]]
    assert found.flags in ((), ("no_region",))


@pytest.mark.parametrize(
    ("method", "given", "message"),
    [
        ("centre_box", {"side": 0}, "side is 0: give a fraction of width and height, above 0 and at most 1"),
        ("centre_box", {"side": 1.2}, "side is 1.2"),
        ("centre_box", {"side": "half"}, "side is 'half'"),
        ("selective_search", {"mode": "slow"}, "mode is 'slow': choose one of fast, quality"),
        ("selective_search", {"seed": -1}, "seed is -1: give a whole number, 0 or above"),
    ],
)
def test_errors_name_the_value_and_the_choices(method: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        METHODS[method].facets(**given)


def test_selective_search_needs_the_pictures() -> None:
    with pytest.raises(ParameterError, match="facet 'images' was not extracted"):
        selective_search(make_features((2, 4), sizes=SIZES))


def test_without_opencvs_contributed_modules_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    import cv2

    monkeypatch.delattr(cv2, "ximgproc")
    with pytest.raises(ParameterError, match="pip install opencv-contrib-python-headless"):
        METHODS["selective_search"].facets()
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ParameterError, match=r"contributed modules \(cv2.ximgproc\)"):
        METHODS["selective_search"].facets()
