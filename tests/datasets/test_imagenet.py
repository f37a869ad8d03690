"""Folders of images, one for each class: what is listed, which classes are drawn, and what is odd or absent."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from foundling.datasets import open_dataset
from foundling.errors import DataMissing, ParameterError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Six classes of two images each, of different sizes."""
    for i in range(6):
        folder = tmp_path / "val" / f"n{i:02}"
        folder.mkdir(parents=True)
        for j in range(2):
            Image.new("RGB", (20 + i, 10 + j)).save(folder / f"{j}.JPEG")
    return tmp_path


def test_an_image_is_of_the_class_of_its_folder(root: Path) -> None:
    dataset = open_dataset("imagenet", root=root)
    assert (dataset.name, dataset.split, dataset.annotated, dataset.problems) == ("imagenet", "val", True, ())
    assert dataset.categories == tuple(f"n{i:02}" for i in range(6)) and len(dataset) == 12
    assert dataset[3].name == "n01/1.JPEG" and [sample.image_id for sample in dataset] == list(range(1, 13))
    target = dataset[3].target
    assert target is not None and target.labels.tolist() == [1] and target.masks is None
    np.testing.assert_array_equal(target.boxes, [[0, 0, 21, 11]])


def test_classes_are_drawn_and_numbered_anew(root: Path) -> None:
    few, more, other = (open_dataset("imagenet", root=root, classes=n, seed=s) for n, s in ((2, 0), (4, 0), (4, 3)))
    assert set(few.categories) < set(more.categories) != set(other.categories)
    for dataset in (few, more):
        assert list(dataset.categories) == sorted(dataset.categories) and len(dataset) == 2 * len(dataset.categories)
        for sample in dataset:
            assert sample.target is not None
            assert sample.name.startswith(dataset.categories[int(sample.target.labels[0])])
    with pytest.raises(ParameterError, match=r"classes=7: .* has 6; choose at most so many, or 0 for all"):
        open_dataset("imagenet", root=root, classes=7)


def test_what_cannot_be_used_is_named(root: Path) -> None:
    (root / "val/n00/0.JPEG").write_bytes(b"no image")
    for file in (root / "val/n01").iterdir():
        file.unlink()
    dataset = open_dataset("imagenet", root=root)
    assert len(dataset) == 9 and len(dataset.categories) == 6
    text = "\n".join(dataset.problems)
    assert "1 × image that cannot be read (dropped): " in text and "0.JPEG" in text
    assert "1 × class without an image: n01" in text


def test_what_is_not_there(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataMissing, match=r"train: no folder with a folder of images for each class; get it by hand"):
        open_dataset("imagenet", "train", root=root)
    (tmp_path / "empty/val/a").mkdir(parents=True)
    with pytest.raises(DataMissing, match="no image in the folders of 1 classes"):
        open_dataset("imagenet", root=tmp_path / "empty")
