"""One door for all datasets: names, splits and options; folders of photos; subsets; the embedded scenes."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle_codec

from foundling.datasets import DATASETS, Dataset, open_dataset, read_image
from foundling.datasets.base import describe, tidy_boxes
from foundling.errors import DataMissing, ParameterError
from foundling.types import Sample


def photo(*files):
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 6)).save(file)


def test_unknown_names_splits_and_options_are_refused_with_the_legal_ones(tmp_path):
    with pytest.raises(ParameterError, match=r"unknown dataset 'voc': choose one of scenes, folder, voc07, voc12"):
        open_dataset("voc")
    with pytest.raises(ParameterError, match=r"unknown split 'val' of dataset 'scenes': choose one of single_val, "):
        open_dataset("scenes", split="val")
    with pytest.raises(ParameterError, match=r"unknown option 'sizes' of dataset 'scenes': legal are size, count"):
        open_dataset("scenes", sizes=96)
    with pytest.raises(ParameterError, match=r"unknown option 'size' of dataset 'folder': legal are none"):
        open_dataset("folder", root=tmp_path, size=96)
    with pytest.raises(ParameterError, match="dataset 'folder' needs root="):
        open_dataset("folder")


def test_every_dataset_has_a_description_and_splits():
    assert set(DATASETS) == {"scenes", "folder", "voc07", "voc12", "coco20k", "coco", "uvo", "imagenet"}
    assert all(entry.description and entry.splits for entry in DATASETS.values())
    assert "trainval_noh" in DATASETS["voc07"].splits
    assert "test_noh" in DATASETS["voc07"].splits
    assert {"seg_val", "seg_train", "seg_trainval"} < set(DATASETS["voc12"].splits)


def test_a_folder_of_photos(tmp_path):
    photo(tmp_path / "2.jpg", tmp_path / "10.jpg", tmp_path / "ñ o/1.png")
    (tmp_path / "shot.heic").touch()
    dataset = open_dataset("folder", root=tmp_path)
    assert [sample.name for sample in dataset] == ["2.jpg", "10.jpg", "ñ o/1.png"]
    assert [sample.image_id for sample in dataset] == [1, 2, 3]
    assert all(sample.orient and sample.target is None for sample in dataset)
    assert (dataset.annotated, dataset.categories, dataset.split) == (False, (), "all")
    assert len(dataset.problems) == 1
    assert "shot.heic" in dataset.problems[0]
    assert read_image(dataset[2].path).size == (8, 6)


def test_equal_names_in_different_folders_stay_apart(tmp_path):
    photo(tmp_path / "p/a/x.jpg", tmp_path / "p/b/x.jpg", tmp_path / "q/a/x.jpg")
    one = open_dataset("folder", root=tmp_path / "p")
    assert [sample.name for sample in one] == ["a/x.jpg", "b/x.jpg"]
    two = open_dataset("folder", root=[tmp_path / "p", tmp_path / "q"])
    assert [sample.name for sample in two] == ["p/a/x.jpg", "p/b/x.jpg", "q/a/x.jpg"]
    files = open_dataset("folder", root=[tmp_path / "q/a/x.jpg", tmp_path / "p/b/x.jpg", tmp_path / "p/a/x.jpg"])
    assert [sample.name for sample in files] == ["p/a/x.jpg", "p/b/x.jpg", "q/a/x.jpg"]
    assert [sample.name for sample in open_dataset("folder", root=str(tmp_path / "p/a/x.jpg"))] == ["x.jpg"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_no_text_become_text(tmp_path):
    photo(tmp_path / "a.jpg")
    os.rename(tmp_path / "a.jpg", os.path.join(os.fsencode(tmp_path), b"\xff.jpg"))  # noqa: PTH104, PTH118
    (sample,) = open_dataset("folder", root=tmp_path)
    assert sample.name.isprintable()
    assert json.dumps(sample.name, ensure_ascii=False).encode("utf-8")
    assert read_image(sample.path).size == (8, 6)


def test_a_folder_without_photos(tmp_path):
    with pytest.raises(DataMissing, match="no image file in"):
        open_dataset("folder", root=tmp_path)


def numbered(count):
    samples = tuple(Sample(f"{i}.jpg", Path(f"{i}.jpg"), i) for i in range(count))
    return Dataset("numbers", "all", samples)


def test_subsets():
    dataset = numbered(20)
    assert [sample.image_id for sample in dataset.subset(limit=3)] == [0, 1, 2]
    assert len(dataset.subset(limit=50)) == 20
    assert dataset.subset() == dataset
    drawn = [sample.image_id for sample in dataset.subset(limit=8, seed=1)]
    assert drawn == sorted(drawn)
    assert drawn == [sample.image_id for sample in dataset.subset(limit=8, seed=1)]
    assert drawn != [sample.image_id for sample in dataset.subset(limit=8, seed=2)]
    assert set(drawn) < {sample.image_id for sample in dataset.subset(limit=12, seed=1)}
    assert [sample.name for sample in dataset.subset(names=["7.jpg", "3.jpg"])] == ["3.jpg", "7.jpg"]
    assert [sample.name for sample in dataset.subset(limit=1, names=["7.jpg", "3.jpg"])] == ["3.jpg"]
    with pytest.raises(ParameterError, match="limit=0 keeps no image"):
        dataset.subset(limit=0)
    with pytest.raises(ParameterError, match=r"2 unknown image names in dataset 'numbers': 'x', 'y'; names look like"):
        dataset.subset(names=["y", "3.jpg", "x"])


def test_a_seeded_subset_is_spread_evenly():
    # 400 draws of 5 out of 20: each sample is expected 100 times, with a standard deviation of 8.7
    dataset = numbered(20)
    counts = np.zeros(20, int)
    for seed in range(400):
        counts[[sample.image_id for sample in dataset.subset(limit=5, seed=seed)]] += 1
    assert counts.sum() == 2000
    assert 60 <= counts.min() <= counts.max() <= 140


def test_problems_are_counted_and_shortened():
    lines = describe({"box lost": ["a", "b", "c", "d", "e"], "none": [], "name lost": ["x"]})
    assert lines == ("5 × box lost: a, b, c and 2 more", "1 × name lost: x")


def test_tidy_boxes():
    boxes = np.array([[-5, 2, 8, 9], [0, 0, 10.5, 5], [3, 3, 3, 9], [12, 0, 15, 5], [1, 2, 3, 4]], dtype=float)
    clipped, keep, moved = tidy_boxes(boxes, (20, 10))
    np.testing.assert_array_equal(clipped[0], [0, 2, 8, 9])
    np.testing.assert_array_equal(clipped[1], [0, 0, 10, 5])
    np.testing.assert_array_equal(keep, [True, True, False, False, True])
    np.testing.assert_array_equal(moved, [True, False, False, False, False])  # half a pixel is no fault


def test_scenes_through_the_same_door(tmp_path):
    dataset = open_dataset("scenes", split="multi_val", root=tmp_path, size=96, count=3)
    assert (len(dataset), dataset.name, dataset.split, dataset.problems) == (3, "scenes", "multi_val", ())
    for sample in dataset:
        target = sample.target
        assert 2 <= len(target) <= 6
        assert read_image(sample.path).size == (96, 96)
        for box, rle in zip(target.boxes, target.masks, strict=True):
            rows, columns = np.nonzero(rle_codec.decode(rle))
            np.testing.assert_array_equal(box, [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    assert len(dataset.categories) >= 10
