"""The first images that a network can take: broken and over-large ones are passed over and named."""

import pytest
from PIL import Image

from foundling.backbones import first_described, load_backbone
from foundling.datasets import open_dataset
from foundling.errors import ImageError


@pytest.fixture(scope="module")
def backbone():
    return load_backbone("scenes_odin", weights="random", device="cpu")


def test_broken_and_over_large_images_are_passed_over(backbone, tmp_path):
    (tmp_path / "a.png").touch()
    Image.new("RGB", (64, 64)).save(tmp_path / "b.png")
    for name in ("c", "d", "e"):
        Image.new("RGB", (16, 8), "red").save(tmp_path / f"{name}.png")
    failures = []
    options = {"facets": ("keys", "images"), "max_patches": 10}
    found = first_described(backbone, open_dataset("folder", root=tmp_path), 2, failures, **options)
    assert [sample.name for sample, _ in found] == ["c.png", "d.png"]
    assert all(one.grid == (1, 2) and one.names == (sample.name,) for sample, one in found)
    assert [(failure.name, failure.index) for failure in failures] == [("a.png", 0), ("b.png", 1)]
    assert "64 patches" in failures[1].error


def test_not_one_usable_image_is_an_error_that_says_why(backbone, tmp_path):
    (tmp_path / "only.png").write_text("no picture")
    with pytest.raises(ImageError, match=r"not one image can be used.*only\.png"):
        first_described(backbone, open_dataset("folder", root=tmp_path), 3, [])
